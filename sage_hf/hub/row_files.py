"""Rows in one file that other programs read: .csv, .json, .jsonl or .parquet.

In text, class labels are their names, and an image or a sound is the path of its file, never its bytes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Features, IterableDataset, Value

from ..errors import OutputError
from .files import check_table_output
from .tables import holds_bytes, is_media, write_table

_BINARY = ".parquet"


def check_table_rows(path: Path, rows: Dataset | IterableDataset) -> None:
    """Refuses rows that a file cannot hold, by their columns and the first row; also to be called before a long run.

    Raises:
        OutputError: A csv would have lists or dicts in its cells; or images in a text are of no file.
    """
    if path.suffix == ".csv" and rows.features is not None:
        check_cells(path, rows.features)
    if path.suffix != _BINARY and rows.features is not None:
        check_no_bytes(path, rows.features)
    if path.suffix != _BINARY and isinstance(rows, Dataset):
        as_text(rows.with_format(None).select(range(min(1, len(rows)))), path)


def check_cells(path: Path, features: Features) -> None:
    """Refuses lists and dicts in a table.

    Raises:
        OutputError: Names the column.
    """
    nested = [name for name, feature in features.items() if not isinstance(feature, Value | ClassLabel)]
    nested = [name for name in nested if not _has_path(features[name])]
    if nested:
        raise OutputError(
            f"A csv cannot hold the lists or dicts of column {nested[0]!r}",
            where=str(path),
            fix="End the name in .jsonl or .parquet.",
        )


def check_no_bytes(path: Path, features: Features) -> None:
    """Refuses bytes in a file of text, but for files, of which the paths are written.

    Raises:
        OutputError: Names the column.
    """
    for name, feature in features.items():
        if holds_bytes(feature) and not _has_path(feature):
            raise OutputError(
                f"A {path.suffix} file cannot hold the bytes of column {name!r}",
                where=str(path),
                fix="Name a folder, or a file that ends in .parquet.",
            )


def write_rows(rows: Dataset, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Writes rows to a file, whole or not at all.

    Args:
        rows: The rows.
        path: Ends in .csv, .json or .jsonl (a JSON object a line), or .parquet.
        overwrite: Whether a file that is there may be replaced.

    Raises:
        OutputError: The ending is another, the file is there, or it cannot be written or hold the rows.
    """
    place = Path(path)
    check_table_output(place, overwrite)
    rows = rows.with_format(None)
    if place.suffix != _BINARY:
        check_table_rows(place, rows)
        rows = as_text(rows, place)
    write_table(rows, place)
    return place


def as_text(rows: Dataset, path: Path) -> Dataset:
    """The rows with names in the place of class numbers, and paths in the place of images and sounds.

    Raises:
        OutputError: An image or a sound is of no file, as of a Hub dataset that holds its bytes.
    """
    for name, feature in rows.features.items():
        if isinstance(feature, ClassLabel):
            values = [None if value is None or value < 0 else feature.int2str(value) for value in rows[name]]
            rows = _replaced(rows, name, values)
    return with_paths(rows, path)


def with_paths(rows: Dataset, path: Path) -> Dataset:
    """The rows with paths in the place of images and sounds.

    Raises:
        OutputError: An image or a sound is of no file, as of a Hub dataset that holds its bytes.
    """
    for name, feature in rows.features.items():
        if _has_path(feature):
            values = rows.cast_column(name, type(feature)(decode=False))[name]
            values = [value and value["path"] for value in values]
            if any(value is not None and not os.path.isabs(value) for value in values) or not any(values):
                raise OutputError(
                    f"Column {name!r} holds images or sounds that are not stored as separate files",
                    where=str(path),
                    fix="Name a folder, or a file that ends in .parquet.",
                )
            rows = _replaced(rows, name, values)
    return rows


def _replaced(rows: Dataset, name: str, values: list[str | None]) -> Dataset:
    order, spare = rows.column_names, f"{name} as text"
    # Of a table without columns nobody knows the rows; and no column can be renamed to an empty name.
    rows = rows.add_column(spare, [False] * len(rows)).remove_columns(name)
    rows = rows.add_column(name, values, feature=Value("string")).remove_columns(spare)
    return rows.select_columns(order)


def _has_path(feature: Any) -> bool:
    """Whether a column holds what is decoded of files: images, sounds, videos."""
    return hasattr(feature, "decode") and is_media(feature)
