"""What became of every row, and rows as a person looks at them."""

from dataclasses import replace

import numpy as np
import pytest

from sage_hf import SageConfig, SageSelector, Selection
from sage_hf.data.status import DOUBTED, KEPT, NEAR_DUPLICATE, NOT_CHOSEN, OUTCOMES, SET_ASIDE
from sage_hf.demo import build_vit, load_noisy_digits
from sage_hf.errors import ConfigError
from sage_hf.selection.rows import ROW_VIEWS, numbers_of, rows_of, source_numbers
from sage_hf.training.warmup import warm_up


@pytest.fixture(scope="module")
def digits():
    return load_noisy_digits(0, 0.2)


@pytest.fixture(scope="module")
def rows(digits):
    """Noisy digits, the first 20 twice."""
    return digits.train.select([*range(400), *range(20)])


@pytest.fixture(scope="module")
def selection(rows):
    model = build_vit(0)
    warm_up(model, rows, steps=120, learning_rate=2e-3)
    return SageSelector(model, config=SageConfig(fraction=0.1)).select(rows)


def test_every_row_has_one_outcome_and_they_agree_with_the_statistics(selection):
    outcomes = selection.outcomes
    assert np.array_equal(np.flatnonzero(outcomes == KEPT), selection.indices)
    gate = selection.stats.gate
    counts = np.bincount(outcomes, minlength=len(OUTCOMES))
    assert counts.sum() == 420 and counts[SET_ASIDE] == 0
    assert 0 < counts[DOUBTED] <= gate.doubted and 0 < counts[NEAR_DUPLICATE] <= gate.copies
    assert counts[NOT_CHOSEN] > 0


def test_doubted_rows_are_mostly_wrong_and_suggestions_mostly_right(selection, digits, rows):
    found = rows_of(selection, "doubted", limit=30)
    assert len(found) == 30
    doubts = [each.doubt for each in found]
    assert doubts == sorted(doubts, reverse=True) and min(doubts) > 0.5
    assert np.mean([digits.is_wrong[each.row % 400] for each in found]) > 0.8
    for each in found:
        assert each.outcome == "doubted"
        assert each.label == str(rows[each.row]["label"]) and each.suggestion not in (None, each.label)


@pytest.mark.parametrize("view", list(ROW_VIEWS))
def test_every_view_gives_rows_of_its_kind_in_its_order(selection, view):
    numbers, scores = numbers_of(selection, view), selection.scores
    shown = rows_of(selection, view, limit=7)
    assert [each.row for each in shown] == numbers[:7].tolist()
    if view == "highest":
        assert np.all(np.diff(scores[numbers]) <= 0) and len(numbers) == 420
    if view == "lowest":
        assert np.all(np.diff(scores[numbers]) >= 0) and len(numbers) == 420
    if view == "dropped":
        assert len(numbers) == 420 - len(selection)
    if view == "near-duplicates":
        assert 0 < len(numbers) <= 20


def test_a_group_is_shown_alone(selection):
    shown = rows_of(selection, "kept", group="3", limit=100)
    assert shown and {each.group for each in shown} == {"3"}
    assert len(shown) == selection.group_table[3].kept


def test_without_the_source_only_kept_rows_have_content(selection, tmp_path):
    selection.save_to_disk(tmp_path / "kept")
    loaded = Selection.load_from_disk(tmp_path / "kept")
    shown = rows_of(loaded, "kept", limit=3)
    assert [each.content["label"] for each in shown] == loaded.dataset["label"][:3]
    assert not {name for each in shown for name in each.content if name.startswith("sage_")}
    assert all(each.content is None and each.score is not None for each in rows_of(loaded, "dropped", limit=3))


def test_unknown_views_and_groups_are_told(selection):
    with pytest.raises(ConfigError, match=r"no view .best..*kept, dropped"):
        rows_of(selection, "best")
    with pytest.raises(ConfigError, match="no group 'x'"):
        rows_of(selection, "kept", group="x")


def test_rows_are_numbered_as_the_file_that_they_came_from(rows, tmp_path):
    some = rows.select(range(40)).add_column("sage_row", [1000 + 2 * number for number in range(40)])
    config = SageConfig(fraction=0.25, strategy="agreement", sketch_size=8)
    made = SageSelector(build_vit(0), config=config).select(some)
    for view in ("kept", "dropped", "lowest"):
        shown = rows_of(made, view, limit=40)
        assert [each.row for each in shown] == [1000 + 2 * number for number in numbers_of(made, view).tolist()]
    made.save_to_disk(tmp_path / "kept")
    alone = Selection.load_from_disk(tmp_path / "kept")
    assert [each.row for each in rows_of(alone, "kept", limit=40)] == [1000 + 2 * row for row in made.indices.tolist()]
    assert source_numbers(replace(made, source=None), [3, 5]) == [3, 5]  # nothing tells
