"""Groups of rows: from a column of values to codes 0 .. G-1 and names."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from ..errors import GroupError
from ..utils.columns import code_type
from ..utils.notices import warn_once
from ..utils.shown import ShortRepr

# How many of the offending rows an error names.
_NAMED_ROWS = 5


@dataclass(frozen=True, repr=False)
class Groups(ShortRepr):
    """Which group every row belongs to.

    Attributes:
        column: The column they come from; None when all rows form one group.
        codes: [N], the group of every row, in the smallest integers.
        names: [G], the column's value of each group, as text; class names where the dataset knows them.
        code_of: The code of every value, for rows that come later.
    """

    column: str | None
    codes: npt.NDArray[np.integer[Any]]
    names: list[str]
    code_of: Mapping[Any, int]

    @property
    def count(self) -> int:
        """G, at least 1."""
        return len(self.names)

    @classmethod
    def single(cls, num_rows: int) -> Groups:
        """All rows in one group."""
        return cls(None, np.zeros(num_rows, dtype=code_type(1)), ["all"], {})

    @classmethod
    def from_values(cls, column: str, values: Collection[Any], class_names: Sequence[str] | None = None) -> Groups:
        """Groups of equal values, ordered by value.

        Args:
            column: The column's name, for messages.
            values: [N] booleans, integers or strings; read three times.
            class_names: Names of the integers 0 .. len - 1, as `datasets.ClassLabel.names` gives them.

        Raises:
            GroupError: A value is null, or no boolean, integer or string.
        """
        check_values(column, values)
        distinct = sorted(set(values), key=lambda value: (isinstance(value, str), value))
        code_of = {value: code for code, value in enumerate(distinct)}
        codes = np.fromiter((code_of[value] for value in values), dtype=code_type(len(distinct)), count=len(values))
        return cls(column, codes, [name_of(value, class_names) for value in distinct], code_of)

    def codes_for(self, values: Sequence[Any]) -> npt.NDArray[np.int32]:
        """[B] codes of rows that were perhaps not there when the groups were made.

        Raises:
            GroupError: A value was never seen.
        """
        unknown = sorted({str(value) for value in values if value not in self.code_of})
        if unknown:
            raise GroupError(
                f"The groups {unknown[:_NAMED_ROWS]} were not in the dataset that the selector was fitted on",
                where=f"column {self.column!r}",
                fix="Fit on a dataset that holds every group.",
            )
        return np.array([self.code_of[value] for value in values], dtype=np.int32)


def say_if_many(logger: logging.Logger, model: nn.Module, column: str | None, groups: int, rows: int) -> None:
    """Warns, once a model, where groups are nearly as many as rows: then no row has others to agree with."""
    if groups > max(2, rows / 2):
        warn_once(
            logger,
            model,
            f"Column {column!r} makes {groups:,} groups of {rows:,} rows, and a row is only compared with its own "
            "group. Group by a column with few values, or by none (group_by=None, --group-by none).",
        )


def check_values(column: str, values: Iterable[Any], first: int = 0) -> None:
    """Refuses values that make no groups; `first` is the number of the first one's row.

    Raises:
        GroupError: A value is null, or no boolean, integer or string.
    """
    nulls = [row for row, value in enumerate(values, first) if value is None]
    if nulls:
        raise GroupError(
            f"The column to group by has {len(nulls)} nulls, first in rows {nulls[:_NAMED_ROWS]}",
            where=f"column {column!r}",
            fix="Fill or filter these rows, group by another column, or pass group_by=None.",
        )
    for row, value in enumerate(values, first):
        if not isinstance(value, (bool, int, str)):
            raise GroupError(
                f"Rows are grouped by booleans, integers or strings, but row {row} holds a {type(value).__name__}",
                where=f"column {column!r}",
                fix="Group by a scalar column, or pass group_by=None.",
            )


def name_of(value: Any, class_names: Sequence[str] | None) -> str:
    """The name of a group: that of its class, where there are classes."""
    if class_names is not None and isinstance(value, int) and 0 <= value < len(class_names):
        return class_names[value]
    return str(value)
