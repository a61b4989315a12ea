"""A selection of digits whose classes and notes would be markup, a template, or a word of the list of marks."""

import pytest
from datasets import ClassLabel

from sage_hf import SageConfig, SageSelector
from sage_hf.demo import build_vit, load_noisy_digits
from sage_hf.training.warmup import warm_up

NAMES = ["zero", "<b>one</b>", "drop", "{{three}}", "${4+4}", "five, 'six'", "six\n", "seven", "eight", "nine"]
NOTE = '<img src=x onerror="document.title=1"> {{value}} ${1+1} & &amp; <!-- {% raw %}'


@pytest.fixture(scope="package")
def rows():
    """Noisy digits, the first 20 twice."""
    rows = load_noisy_digits(0, 0.2).train.select([*range(400), *range(20)])
    return rows.cast_column("label", ClassLabel(names=NAMES)).add_column("note", [NOTE] * 420)


@pytest.fixture(scope="package")
def selection(rows):
    model = build_vit(0)
    warm_up(model, rows, steps=120, learning_rate=2e-3)
    return SageSelector(model, config=SageConfig(fraction=0.1)).select(rows)


@pytest.fixture(scope="package")
def saved(selection, tmp_path_factory):
    """Its folder."""
    return selection.save_to_disk(tmp_path_factory.mktemp("explored") / "tenth")
