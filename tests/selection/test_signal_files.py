"""Signals that are kept with a selection choose as a new selection would."""

import numpy as np
import pytest

from sage_hf import SageConfig, SageSelector, Selection
from sage_hf.errors import ConfigError, OutputError
from sage_hf.strategies import STRATEGIES

from ..cases import image_rows, vit

SMALL = {"sketch_size": 8, "shard_size": 16, "batch_size": 8}
WAYS = [{"strategy": name} for name in STRATEGIES] + [
    {"strategy": "auto", "gate": None},
    {"strategy": "auto", "gate": 0.3},
    {"strategy": "herding", "gate": 0.25, "balance": "equal"},
    {"strategy": "coverage", "balance": "none", "min_per_group": 0},
]


@pytest.fixture(scope="module")
def rows():
    return image_rows(60)


@pytest.fixture(scope="module")
def selection(rows):
    return SageSelector(vit(), config=SageConfig(fraction=0.2, **SMALL)).select(rows)


def same(one, other):
    assert np.array_equal(one.indices, other.indices)
    assert np.array_equal(one.outcomes, other.outcomes)
    assert (one.verdicts is None) == (other.verdicts is None)
    if one.verdicts is not None:
        assert np.array_equal(one.label_doubts, other.label_doubts, equal_nan=True)
        assert np.array_equal(one.suggested_labels, other.suggested_labels)
    assert one.stats.gate == other.stats.gate


def test_a_loaded_selection_chooses_by_every_strategy_what_a_new_selection_keeps(selection, rows, tmp_path):
    selection.save_to_disk(tmp_path / "kept")
    loaded = Selection.load_from_disk(tmp_path / "kept", source=rows)
    same(loaded, selection)
    for way in WAYS:
        new = SageSelector(vit(), config=SageConfig(fraction=0.35, **SMALL, **way)).select(rows)
        for one in (selection, loaded):
            chosen = one.choose(fraction=0.35, **way)
            same(chosen, new)
            assert chosen.dataset["sage_row"] == new.dataset["sage_row"]


def test_other_rows_of_a_loaded_selection_can_be_saved_and_chosen_from_again(selection, rows, tmp_path):
    selection.save_to_disk(tmp_path / "kept")
    Selection.load_from_disk(tmp_path / "kept", source=rows).choose(fraction=0.5).save_to_disk(tmp_path / "half")
    again = Selection.load_from_disk(tmp_path / "half").choose(fraction=0.2)
    same(again, selection)


def test_without_signals_the_folder_is_small_and_only_scores_choose(selection, rows, tmp_path):
    selection.save_to_disk(tmp_path / "kept", keep_signals=False)
    assert not list((tmp_path / "kept").glob("signals*"))
    loaded = Selection.load_from_disk(tmp_path / "kept", source=rows)
    assert loaded.signals is None
    assert len(loaded.choose(fraction=0.5, strategy="loss")) == 30
    with pytest.raises(ConfigError, match="store the signals"):
        loaded.choose(fraction=0.5)


def test_what_one_strategy_did_not_need_is_not_there_for_another(rows, tmp_path):
    config = SageConfig(fraction=0.2, strategy="agreement", **SMALL)
    selection = SageSelector(vit(), config=config).select(rows)
    assert selection.signals is None and selection.label_doubts is None
    selection.save_to_disk(tmp_path / "kept")
    assert not list((tmp_path / "kept").glob("signals*"))


def test_signals_that_are_cut_short_or_of_other_rows_are_refused(selection, tmp_path):
    selection.save_to_disk(tmp_path / "kept")
    file = tmp_path / "kept" / "signals.npy"
    held = file.read_bytes()
    file.write_bytes(held[: len(held) // 2])
    with pytest.raises(OutputError, match="signals of the rows cannot be read"):
        Selection.load_from_disk(tmp_path / "kept")
    np.save(file, selection.signals.records.array[:7])
    with pytest.raises(OutputError, match="they are of 7 rows"):
        Selection.load_from_disk(tmp_path / "kept")
