"""What an edited list of label issues does to a dataset: rows with other labels, and without some."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset

from ..data.classes import names_of
from ..data.columns import StoredValues
from ..data.groups import name_of
from ..data.status import ROW_COLUMN
from ..errors import DatasetError, LabelError
from .issue_edits import Edits, Line, accents, check_rows, find_label_column, folded, read_edits, refuse
from .issue_list import ACTION_COLUMN, LABEL_COLUMN

KEEP, DROP, RELABEL = "keep", "drop", "relabel"
# Before the name of a class that is called like one of these.
_CLASS = "class:"
# Classes that an error lists.
_LISTED = 8


@dataclass(frozen=True)
class Cleaned:
    """A dataset after a list of label issues.

    Attributes:
        dataset: The rows that stay, in the source's order.
        source: The rows before.
        column: Column of the labels.
        listed: Number of lines of the list that are of these rows.
        absent: Number of lines whose rows had been left out before.
        relabelled: Number of rows by (class before, class now).
        dropped: Number of rows by class.
    """

    dataset: Dataset
    source: Dataset
    column: str
    listed: int
    absent: int
    relabelled: Counter[tuple[str, str]]
    dropped: Counter[str]

    @property
    def kept(self) -> int:
        """Number of rows on the list that stay as they were."""
        return self.listed - self.relabelled.total() - self.dropped.total()


def apply_label_issues(
    dataset: Dataset, issues: Dataset | str | os.PathLike[str], *, label_column: str | None = None
) -> Dataset:
    """The dataset after an edited list of label issues is applied: rows relabelled, dropped or kept.

    The column `sage_action` of the list decides, row by row: `keep` (or nothing) keeps the row as it is, `drop`
    removes it, `relabel` gives it the suggested label, and the name of a class gives it that class (`class:drop`, if a
    class has one of the three words as its name).

    Args:
        dataset: The rows that the list was made from. A column `sage_row`, if there is one, identifies each row;
            else the row's number does.
        issues: The list: what `LabelIssues.to_dataset` returned, with `sage_action` filled in, or a file that
            `LabelIssues.save` wrote (.csv, .jsonl, .parquet).
        label_column: Column of the labels; `label` or `labels` by default.

    Returns:
        The rows that stay, in their order, with their number in the source in a column `sage_row`. Classes keep their
        numbers.

    Raises:
        LabelError: There is no column of class labels.
        DatasetError: The dataset is none, or its `sage_row` holds no numbers; the list cannot be read, names no
            action, or was made from another dataset; a row number is wrong or occurs twice; a class or an action is
            unknown. The error names the first five lines.

    Example:
        >>> issues = find_label_issues(model, dataset, processing_class=tokenizer)
        >>> issues.save("issues.csv")               # write drop, relabel or a class into sage_action
        >>> clean = apply_label_issues(dataset, "issues.csv")
    """
    return cleaned(dataset, issues, label_column).dataset


def cleaned(dataset: Dataset, issues: Dataset | str | os.PathLike[str], column: str | None = None) -> Cleaned:
    """The same, with what was done."""
    check_rows(dataset)
    found = find_label_column(dataset, column)
    if found is None:
        raise LabelError(
            f"No column of class labels is called label or labels; the columns are {', '.join(dataset.column_names)}",
            where="dataset",
            fix="Name the column of the labels (label_column, --label-column).",
        )
    edits = read_edits(issues, dataset, found, (ROW_COLUMN, LABEL_COLUMN, ACTION_COLUMN))
    if edits.lines and not edits.filled:
        raise DatasetError(
            "The list names no action",
            where=edits.name,
            fix=f"Fill in its column {ACTION_COLUMN}: {KEEP}, {DROP}, {RELABEL}, or the name of a class.",
        )
    values, names = list(StoredValues(dataset, found)), names_of(dataset.features[found])
    value_of = _value_of(values, names)
    wanted = _wanted(edits, value_of)
    relabelled, dropped, gone = Counter[tuple[str, str]](), Counter[str](), []
    for line, label in wanted:
        now = name_of(values[line.place], names)
        if label is None:
            dropped[now] += 1
            gone.append(line.place)
        elif label != now:
            relabelled[now, label] += 1
            values[line.place] = value_of[label]
    rows = _numbered(dataset)
    rows = _with_values(rows, found, values) if relabelled else rows
    return Cleaned(_without(rows, gone), dataset, found, len(edits.lines), edits.absent, relabelled, dropped)


class LeftOut(NamedTuple):
    """A dataset without the rows that a list says to drop.

    Attributes:
        dataset: The others, with their numbers in the source in `sage_row`.
        numbers: The numbers of those that are left out.
        said: What a person is told.
    """

    dataset: Dataset
    numbers: list[int]
    said: str


def without_issues(dataset: Dataset, issues: Dataset | str | os.PathLike[str]) -> LeftOut:
    """The rows without those that a list says to drop, or without all on it where it says nothing.

    Args:
        dataset: The rows that the list was made of.
        issues: As of `apply_label_issues`; a column `sage_row` is enough.

    Raises:
        DatasetError: As of `apply_label_issues`; or no row is left.
    """
    check_rows(dataset)
    column = find_label_column(dataset)
    edits = read_edits(issues, dataset, column, (ROW_COLUMN,))
    gone, others = [line.place for line in edits.lines], 0
    if edits.filled:
        values = [] if column is None else StoredValues(dataset, column)
        wanted = _wanted(edits, _value_of(values, names_of(dataset.features.get(column))))
        gone = [line.place for line, label in wanted if label is None]
        others = len(wanted) - len(gone)
    if len(gone) == len(dataset):
        raise DatasetError("No row is left", where=edits.name, fix="Drop fewer rows.")
    why = (
        f"{edits.name} says to drop them" if edits.filled else f"{edits.name} lists them, and says no {ACTION_COLUMN}"
    )
    said = f"{len(gone):,} of {len(dataset):,} rows are left out: {why}. {ROW_COLUMN} stays the number in the source."
    if others:
        said += f" Other actions ({others:,} rows) are not done here: sage-hf apply does them."
    rows = _numbered(dataset)
    numbers = rows.with_format(None).select(gone)[ROW_COLUMN][:]
    return LeftOut(_without(rows, gone), numbers, said + said_of_absent(edits.absent))


def without_rows(dataset: Dataset, numbers: list[int]) -> Dataset:
    """The rows without those of some numbers, as `without_issues` leaves them out."""
    rows = _numbered(dataset)
    return _without(rows, np.flatnonzero(np.isin(rows.with_format(None)[ROW_COLUMN][:], numbers)).tolist())


def said_of_absent(absent: int) -> str:
    """What a person is told of lines whose rows are not there; empty where there are none."""
    return f" {absent:,} lines of the list are of rows that had been left out before." if absent else ""


def _value_of(values: Iterable[Any], names: list[str] | None) -> dict[str, Any]:
    """The value of each class, by its name."""
    if names:
        return {name: number for number, name in enumerate(names)}
    return {name_of(value, None): value for value in values if value is not None}


def _wanted(edits: Edits, classes: Iterable[str]) -> list[tuple[Line, str | None]]:
    """Every line that does something, with the class that its row is to have; None where it is to be dropped."""
    names = sorted(classes)
    times = Counter(map(folded, names))
    known = {folded(name): name for name in names if times[folded(name)] == 1} | {name: name for name in names}
    wanted: list[tuple[Line, str | None]] = []
    unknown, unsuggested = [], []
    for line in edits.lines:
        word = line.action.strip().casefold()
        if line.action in names and line.action != line.action.strip():  # its own spaces make it no other word
            wanted.append((line, line.action))
            continue
        if word in ("", KEEP):
            continue
        if word == DROP:
            wanted.append((line, None))
            continue
        if word == RELABEL and not line.suggestion:
            unsuggested.append(line)
            continue
        text = line.suggestion if word == RELABEL and line.suggestion else line.action
        if text not in known and word.startswith(_CLASS):
            text = text.lstrip()[len(_CLASS) :]
        name = next((known[each] for each in (text, text.strip(), folded(text)) if each in known), None)
        if name is None:
            unknown.append(line)
        else:
            wanted.append((line, name))
    refuse(edits.name, "without a suggested label", unsuggested, f"Write the name of a class into {ACTION_COLUMN}.")
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    refuse(
        edits.name,
        "with an unknown action or class",
        unknown,
        f"Write {KEEP}, {DROP}, {RELABEL}, or one of the classes {', '.join(names[:_LISTED])}{more}.",
        lambda line: (
            f"{line} says {line.action!r}"
            + (
                f" to {line.suggestion!r}"
                if line.action.strip().casefold() == RELABEL
                else accents(line.action, names)
            )
        ),
    )
    return wanted


def _with_values(rows: Dataset, column: str, values: list[Any]) -> Dataset:
    """The rows with other values in a column of classes, which keeps its type and its place."""
    feature, order = rows.features[column], rows.column_names
    array = pa.array(values, pa.int64() if names_of(feature) else feature.pa_type)
    return rows.remove_columns(column).add_column(column, array, feature=feature).select_columns(order)


def _numbered(rows: Dataset) -> Dataset:
    """The rows with their numbers; those that they have already stay."""
    return rows if ROW_COLUMN in rows.column_names else rows.add_column(ROW_COLUMN, np.arange(len(rows)))


def _without(rows: Dataset, gone: list[int]) -> Dataset:
    return rows.select(np.setdiff1d(np.arange(len(rows)), gone)) if gone else rows
