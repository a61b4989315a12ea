"""Rows as they are read of a dataset, and what cannot be read of it by its column and row."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from ..errors import DatasetError, SageError
from .encoding import Row
from .encoding.rows import named


def read_rows(dataset: Dataset, rows: range) -> list[Row]:
    """Consecutive rows of a dataset.

    Raises:
        DatasetError: Some cannot be read, or the user's transform fails for them.
    """
    try:
        return as_rows(dataset[rows.start : rows.stop])
    except SageError:
        raise
    except Exception as error:
        unread: dict[int, Exception] = {}
        for row in rows:
            try:
                dataset[row : row + 1]
            except Exception as reason:
                unread[row] = reason
        why = next(iter(unread.values()), error)
        column = _unread_column(dataset, next(iter(unread), rows.start))
        raise DatasetError(
            f"The dataset cannot be read: {type(why).__name__}: {why}",
            where=f"{f'column {column!r}' if column else 'dataset'}, {named(list(unread or rows), rows)}",
            fix="Fix or filter these rows, or fix the transform that makes them.",
        ) from error


def _unread_column(dataset: Dataset, row: int) -> str | None:
    """The column of a row that cannot be read; None where it is a transform of the user's that fails."""
    if dataset.format["type"] == "custom":
        return None
    for name in dataset.column_names:
        try:
            dataset.select_columns(name)[row : row + 1]
        except Exception:  # readers of files raise anything
            return name
    return None


def as_rows(columns: dict[str, Any]) -> list[Row]:
    """[{column: value}] from {column: [values]}, the form in which `datasets` hands out batches."""
    rows = zip(*columns.values(), strict=True)
    return [{name: as_scalar(value) for name, value in zip(columns, row, strict=True)} for row in rows]


def as_scalar(value: Any) -> Any:
    """A tensor or NumPy number of no axes as Python's."""
    return value.item() if getattr(value, "shape", None) == () else value
