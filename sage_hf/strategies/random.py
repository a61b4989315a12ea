"""The baseline that every selection has to beat: rows by lot, with the same quotas."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .base import Candidates, register_strategy, take_highest


def by_lot(scores: npt.NDArray[np.float32], generator: np.random.Generator) -> npt.NDArray[np.floating]:
    """A lot in [0, 1) for each score, [M]."""
    return generator.random(len(scores))


@register_strategy("random", merit=by_lot)
def random(candidates: Candidates, quotas: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Uniformly random rows within each group's quota; the same seed gives the same rows."""
    return take_highest(candidates, by_lot(candidates.scores, np.random.default_rng(seed)), quotas)
