"""The list of label issues as a person reads and edits it: names of classes, text and paths, never bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Features, LargeList, List, Value

from ..data.classes import is_text
from ..data.status import ROW_COLUMN
from ..errors import DatasetError
from ..hub.tables import is_media

DOUBT_COLUMN, LABEL_COLUMN = "sage_label_doubt", "sage_label"
SUGGESTION_COLUMN, ACTION_COLUMN = "sage_suggested_label", "sage_action"
# What comes before the columns of the dataset.
KINDS = {
    ROW_COLUMN: Value("int64"),
    DOUBT_COLUMN: Value("float64"),
    LABEL_COLUMN: Value("string"),
    SUGGESTION_COLUMN: Value("string"),
    ACTION_COLUMN: Value("string"),
}
# How a formula begins, and the same behind apostrophes.
_FORMULA, _GUARDED = re.compile(r"'*[=+\-@\t\r]"), re.compile(r"'+[=+\-@\t\r]")
# Rows of images whose bytes are in memory at a time.
_BLOCK = 256


def for_spreadsheet(text: str) -> str:
    """Text that a spreadsheet takes for no formula: with an apostrophe before what begins as one.

    A list is opened in spreadsheets by people, and its texts may be anybody's.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def from_spreadsheet(text: str) -> str:
    """The same undone."""
    return text[1:] if _GUARDED.match(text) else text


def own_numbers(rows: Dataset) -> npt.NDArray[np.int64] | None:
    """[N] what a dataset's own column `sage_row` holds; None where it has no such column.

    Raises:
        DatasetError: It holds anything but whole numbers: nothing tells then which line of a list is of which row.
    """
    if ROW_COLUMN not in rows.column_names:
        return None
    values = rows.with_format(None)[ROW_COLUMN][:]
    numbers = [_whole(value) for value in values]
    known = [number for number in numbers if number is not None]
    if len(known) < len(values):
        unfit = next(row for row, number in enumerate(numbers) if number is None)
        what = "a null" if values[unfit] is None else repr(values[unfit])[:60]
        count = len(values) - len(known)
        raise DatasetError(
            f"The dataset's own {ROW_COLUMN} holds no row number in {count:,} row{'s' * (count > 1)}, but {what}",
            where=f"column {ROW_COLUMN!r}, row {unfit}",
            fix=f"Rename or remove the column: {ROW_COLUMN} is where an earlier selection keeps rows' numbers.",
        )
    return np.array(known, dtype=np.int64)


def _whole(value: Any) -> int | None:
    """A number as int64 can hold it, also as text; None where it is none."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    is_same = isinstance(value, str) or (not isinstance(value, bool) and value == number)
    return number if is_same and -(2**63) <= number < 2**63 else None


class IssueList(NamedTuple):
    """A list of label issues.

    Attributes:
        rows: One a label issue.
        left_out: By column of the dataset, why it is not in the list, or of how many rows.
    """

    rows: Dataset
    left_out: dict[str, str]


def issue_list(rows: Dataset, told: Mapping[str, Any]) -> IssueList:
    """The list of some rows.

    Args:
        rows: The rows that have label issues, S of them.
        told: What is told of them, [S] values for each column of `KINDS`.
    """
    columns: dict[str, Any] = {name: pa.array(told[name], kind.pa_type) for name, kind in KINDS.items()}
    features, left_out = dict(KINDS), {}
    rows, all_features = rows.with_format("arrow"), rows.features
    plain = [
        name for name, each in all_features.items() if name not in KINDS and _readable(each) and not is_media(each)
    ]
    # At once, and in few chunks: of chosen rows there is one a row, and a table may have hundreds of columns.
    table = rows.select_columns(plain)[:].combine_chunks() if plain else {}
    for name, feature in all_features.items():
        if name in KINDS:
            continue
        kind = _readable(feature)
        if kind is None:
            left_out[name] = "numbers" if _holds_numbers(feature) else "bytes without a path"
            continue
        if is_media(feature):
            values = _paths(rows, name)
            if gaps := values.null_count:
                left_out[name] = "no path" if gaps == len(rows) else f"no path in {gaps:,} of {len(rows):,} rows"
            if len(rows) and gaps == len(rows):
                continue
        else:
            values = table[name]
            values = values if values.num_chunks else values.combine_chunks()
            if kind != feature:
                stored = Features({name: kind}).arrow_schema.field(name).type
                values = pa.array([_shown(value, kind) for value in values.to_pylist()], stored)
        columns[name], features[name] = values, kind
    return IssueList(Dataset.from_dict(columns, features=Features(features)), left_out)


def content_columns(rows: Dataset, label: str) -> list[str]:
    """The columns of a list that tell a person what a row is: text and paths, without the label's."""
    return [name for name, feature in rows.features.items() if is_text(feature) and name not in (*KINDS, label)]


def guarded(rows: Dataset) -> Dataset:
    """The list with its texts, and the names of its columns, as `for_spreadsheet` has them."""
    for name, feature in rows.features.items():
        if is_text(feature):
            values = [None if value is None else for_spreadsheet(value) for value in rows[name]]
            order = rows.column_names
            rows = rows.remove_columns(name).add_column(name, values, feature=feature).select_columns(order)
    names = {name: for_spreadsheet(name) for name in rows.column_names}
    return rows.rename_columns({old: new for old, new in names.items() if old != new and new not in names})


def _readable(feature: Any) -> Any:
    """The feature of a column as a person can read it; None where it is of bytes, or of lists of numbers.

    Text, numbers, dates and classes stay; an image or a sound becomes its path, also in lists and dictionaries.
    """
    if is_media(feature):
        return Value("string")
    if isinstance(feature, Value):
        return None if "binary" in feature.dtype else feature
    if isinstance(feature, ClassLabel):
        return feature
    if isinstance(feature, dict):
        return {name: kind for name, part in feature.items() if (kind := _readable(part)) is not None} or None
    if isinstance(feature, (List, LargeList)):
        kind = _readable(feature.feature)
        return List(kind) if kind is not None and _holds_text(kind) else None
    return None


def _holds_text(kind: Any) -> bool:
    if isinstance(kind, dict):
        return any(map(_holds_text, kind.values()))
    return _holds_text(kind.feature) if isinstance(kind, List) else is_text(kind)


def _holds_numbers(feature: Any) -> bool:
    """Whether a column that cannot be read is of numbers, and not of bytes."""
    if isinstance(feature, dict):
        return any(map(_holds_numbers, feature.values()))
    inner = getattr(feature, "feature", feature)
    return _holds_numbers(inner) if inner is not feature else "binary" not in str(getattr(feature, "dtype", ""))


def _shown(value: Any, kind: Any) -> Any:
    """A stored value of a nested column as its readable kind."""
    if value is None:
        return None
    if isinstance(kind, dict):
        return {name: _shown(value[name], part) for name, part in kind.items()}
    if isinstance(kind, List):
        return [_shown(each, kind.feature) for each in value]
    return value["path"] if isinstance(value, dict) else value


def _paths(rows: Dataset, name: str) -> pa.Array:
    """Where the images or sounds of a column are; null where only their bytes are known."""
    column = rows.select_columns(name)
    parts = [pc.struct_field(block[name].combine_chunks(), "path") for block in column.iter(_BLOCK)]
    return pa.concat_arrays([pa.array([], pa.string()), *(part.cast(pa.string()) for part in parts)])
