"""The baseline that every selection has to beat: rows by lot, with the same quotas."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .base import Candidates, take_highest


def random(candidates: Candidates, quotas: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Uniformly random rows within each group's quota; the same seed gives the same rows."""
    lots = np.random.default_rng(seed).random(len(candidates.rows))
    return take_highest(candidates, lots, quotas)
