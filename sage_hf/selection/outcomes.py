"""What became of every row: kept, not chosen, or why it stayed out; and what its label was doubted for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.stats import GateStats
from ..data.status import KEPT, NOT_CHOSEN, SCORED, SET_ASIDE
from ..utils.shown import ShortRepr


@dataclass(frozen=True, repr=False)
class RowVerdicts(ShortRepr):
    """What the gate found of N rows.

    Attributes:
        doubts: [N] float32 in [0, 1], how likely a row is wrong; NaN where it was not judged.
        suggested: [N] int32, the likeliest other class by its number; -1 where none is known.
        outcomes: [N] uint8, of `data.status`: `DOUBTED`, `NEAR_DUPLICATE` or `HARD` where a row was to stay out, else
            `NOT_CHOSEN`.
    """

    doubts: npt.NDArray[np.float32]
    suggested: npt.NDArray[np.int32]
    outcomes: npt.NDArray[np.uint8]


@dataclass(frozen=True, repr=False)
class Choice(ShortRepr):
    """The rows that are kept, and why the others are not.

    Attributes:
        indices: [K] int64, ascending.
        gate: What the gate did; None where there was none.
        verdicts: What it found of every row; None where there was none.
    """

    indices: npt.NDArray[np.int64]
    gate: GateStats | None = None
    verdicts: RowVerdicts | None = None


def outcomes_of(status: npt.NDArray[np.uint8], choice: Choice) -> npt.NDArray[np.uint8]:
    """[N] what became of every row, by its number in `data.status.OUTCOMES`.

    A doubted row is kept where a group has too few others.

    Args:
        status: [N], whether each row has a score.
        choice: What was chosen.
    """
    if choice.verdicts is None:
        outcomes = np.full(len(status), NOT_CHOSEN, dtype=np.uint8)
    else:
        outcomes = choice.verdicts.outcomes.copy()
    outcomes[status != SCORED] = SET_ASIDE
    outcomes[choice.indices] = KEPT
    return outcomes
