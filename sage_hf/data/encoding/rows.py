"""What the ways of encoding share: a row, its label columns, and errors that name rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from ...errors import SageError

Row = dict[str, Any]
Collator = Callable[[list[Row]], Mapping[str, Any]]
# Rows and the number of the first of them in the dataset -> their features.
Encoding = Callable[[list[Row], int], list[Row]]

# The first of them that a dataset has is the one that the loss sees.
LABEL_COLUMNS = ("labels", "label", "label_ids")
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


class Offence(Exception):
    """Rows that cannot be used: the cause of the error that names them, for whoever can look for more of them.

    Args:
        kind: The error.
        why: What is wrong with the first of them.
        column: Where.
        rows: Their numbers in the dataset.
    """

    def __init__(self, kind: type[SageError], why: Unfit, column: str, rows: list[int]) -> None:
        super().__init__(why.what)
        self.kind, self.why, self.column, self.rows = kind, why, column, rows

    def error(self, among: range | None = None) -> SageError:
        """The error, which counts the rows and names the first five; `among` are those that were looked at."""
        return self.kind(self.why.what, where=f"column {self.column!r}, {named(self.rows, among)}", fix=self.why.fix)

    def without_rows(self) -> SageError:
        """The same where nobody knows the numbers: `rows` are places in a batch then."""
        return self.kind(self.why.what, where=f"column {self.column!r}", fix=self.why.fix)


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
        SageError: Of the kind, from an `Offence`; some values cannot be used.
    """
    made: list[Made] = []
    unfit: dict[int, Unfit] = {}
    number = first
    for number, value in enumerate(values, first):
        try:
            made.append(make(value))
        except Unfit as error:
            unfit[number] = error
    if unfit:
        offence = Offence(kind, next(iter(unfit.values())), column, list(unfit))
        raise offence.error(range(first, number + 1)) from offence
    return made


def named(rows: Sequence[int], among: range | None = None) -> str:
    """Rows in words: `row 7`, `2 rows: 7, 9`, or `100 rows among 0 to 511, first 1, 2, 3, 4, 5`."""
    if len(rows) == 1:
        return f"row {rows[0]}"
    of = f" among {among.start} to {among.stop - 1}" if among is not None and len(among) > len(rows) else ""
    cut = ": " if len(rows) <= _NAMED else ", first "
    return f"{len(rows)} rows{of}{cut}{', '.join(str(row) for row in rows[:_NAMED])}"


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
