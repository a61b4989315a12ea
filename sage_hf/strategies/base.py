"""What every strategy is given, and the one step that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Candidates:
    """The rows that may be chosen: those not set aside.

    Attributes:
        rows: [M] int64, row numbers of the source dataset, ascending.
        scores: [M] float32 agreement in [-1, 1].
        losses: [M] float32, each row's own loss.
        groups: [M] int64 in [0, G), the groups that the quotas are for.
    """

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    losses: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int64]


# Judges every row by itself: (scores [M] float32, generator) -> [M], higher is better, in [-1, 1]. Called for parts of
# the rows in their order, with one generator, it must give what it gives for all of them at once.
Merit = Callable[[npt.NDArray[np.float32], np.random.Generator], npt.NDArray[np.floating]]

Strategy = Callable[[Candidates, npt.NDArray[np.int64], int], npt.NDArray[np.int64]]


def take_highest(
    candidates: Candidates, merit: npt.NDArray[np.floating], quotas: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Of every group the `quotas[g]` rows of highest merit, ascending; equal merit goes to the lower row."""
    # Group first, then merit downwards, then row number: the first quota entries of every run are the chosen ones.
    # Rows ascend already, and the sort is stable.
    order = np.lexsort((-merit, candidates.groups))
    groups = candidates.groups[order]
    first = np.searchsorted(groups, np.arange(len(quotas)))
    rank = np.arange(len(order)) - first[groups]
    return np.sort(candidates.rows[order[rank < quotas[groups]]])
