"""Marked labels as a list that is applied."""

import csv

import numpy as np
import pytest

from sage_hf import Selection
from sage_hf.errors import ConfigError
from sage_hf.explorer.marks import DROP, KEEP, Mark, actions_for, relabelled, write_marks
from sage_hf.explorer.state import Explored, view_numbers
from sage_hf.selection.rows import rows_at, rows_of
from sage_hf.selector.cleaning import apply_label_issues

from .conftest import NAMES


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_actions_of_a_row_begin_with_its_suggestion_and_hold_every_other_class(selection):
    row = rows_of(selection, "doubted", limit=1)[0]
    actions = actions_for(row, NAMES)
    assert [action for _, action in actions[:4]] == ["", KEEP, relabelled(row.suggestion), DROP]
    others = {action for _, action in actions[4:]}
    assert others == {relabelled(name) for name in NAMES if name not in (row.label, row.suggestion)}
    assert relabelled("drop") == "class:drop" and relabelled(" Keep") == "class: Keep" and relabelled("cat") == "cat"


def test_the_list_has_the_columns_of_label_issues_and_all_that_a_label_can_be(tmp_path):
    marks = [Mark(9, 0.75, "five, 'six'", "six\n", "class:drop"), Mark(2, None, "${4+4}", None, KEEP)]
    assert read(write_marks(marks, tmp_path / "marks.csv")) == [
        {
            "sage_row": "2",
            "sage_label_doubt": "",
            "sage_label": "${4+4}",
            "sage_suggested_label": "",
            "sage_action": "keep",
        },
        {
            "sage_row": "9",
            "sage_label_doubt": "0.75",
            "sage_label": "five, 'six'",
            "sage_suggested_label": "six\n",
            "sage_action": "class:drop",
        },
    ]


def test_row_numbers_are_those_that_the_source_tells(selection, saved):
    numbered = selection.source.add_column("sage_row", np.arange(1000, 1420))
    state = Explored.of(selection)
    told = Explored(state.original, state.chosen)
    told.original.source, kept = numbered, told.original.source
    try:
        assert told.mark(7, KEEP).marks[7].row == 1007
    finally:
        told.original.source = kept
    assert state.mark(7, KEEP).marks[7].row == 7
    loaded = Explored.of(Selection.load_from_disk(saved))
    last = int(selection.indices[-1])
    assert loaded.mark(last, KEEP).marks[last].row == last


def test_a_row_whose_label_is_not_known_cannot_be_marked(saved):
    state = Explored.of(Selection.load_from_disk(saved))
    row = int(view_numbers(state, "dropped")[0])
    assert actions_for(rows_at(state.chosen, np.array([row]))[0], NAMES) == []
    with pytest.raises(ConfigError, match=r"label of row \d+ is not known"):
        state.mark(row, KEEP)


def test_the_list_is_applied_as_it_was_marked(selection, rows, tmp_path):
    state = Explored.of(selection)
    doubted = view_numbers(state, "doubted")[:4].tolist()
    wanted = {doubted[0]: rows_at(selection, np.array(doubted[:1]))[0].suggestion, doubted[2]: "six\n"}
    wanted[doubted[3]] = next(name for name in ("drop", "zero") if name != NAMES[rows[doubted[3]]["label"]])
    actions = {row: relabelled(name) for row, name in wanted.items()} | {doubted[1]: DROP}
    for row, action in actions.items():
        state = state.mark(row, action)
    clean = apply_label_issues(rows, write_marks(state.marks.values(), tmp_path / "label_issues.csv"))
    labels = dict(zip(clean["sage_row"], clean["label"], strict=True))
    assert set(range(420)) - set(labels) == {doubted[1]}
    for row, label in labels.items():
        assert NAMES[label] == wanted.get(row, NAMES[rows[row]["label"]])
