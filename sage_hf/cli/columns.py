"""Columns that the shell is told of: other names for them, and rows that lack a value which a model would read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from datasets import Dataset, IterableDataset, Value

from ..data.classes import is_text
from ..data.encoding import INPUT_COLUMNS, LABEL_COLUMNS, TEXT_COLUMNS, TEXT_PAIR
from ..data.encoding.dialogues import TURN_COLUMNS
from ..data.encoding.images import IMAGE_COLUMNS
from ..data.status import ROW_COLUMN
from ..data.stream import first_row
from ..errors import ConfigError, DatasetError
from .wording import name_columns

if TYPE_CHECKING:
    from .options import Sources

# What a column of labels is called, for a Trainer to find it.
LABEL = "label"
# Rows that an error names.
_NAMED = 5


def arranged(
    rows: Dataset | IterableDataset, inputs: Sources, text_columns: Sequence[str] | None, allow_missing: bool
) -> tuple[Dataset | IterableDataset, str | None]:
    """The rows with the columns that the user named, and what a person is told of rows that were left out.

    Args:
        rows: As they were loaded.
        inputs: The user's options.
        text_columns: As of `SageConfig`.
        allow_missing: Whether rows that lack a value may stay.

    Raises:
        ConfigError: The options contradict each other.
        DatasetError: A column is not there, or values are missing.
    """
    names = rows.column_names or list(first_row(rows))
    mapping = parse_mapping(inputs.column_mapping, inputs.label_column)
    rows = rename_columns(rows, mapping, names, inputs.dataset)
    name_columns(mapping)
    check_text_columns(rows.column_names or [mapping.get(name, name) for name in names], text_columns, inputs)
    if isinstance(rows, Dataset):
        rows = with_whole_labels(rows)
        if allow_missing and not inputs.drop_missing:
            return rows, None
        return without_missing(rows, text_columns, drop=inputs.drop_missing, path=inputs.dataset)
    if inputs.drop_missing:
        raise ConfigError(
            "Rows of a stream cannot be left out", where="--drop-missing", fix="Read without --streaming."
        )
    return rows, None


def check_text_columns(names: Sequence[str], text_columns: Sequence[str] | None, inputs: Sources) -> None:
    """Refuses text columns that are not there, before a model is loaded.

    Raises:
        DatasetError: Names the first, and all that are there.
    """
    if missing := [name for name in text_columns or () if name not in names]:
        raise DatasetError(
            f"There is no column {missing[0]!r} in {inputs.dataset}",
            where="text_columns",
            fix=f"{_found(names, inputs.dataset)} Name one or two of them.",
        )


def parse_mapping(text: str | None, label_column: str | None) -> dict[str, str]:
    """{old: new} of `old=new,other=name`, with the column of the labels.

    Raises:
        ConfigError: The text is no such list, or two columns would have one name.
    """
    mapping = {}
    for part in text.split(",") if text else []:
        old, _, new = (word.strip() for word in part.partition("="))
        if not old or not new or old in mapping:
            raise ConfigError(
                f"The mapping is {text!r}",
                where="--column-mapping",
                fix="Write old=new; separate several with commas.",
            )
        mapping[old] = new
    if label_column is not None and label_column != LABEL:
        if mapping.get(label_column, LABEL) != LABEL:
            raise ConfigError(
                f"Column {label_column!r} holds the labels, but the mapping renames it to {mapping[label_column]!r}",
                where="--label-column, --column-mapping",
                fix=f"Leave it out of the mapping: --label-column renames it to {LABEL}.",
            )
        mapping[label_column] = LABEL
    if twice := sorted({new for new in mapping.values() if list(mapping.values()).count(new) > 1}):
        raise ConfigError(
            f"Two columns would be called {twice[0]!r}", where="--column-mapping", fix="Give them different names."
        )
    return mapping


def rename_columns(
    rows: Dataset | IterableDataset, mapping: Mapping[str, str], names: Sequence[str], path: str
) -> Dataset | IterableDataset:
    """The rows with other names for some columns.

    Args:
        rows: The rows.
        mapping: {old: new}.
        names: All columns.
        path: Where the rows are from.

    Raises:
        DatasetError: There is no such column, or the new name is another column's.
    """
    if missing := [old for old in mapping if old not in names]:
        raise DatasetError(
            f"There is no column {missing[0]!r}", where=path, fix=f"{_found(names, path)} Name one of them."
        )
    if taken := [new for old, new in mapping.items() if new != old and new in names and new not in mapping]:
        raise DatasetError(
            f"The dataset already has a column {taken[0]!r}",
            where=path,
            fix=f"Give it another name, too: --column-mapping {taken[0]}=old_{taken[0]}.",
        )
    changed = {old: new for old, new in mapping.items() if old != new}
    return rows.rename_columns(changed) if changed else rows


def _found(names: Sequence[str], path: str) -> str:
    """Which columns were found; of a table that has one, what parts its columns."""
    text = f"The columns are {', '.join(names)}."
    if len(names) == 1 and Path(path).suffix.lower() in (".csv", ".tsv"):
        mark = "tabs" if Path(path).suffix.lower() == ".tsv" else "commas"
        text += f" It was read as a table with {mark} between its columns."
    return text


def with_whole_labels(rows: Dataset, column: str | None = None) -> Dataset:
    """The rows with whole numbers for labels where they were written so.

    Readers of csv make decimals of a column of whole numbers in which a value is missing.

    Args:
        rows: The rows.
        column: Of the labels; by default the one that is called so.
    """
    name = column or next((name for name in LABEL_COLUMNS if name in rows.column_names), None)
    if name not in rows.features or getattr(rows.features[name], "dtype", None) not in ("float32", "float64"):
        return rows
    values = rows.select_columns(name).with_format("arrow")[:][name]
    known = values.drop_null().to_numpy()
    if not values.null_count or not len(known) or not (np.isfinite(known) & (known == np.floor(known))).all():
        return rows
    return rows.cast_column(name, Value("int64"))


def missing_values(rows: Dataset, text_columns: Sequence[str] | None) -> dict[str, npt.NDArray[np.int64]]:
    """Row numbers without a value, of every column that a model would read and that has such rows."""
    found = {}
    for name in _read(rows, text_columns):
        gaps = np.flatnonzero(rows.select_columns(name).with_format("arrow")[:][name].is_null().to_numpy())
        if len(gaps):
            found[name] = gaps
    return found


def without_missing(
    rows: Dataset, text_columns: Sequence[str] | None, *, drop: bool, path: str
) -> tuple[Dataset, str | None]:
    """The rows that have all values which a model would read, and what a person is told of the others.

    Args:
        rows: The rows.
        text_columns: As of `SageConfig`.
        drop: Whether the others may be left out. If not, labels may be missing: a language model needs none.
        path: Where the rows are from.

    Raises:
        DatasetError: Values are missing, and the rows may not be left out; or no row is left.
    """
    missing = missing_values(rows, text_columns)
    # A language model needs no labels: where they alone are missing, that is told once the task is known.
    if not missing or not (drop or missing.keys() - set(LABEL_COLUMNS)):
        return rows, None
    gaps = np.unique(np.concatenate(list(missing.values())))
    counted = ", ".join(f"{len(each):,} in column {name!r}" for name, each in missing.items())
    named = _first(gaps)
    if not drop:
        raise DatasetError(
            f"{len(gaps):,} of {len(rows):,} rows lack a value: {counted}; {named}",
            where=path,
            fix="Fill them in, or add --drop-missing to go on without these rows.",
        )
    kept = np.setdiff1d(np.arange(len(rows)), gaps)
    if not len(kept):
        raise DatasetError(f"All {len(rows):,} rows lack a value: {counted}", where=path, fix="Fill them in.")
    if ROW_COLUMN not in rows.column_names:  # so that those that are kept can be found again
        rows = rows.add_column(ROW_COLUMN, np.arange(len(rows)))
    return rows.select(kept), f"{len(gaps):,} of {len(rows):,} rows lack a value and are left out: {counted}; {named}."


def check_labels(rows: Dataset | IterableDataset | None, task: str, path: str) -> None:
    """Refuses rows without a label, before a run that needs one of each.

    Args:
        rows: The rows; those of a stream are looked at as they come.
        task: The model's, a language model's needs none.
        path: Where the rows are from.

    Raises:
        DatasetError: Counts them, and names the first.
    """
    label = next((name for name in LABEL_COLUMNS if isinstance(rows, Dataset) and name in rows.column_names), None)
    if label is None or not isinstance(rows, Dataset) or task == "causal-lm":
        return
    gaps = np.flatnonzero(rows.select_columns(label).with_format("arrow")[:][label].is_null().to_numpy())
    if len(gaps):
        raise DatasetError(
            f"{len(gaps):,} of {len(rows):,} rows have no label: {_first(gaps)}",
            where=f"{path}, column {label!r}",
            fix="Fill them in, or add --drop-missing to go on without these rows.",
        )


def _first(gaps: npt.NDArray[np.int64]) -> str:
    return f"rows {', '.join(map(str, gaps[:_NAMED]))}{' and more' if len(gaps) > _NAMED else ''}"


def _read(rows: Dataset, text_columns: Sequence[str] | None) -> list[str]:
    """The columns that a model would read, as far as their names tell."""
    names = rows.column_names
    label = [name for name in LABEL_COLUMNS if name in names][:1]
    if text_columns is not None:
        return [*label, *(name for name in text_columns if name in names)]
    inputs = [name for name in names if name in INPUT_COLUMNS or name in IMAGE_COLUMNS]
    turns = [name for name in names if name in (*TURN_COLUMNS, "prompt", "completion")]
    texts = [name for name in TEXT_COLUMNS if name in names][:1]
    texts += [TEXT_PAIR] if TEXT_PAIR in names else []
    if not (inputs or turns or texts):
        texts = [name for name in names if name not in label and is_text(rows.features[name])]
    return [*label, *(inputs or turns or texts)]
