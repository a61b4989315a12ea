"""What the ways of encoding share: a row, its label columns, and errors that name rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from ..errors import SageError

Row = dict[str, Any]
Collator = Callable[[list[Row]], Mapping[str, Any]]
# Rows and the number of the first of them in the dataset -> their features.
Encoding = Callable[[list[Row], int], list[Row]]

LABEL_COLUMNS = ("label", "labels", "label_ids")
# Rows that an error names.
_NAMED = 5

Value = TypeVar("Value")
Made = TypeVar("Made")


class Unfit(Exception):
    """One value cannot be used; `each` turns the first into an error that names all of its kind.

    Args:
        what: What is wrong with it, without the final full stop.
        fix: What to do.
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


def each(
    make: Callable[[Value], Made], values: Iterable[Value], kind: type[SageError], column: str, first: int
) -> list[Made]:
    """`make` of every value.

    Args:
        make: Raises `Unfit` for a value that cannot be used.
        values: One a row.
        kind: The error to raise.
        column: Where the values come from.
        first: Number of the first row in the dataset.

    Raises:
        SageError: Of the kind; some values cannot be used. It counts them, and names the first five rows.
    """
    made: list[Made] = []
    unfit: dict[int, Unfit] = {}
    for number, value in enumerate(values, first):
        try:
            made.append(make(value))
        except Unfit as error:
            unfit[number] = error
    if unfit:
        why = next(iter(unfit.values()))
        raise kind(why.what, where=f"column {column!r}, {named(list(unfit))}", fix=why.fix)
    return made


def named(rows: Sequence[int]) -> str:
    """Rows in words: `row 7`, or `rows 1, 2, 3, 4, 5 and 95 more`."""
    shown = ", ".join(str(row) for row in rows[:_NAMED])
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}"


def shown(value: Any, most: int = 60) -> str:
    """A value's text for an error, cut where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def is_list(value: Any) -> bool:
    """Whether a value is a list of some kind: of Python, NumPy or torch."""
    return isinstance(value, (list, tuple)) or (isinstance(value, (np.ndarray, Tensor)) and value.ndim > 0)


def plain(value: Any) -> Any:
    """A NumPy or torch number of no axes as Python's."""
    return value.item() if isinstance(value, (np.generic, np.ndarray, Tensor)) and value.ndim == 0 else value


@contextmanager
def as_unfit(fix: str) -> Iterator[None]:
    """Whatever another library raises for a value, as `Unfit`."""
    try:
        yield
    except Unfit:
        raise
    except Exception as error:
        raise Unfit(f"{type(error).__name__}: {error}", fix) from error
