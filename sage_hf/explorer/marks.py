"""Marked labels, and the list of them that `sage-hf apply` reads."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.status import ROW_COLUMN
from ..errors import ConfigError
from ..selection.rows import ShownRow
from ..selection.selection import Selection
from ..selector.cleaning import DROP, KEEP, RELABEL
from ..selector.issue_list import KINDS, for_spreadsheet
from ..utils.files import whole_file

# Before the name of a class that is a word of `sage-hf apply`.
_WORDS, _CLASS = (KEEP, DROP, RELABEL), "class:"


@dataclass(frozen=True)
class Mark:
    """What is to be done with the label of a row.

    Attributes:
        row: What the source's column `sage_row` says of the row, where it has one; else its number.
        doubt: How likely the label is wrong, in [0, 1]; None where it was not judged.
        label: Name of its class.
        suggestion: Name of the likeliest other class; None where none is known.
        action: `KEEP`, `DROP`, or what `relabelled` gives.
    """

    row: int
    doubt: float | None
    label: str
    suggestion: str | None
    action: str

    @property
    def words(self) -> str:
        """The action as a person reads it."""
        return self.action if self.action in (KEEP, DROP) else f"relabel: {self.action.removeprefix(_CLASS)}"


def relabelled(name: str) -> str:
    """The action that gives a row the class of this name."""
    return f"{_CLASS}{name}" if name.strip().casefold() in _WORDS else name


def actions_for(row: ShownRow, names: Iterable[str]) -> list[tuple[str, str]]:
    """What can be done with the label of a row, as (words, action), the likeliest first; nothing where it has none.

    Args:
        row: The row.
        names: Names of all classes.
    """
    if row.label is None:
        return []
    suggested = [] if row.suggestion is None else [(f"Relabel: {row.suggestion} (suggested)", row.suggestion)]
    others = [(f"Relabel: {name}", name) for name in names if name not in (row.label, row.suggestion)]
    first, rest = ([(words, relabelled(name)) for words, name in each] for each in (suggested, others))
    return [("No mark", ""), ("Keep the label", KEEP), *first, ("Drop the row", DROP), *rest]


def marked(selection: Selection, row: ShownRow, action: str) -> Mark:
    """The mark of a row.

    Raises:
        ConfigError: The label of the row is not known.
    """
    if row.label is None:
        raise ConfigError(
            f"The label of row {row.row} is not known", where="label", fix="Attach the original dataset."
        )
    return Mark(_number_of(selection, row.row), row.doubt, row.label, row.suggestion, action)


def write_marks(marks: Iterable[Mark], path: Path) -> Path:
    """Writes marks to a csv, by row number, as a list of label issues with its actions filled in."""
    with whole_file(path, "Free some space.") as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(KINDS)
        for mark in sorted(marks, key=lambda each: each.row):
            doubt = "" if mark.doubt is None else f"{mark.doubt:.6g}"
            words = map(for_spreadsheet, (mark.label, mark.suggestion or "", mark.action))
            writer.writerow((mark.row, doubt, *words))
    return path


def _number_of(selection: Selection, row: int) -> int:
    """What the column `sage_row` of the source says of a row; its number, where there is no such column."""
    rows, place = selection.source, row
    if rows is None:  # those in the folder, of which labels are known
        rows, place = selection.dataset, int(np.searchsorted(selection.indices, row))
    if ROW_COLUMN not in rows.column_names:
        return row
    return int(rows.select_columns(ROW_COLUMN).with_format(None)[place][ROW_COLUMN])
