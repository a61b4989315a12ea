"""The row with the longest gradient: one row alone may decide what the sketch holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Share of all squared norm that one row may hold, and rows below which that says nothing.
_MOST_SHARE, _LEAST_ROWS = 0.5, 10


@dataclass(frozen=True)
class LongestRow:
    """The row whose gradient is the longest of those that were sketched; of equally long ones the first.

    Attributes:
        row: Its number.
        norm: Its length, as it was sketched.
        others: Root mean square of the other rows' lengths; 0 where there are none.
        rows: Number of rows that were sketched.
    """

    row: int
    norm: float
    others: float
    rows: int

    @property
    def share(self) -> float:
        """What it holds of the sum of all squared norms, in [0, 1]."""
        if not self.norm:
            return 0.0
        return 1.0 / (1.0 + (self.rows - 1) * (self.others / self.norm) ** 2)

    @property
    def warning(self) -> str:
        """What a person is told where it outweighs all others together; else empty."""
        if self.rows < _LEAST_ROWS or self.share <= _MOST_SHARE:
            return ""
        most = f"{self.others:.2g}" if self.others else "1"
        return (
            f"Row {self.row} holds {self.share:.1%} of the squared norm of all {self.rows:,} gradients (its norm is "
            f"{self.norm:.2g}, that of the others {self.others:.2g}): the sketch follows this row, and all scores are "
            f"read in the sketch. Look at the row, or limit what one row can weigh: max_row_norm={most} "
            f"(--max-row-norm {most})."
        )


@dataclass
class NormTally:
    """Finds the longest of rows that come part by part.

    Attributes:
        row: Number of the longest so far; -1 of none.
        norm: Its length.
        squares: Sum of the squared lengths of the others.
        count: Number of rows that have one.
    """

    row: int = -1
    norm: float = 0.0
    squares: float = 0.0
    count: int = 0

    def add(self, norms: npt.NDArray[np.floating[Any]], first: int = 0) -> None:
        """The next rows.

        Args:
            norms: [M], lengths as they were sketched; NaN and 0 of rows that were not.
            first: Number of the first of them.
        """
        lengths = np.nan_to_num(norms.astype(np.float64), nan=0.0)
        if not lengths.any():
            return
        place = int(lengths.argmax())
        squares = float((lengths[:place] ** 2).sum() + (lengths[place + 1 :] ** 2).sum())
        shorter, longest = sorted((float(lengths[place]), self.norm))
        if lengths[place] > self.norm:
            self.row, self.norm = first + place, longest
        self.squares += squares + shorter**2
        self.count += int(np.count_nonzero(lengths))

    def finish(self) -> LongestRow | None:
        """The longest row; None of no rows."""
        if self.row < 0:
            return None
        others = math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0
        # Six digits: the last ones are those of the parts that the rows came in.
        return LongestRow(self.row, self.norm, float(f"{others:.6g}"), self.count)
