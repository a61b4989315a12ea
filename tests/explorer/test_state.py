"""What the explorer knows and does, without a browser."""

from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset, Features, Image

from sage_hf import Selection
from sage_hf.config import STRATEGY_LINES
from sage_hf.errors import BudgetError, ConfigError
from sage_hf.explorer.state import (
    ADDED,
    REMOVED,
    VIEWS,
    Explored,
    Settings,
    change_of,
    command_of,
    groups_of,
    message_of,
    page_of,
    settings_of,
    strategies_of,
    view_numbers,
)
from sage_hf.selection.report import about_choice
from sage_hf.selection.rows import ROW_VIEWS, numbers_of


@pytest.fixture(scope="module")
def state(selection):
    return Explored.of(selection)


@pytest.fixture(scope="module")
def other(state):
    return state.choose(Settings(0.2, "agreement", "equal", "none"))


def test_the_settings_of_the_original_give_the_original_itself(state, other):
    assert other.choose(settings_of(state.original)).chosen is state.original
    assert change_of(state) == change_of(state).__class__(420, 42, 42, 0, 0)
    assert settings_of(state.original) == Settings(None, "auto", "proportional", "auto")


def test_other_settings_choose_what_the_selection_chooses_by_them(state, other, selection):
    expected = selection.choose(fraction=0.2, strategy="agreement", balance="equal", gate=None)
    assert np.array_equal(other.chosen.indices, expected.indices)
    assert settings_of(other.chosen).gate == "none"
    same_budget = state.choose(Settings(None, "loss", "proportional", "0.1"))
    assert len(same_budget.chosen.indices) == len(selection.indices)
    assert settings_of(same_budget.chosen).gate == "0.1"


def test_changes_are_counted_by_rows_and_by_groups(state, other):
    before, now = {*state.original.indices.tolist()}, {*other.chosen.indices.tolist()}
    change = change_of(other)
    assert (change.rows, change.before, change.now) == (420, 42, 84)
    assert change.added == len(now - before) > 0 and change.removed == len(before - now) > 0
    assert view_numbers(other, ADDED).tolist() == sorted(now - before)
    assert view_numbers(other, REMOVED).tolist() == sorted(before - now)
    groups = groups_of(other)
    assert sum(group.rows for group in groups) == 420
    assert sum(group.before for group in groups) == 42 and sum(group.now for group in groups) == 84
    assert len(about_choice(state.chosen)) > len(about_choice(other.chosen)) == 0


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (Settings(2.0, "auto", "proportional", "auto"), BudgetError),
        (Settings(0.1, "agreemnt", "proportional", "auto"), ConfigError),
        (Settings(0.1, "auto", "proportional", "many"), ConfigError),
        (Settings(0.1, "auto", "proportional", "1.5"), ConfigError),
        (Settings(0.1, "auto", "some", "auto"), ConfigError),
    ],
)
def test_impossible_settings_are_told_with_what_to_do(state, settings, error):
    with pytest.raises(error) as found:
        state.choose(settings)
    assert message_of(found.value) == f"{found.value.what}. {found.value.fix}"


def test_strategies_that_are_offered_can_be_chosen(state, saved):
    offered = strategies_of(state.original)
    assert set(offered) == set(STRATEGY_LINES) and all(offered.values())
    bare = replace(state.original, signals=None)
    few = strategies_of(bare)
    assert set(few) == {"auto", "agreement", "random", "loss", "small_loss"}  # the first is its own
    for name in [*few][1:]:
        assert len(Explored.of(bare).choose(Settings(0.3, name, "proportional", "none")).chosen.indices) == 126
    with pytest.raises(ConfigError, match="not stored"):
        Explored.of(bare).choose(Settings(0.3, "auto", "proportional", "auto"))


@pytest.mark.parametrize("view", VIEWS)
def test_pages_show_every_row_of_a_view_once_and_in_its_order(other, view):
    numbers = view_numbers(other, view)
    if view in ROW_VIEWS:
        assert np.array_equal(numbers, numbers_of(other.chosen, view))
    first = page_of(other, view, -1, 0, 50)
    pages = [page_of(other, view, -1, number, 50) for number in range(first.pages)]
    assert [row.row for page in pages for row in page.rows] == numbers.tolist()
    assert first.total == len(numbers)
    beyond = page_of(other, view, -1, 99, 50)
    assert (beyond.number, beyond.rows) == (first.pages - 1, pages[-1].rows)
    assert page_of(other, view, -1, -1, 50).number == 0


def test_a_group_is_shown_alone_by_its_code(other):
    page = page_of(other, "dropped", 3, 0, 1000)
    assert page.total == len(page.rows) > 0 and {row.group for row in page.rows} == {"{{three}}"}
    with pytest.raises(ConfigError, match="no group 10"):
        page_of(other, "dropped", 10, 0, 10)


def test_without_the_source_rows_of_the_folder_are_shown_after_another_choice_too(saved):
    state = Explored.of(Selection.load_from_disk(saved))
    page = page_of(state, "kept", -1, 0, 50)
    assert page.note == "" and all("note" in row.content and row.label is not None for row in page.rows)
    again = state.choose(Settings(0.3, "loss", "proportional", "none"))
    here = {*state.original.indices.tolist()}
    page = page_of(again, "kept", -1, 0, 500)
    assert "not available" in page.note
    assert (
        {row.row for row in page.rows if row.content is not None} == here & {*again.chosen.indices.tolist()} != set()
    )


def test_rows_that_cannot_be_read_are_told_and_shown_by_their_numbers(state, tmp_path):
    gone = [str(tmp_path / "gone.png")] * 420
    broken = Dataset.from_dict({"image": gone}, features=Features({"image": Image()}))
    page = page_of(Explored.of(replace(state.original, source=broken)), "kept", -1, 0, 5)
    assert "reading them failed" in page.note and len(page.rows) == 5
    assert all(row.content is None and row.score is not None for row in page.rows)


def test_the_line_of_python_makes_the_choice_again(state, other):
    line = command_of(other, None)
    assert line == "selection.choose(fraction=0.2, strategy='agreement', balance='equal', gate=None)"
    again = eval(line, {"selection": state.original})
    assert np.array_equal(again.indices, other.chosen.indices)
    assert command_of(other, "a b").split(" -o ")[0] == (
        "sage-hf choose 'a b' --fraction 0.2 --strategy agreement --balance equal --gate none"
    )


def test_marks_come_and_go_and_other_choices_keep_them(state):
    row = int(view_numbers(state, "doubted")[0])
    marked = state.mark(row, "keep").mark(row, "drop").mark(row + 1, "keep")
    assert {number: mark.action for number, mark in marked.marks.items()} == {row: "drop", row + 1: "keep"}
    assert marked.choose(Settings(0.3, "loss", "proportional", "none")).marks == marked.marks
    assert set(marked.mark(row, "").marks) == {row + 1}
    assert state.marks == marked.unmarked().marks == {}
