"""A list of label issues that a person has edited: its lines, read and held against the rows that they are of."""

from __future__ import annotations

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.csv
import pyarrow.parquet
from datasets import ClassLabel, Dataset, DatasetDict, IterableDatasetDict

from ..data.batches import check_dataset
from ..data.classes import is_text, names_of
from ..data.columns import StoredValues
from ..data.encoding import LABEL_COLUMNS
from ..data.groups import name_of
from ..data.status import ROW_COLUMN
from ..errors import DatasetError, LabelError
from ..hub.checks import first_line
from ..hub.paths import check_list_file
from .issue_list import ACTION_COLUMN, LABEL_COLUMN, SUGGESTION_COLUMN, from_spreadsheet, own_numbers

_READ = (ROW_COLUMN, LABEL_COLUMN, SUGGESTION_COLUMN, ACTION_COLUMN)
# What parts the columns of a csv, also as a spreadsheet of another language saves it.
_SEPARATORS = ",;\t"
# Lines that an error names.
_NAMED = 5


@dataclass(frozen=True)
class Line:
    """A line of the list.

    Attributes:
        number: Which it is, as a spreadsheet counts.
        row: What stands under `sage_row`.
        label: Name of the given label; None where the list has no such column.
        suggestion: Name of the suggested label; None where there is none.
        action: What a person wrote; empty where nothing.
        place: Which row of the dataset it is of, once that is known.
    """

    number: int
    row: str
    label: str | None
    suggestion: str | None
    action: str
    place: int = -1

    def __str__(self) -> str:
        return f"line {self.number} (row {self.row or 'empty'})"


@dataclass(frozen=True)
class Edits:
    """The lines of a list that are of rows of a dataset.

    Attributes:
        name: What the list is called.
        lines: With their places, in the order of the list.
        absent: Number of lines whose row was left out of the dataset before.
    """

    name: str
    lines: list[Line]
    absent: int

    @property
    def filled(self) -> bool:
        """Whether any action is filled in."""
        return any(line.action for line in self.lines)


def read_edits(
    issues: Dataset | str | os.PathLike[str], rows: Dataset, column: str | None, needed: Sequence[str]
) -> Edits:
    """The lines of a list, each with the row that it is of.

    Args:
        issues: The list, or its file.
        rows: The dataset that it is of. Where it has a column `sage_row`, that tells which row is which.
        column: Column of the labels; None where there is none, and the labels of the list are not looked at.
        needed: Columns that the list must have.

    Raises:
        DatasetError: The list cannot be read or lacks a column, a row number is wrong or stands there twice, or the
            list is of another dataset.
    """
    if not isinstance(issues, Dataset | str | os.PathLike):
        splits = isinstance(issues, DatasetDict | IterableDatasetDict)
        raise DatasetError(
            f"A {type(issues).__name__} is no list of label issues",
            where="issues",
            fix=f"Pass one of its splits, {list(issues)}." if splits else "Pass the list as a Dataset, or its file.",
        )
    if isinstance(issues, Dataset):
        name, first, found = "issues", 1, issues.with_format(None)
        columns, values = found.column_names, {each: found[each][:] for each in _READ if each in found.column_names}
    else:
        file = check_list_file(issues)
        name, first = file.name, 2 if file.suffix.lower() == ".csv" else 1
        columns, values = _read_file(file)
    if missing := [each for each in needed if each not in columns]:
        raise DatasetError(
            f"The list has no column {missing[0]!r}; its columns are {', '.join(columns)}",
            where=name,
            fix="Edit the list that label-issues wrote, and keep its columns that begin with sage_.",
        )
    count = len(next(iter(values.values()), []))
    cells = {each: values.get(each, [None] * count) for each in _READ}
    lines = [Line(number, *_cells(each)) for number, each in enumerate(zip(*cells.values(), strict=True), first)]
    # A spreadsheet may leave lines of nothing but separators.
    return _placed([line for line in lines if line.row or line.action or line.label], name, rows, column)


def check_rows(rows: Any) -> None:
    """Refuses what is no dataset of rows: a stream, or several splits.

    Raises:
        DatasetError: It is such.
    """
    if not isinstance(rows, Dataset):
        check_dataset(rows)


def find_label_column(rows: Dataset, column: str | None = None) -> str | None:
    """The column of class labels that is named, or found by its name; None where none is named and none found.

    Raises:
        LabelError: The column that is named is not there, or holds no classes.
    """
    if column is None:
        found = next((name for name in LABEL_COLUMNS if name in rows.column_names), None)
        return found if found is not None and _has_classes(rows.features[found]) else None
    if column not in rows.column_names or not _has_classes(rows.features[column]):
        what = "holds no classes" if column in rows.column_names else "is not there"
        raise LabelError(
            f"The column {column!r} {what}; the columns are {', '.join(rows.column_names)}",
            where="label column",
            fix="Name a column of class names, text or whole numbers.",
        )
    return column


def refuse(name: str, what: str, lines: Sequence[Line], fix: str, told: Callable[[Line], str] = str) -> None:
    """Raises an error that names the first five lines, where there are any.

    Raises:
        DatasetError: There are.
    """
    if lines:
        named = ", ".join(map(told, lines[:_NAMED])) + (", ..." if len(lines) > _NAMED else "")
        count = "1 line" if len(lines) == 1 else f"{len(lines):,} lines"
        raise DatasetError(f"{count} {what}: {named}", where=name, fix=fix)


def _has_classes(feature: Any) -> bool:
    return (
        isinstance(feature, ClassLabel)
        or is_text(feature)
        or getattr(feature, "dtype", "").startswith(("int", "uint", "bool"))
    )


def _placed(lines: list[Line], name: str, rows: Dataset, column: str | None) -> Edits:
    numbers = [_whole_number(line.row) for line in lines]
    stored = own_numbers(rows)
    limit = len(rows) if stored is None else np.iinfo(np.int64).max
    span = "a whole number from 0 on" if stored is not None else f"a row number from 0 to {limit - 1:,}"
    refuse(
        name,
        f"with a {ROW_COLUMN} that is not {span}",
        [line for line, number in zip(lines, numbers, strict=True) if number is None or number >= limit],
        f"Give the list and the dataset that it was made of; {ROW_COLUMN} is not to be edited.",
    )
    known = [number for number in numbers if number is not None]
    times = Counter(known)
    twice = [line for line, number in zip(lines, known, strict=True) if times[number] > 1]
    refuse(name, "with a row number that stands there twice", twice, "Keep one line a row.")
    found = dict(zip(known, known, strict=True))
    if stored is not None:
        found = _unique_places(stored, known, name)
    placed = [Line(**{**vars(line), "place": found[n]}) for line, n in zip(lines, known, strict=True) if n in found]
    if lines and not placed:
        raise DatasetError(
            f"No line belongs to a row of this dataset: its {ROW_COLUMN} holds other numbers",
            where=name,
            fix="Give the list, and the dataset that it was made from.",
        )
    if column is not None:
        _check_labels(placed, name, rows, column)
    return Edits(name, placed, len(lines) - len(placed))


def _unique_places(stored: npt.NDArray[np.int64], wanted: list[int], name: str) -> dict[int, int]:
    """Places in the dataset of those of the wanted row numbers that it has."""
    places = np.flatnonzero(np.isin(stored, wanted))
    found = dict(zip(stored[places].tolist(), places.tolist(), strict=True))
    if len(found) < len(places):
        raise DatasetError(
            f"The dataset has several rows with the same {ROW_COLUMN}",
            where=name,
            fix=f"Remove its column {ROW_COLUMN}, and make the list again.",
        )
    return found


def _check_labels(lines: list[Line], name: str, rows: Dataset, column: str) -> None:
    """Refuses a list whose labels are not the dataset's."""
    labels = list(StoredValues(rows.select([line.place for line in lines]), column))
    names = names_of(rows.features[column])
    given = {
        line.number: "nothing" if value is None else name_of(value, names)
        for line, value in zip(lines, labels, strict=True)
    }
    others = [line for line in lines if line.label is not None and not _same(line.label, given[line.number])]
    refuse(
        name,
        f"with another label than the dataset has in column {column!r}",
        others,
        f"Give the dataset that the list was made of, as it was then. {LABEL_COLUMN} is not to be edited: a new "
        f"label goes into {ACTION_COLUMN}.",
        lambda line: (
            f"{line} says {line.label!r} for {given[line.number]!r}{accents(line.label, [given[line.number]])}"
        ),
    )


def _same(one: str, other: str) -> bool:
    """Whether two class names are one."""
    return one == other or folded(one) == folded(other)


def accents(name: str | None, others: Iterable[str]) -> str:
    """What to add to two names that look alike, and differ in how Unicode writes their accents; empty of others."""
    looks = unicodedata.normalize("NFC", folded(name or ""))
    is_alike = any(name != other and unicodedata.normalize("NFC", folded(other)) == looks for other in others)
    return ", which looks the same but writes its accents with other characters (Unicode NFC, NFD)" if is_alike else ""


def folded(name: str) -> str:
    """A class name as other programs may have written it: in other letters, without spaces around it, 1 as 1.0."""
    name = name.strip().casefold()
    return name[:-2] if name.endswith(".0") and name[:-2].isdigit() else name


def _whole_number(text: str) -> int | None:
    """A row number, which other programs may have written as 17.0; None where it is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number >= 0 and number.is_integer() else None


def _cells(values: Iterable[Any]) -> tuple[str, str | None, str | None, str]:
    row, label, suggestion, action = (None if value is None else str(value) for value in values)
    return (row or "").strip(), label, suggestion, action if action and action.strip() else ""


def _read_file(file: Path) -> tuple[list[str], dict[str, list[Any]]]:
    """The columns of a list's file, and the values of those that are read."""
    try:
        if file.suffix.lower() == ".parquet":
            columns = _once(pyarrow.parquet.read_schema(file).names, file)
            table = pyarrow.parquet.read_table(file, columns=[name for name in _READ if name in columns])
            return columns, table.to_pydict()
        if file.suffix.lower() == ".csv":
            return _read_csv(file)
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
        if not all(isinstance(line, dict) for line in lines):
            raise ValueError("a line is not a JSON object")
        columns = list(dict.fromkeys(name for line in lines for name in line)) or list(_READ)
        return columns, {name: [line.get(name) for line in lines] for name in _READ if name in columns}
    except DatasetError:
        raise
    except (OSError, ValueError, RecursionError, pyarrow.ArrowException) as error:
        fix = "Make the list again, or restore it."
        if file.suffix.lower() == ".csv":
            fix = "Save it as UTF-8 ('CSV UTF-8' in a spreadsheet), with quotes around text that holds line breaks."
        raise DatasetError(f"The list cannot be read: {first_line(error)}", where=file.name, fix=fix) from error


def _once(columns: list[str], file: Path) -> list[str]:
    """Refuses columns that are read and stand there twice."""
    if twice := [name for name in _READ if columns.count(name) > 1]:
        raise DatasetError(
            f"The list has {columns.count(twice[0])} columns called {twice[0]}",
            where=file.name,
            fix="Keep the one that you edited, and delete the other.",
        )
    return columns


def _read_csv(file: Path) -> tuple[list[str], dict[str, list[Any]]]:
    with file.open(encoding="utf-8-sig") as opened:
        head = opened.readline()
    parts = {mark: [name.strip().strip('"') for name in head.split(mark)] for mark in _SEPARATORS}
    mark = next((mark for mark, names in parts.items() if ROW_COLUMN in names), ",")
    # As text: as numbers, a class 3 beside empty cells would become 3.0, and a class NA nothing.
    table = pyarrow.csv.read_csv(
        file,
        read_options=pyarrow.csv.ReadOptions(block_size=min(file.stat().st_size + 1, 2**31 - 1)),
        parse_options=pyarrow.csv.ParseOptions(delimiter=mark, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types={name: pyarrow.string() for name in _READ}),
    )
    return _once(table.column_names, file), {
        name: [value and from_spreadsheet(value) for value in table[name].to_pylist()]
        for name in _READ
        if name in table.column_names
    }
