"""Signals that are kept with a selection choose as a new selection would."""

from pathlib import Path

import numpy as np
import pytest

from sage_hf import SageConfig, SageSelector, Selection, StreamSelection
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


def test_without_signals_that_are_cut_short_or_of_other_rows_the_selection_loads_and_says_so(
    selection, tmp_path, caplog
):
    selection.save_to_disk(tmp_path / "kept")
    file = tmp_path / "kept" / "signals.npy"
    held = file.read_bytes()
    file.write_bytes(held[: len(held) // 2])
    assert Selection.load_from_disk(tmp_path / "kept").signals is None
    np.save(file, selection.signals.records.array[:7])
    loaded = Selection.load_from_disk(tmp_path / "kept")
    assert loaded.signals is None and np.array_equal(loaded.indices, selection.indices)
    assert ["signals of the rows cannot be read" in line for line in caplog.messages] == [True, True]
    assert "they are of 7 rows" in caplog.messages[1]


def test_signals_with_a_changed_bit_are_refused_when_they_are_needed(selection, tmp_path):
    selection.save_to_disk(tmp_path / "kept")
    file = tmp_path / "kept" / "signals.npy"
    held = bytearray(file.read_bytes())
    held[-5] ^= 4
    file.write_bytes(held)
    loaded = Selection.load_from_disk(tmp_path / "kept")
    with pytest.raises(OutputError, match="signals of the rows are damaged") as caught:
        loaded.choose(fraction=0.5)
    assert caught.value.where == str(file)
    with pytest.raises(OutputError, match="signals of the rows are damaged"):
        loaded.save_to_disk(tmp_path / "again")
    assert not (tmp_path / "again").exists()
    file.unlink()  # as it says
    assert len(Selection.load_from_disk(tmp_path / "kept").choose(fraction=0.5, strategy="loss")) == 30


@pytest.mark.parametrize("kind", ["dataset", "stream"])
def test_a_selection_of_format_2_is_read(kind, tmp_path):
    """Made by version 0.1.0: `image_rows(24)`, of a dataset with signals and of a stream."""
    folder = Path(__file__).parent / "format_2" / kind
    if kind == "stream":
        loaded = StreamSelection.load_from_disk(folder)
        assert loaded.indices.tolist() == [0, 1, 3, 13, 17, 23]
        assert [row["sage_row"] for row in loaded.dataset] == loaded.indices.tolist()
    else:
        loaded = Selection.load_from_disk(folder)
        assert loaded.indices.tolist() == [1, 2, 4, 9, 14, 18]
        assert loaded.dataset["sage_row"][:] == loaded.indices.tolist()
        assert (
            Selection.load_from_disk(folder, source=image_rows(24)).dataset["sage_row"][:] == loaded.indices.tolist()
        )
        assert len(loaded.choose(fraction=0.5, strategy="coverage")) == 12
    loaded.save_to_disk(tmp_path / "new")
    again = type(loaded).load_from_disk(tmp_path / "new")
    assert '"format_version": 3' in (tmp_path / "new" / "selection.json").read_text()
    assert np.array_equal(again.indices, loaded.indices) and again.stats == loaded.stats


def test_signals_whose_header_has_changed_bits_are_said_to_be_damaged(selection, tmp_path, caplog):
    selection.save_to_disk(tmp_path / "kept")
    file = tmp_path / "kept" / "signals.npy"
    held = file.read_bytes()
    for place in range(
        10 * 8, held.index(b"\n") * 8, 8
    ):  # NumPy reads it by rules of its own, which fail in many ways
        broken = bytearray(held)
        broken[place // 8] ^= 1
        file.write_bytes(broken)
        loaded = Selection.load_from_disk(tmp_path / "kept")
        if loaded.signals is not None:  # a bit that means nothing, as far as the header goes
            with pytest.raises(OutputError, match="damaged"):
                loaded.choose(fraction=0.5)
    assert "cannot be read" in caplog.text
