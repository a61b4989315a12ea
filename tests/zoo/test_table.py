"""The committed table of models is that of the zoo, and nothing in it is wrong."""

import importlib.util
import json
from pathlib import Path

import pytest

from .expected import expected
from .families import FAMILIES, TARGETS

BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"


@pytest.fixture(scope="module")
def models():
    spec = importlib.util.spec_from_file_location("models_benchmark", BENCHMARKS / "models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured():
    return json.loads((BENCHMARKS / "results" / "models.json").read_text(encoding="utf-8"))


def test_the_table_holds_every_family_and_what_is_expected_of_it(measured):
    lines = measured["families"]
    assert [line["family"] for line in lines] == list(FAMILIES)
    for line in lines:
        assert [line[target] for target in TARGETS] == [expected(line["family"], target) for target in TARGETS]


def test_no_row_is_wrong_in_any_setting(measured):
    words = {word for line in measured["families"] for word, _ in line["differs"].values()}
    assert words <= {"right", "one at a time", "refused", "not run"}


def test_the_text_is_that_of_the_measurements(models, measured):
    text = (BENCHMARKS / "results" / "models.md").read_text(encoding="utf-8")
    assert text == models.report(measured["families"], measured["transformers"])
