"""The baseline that every selection has to beat: rows by lot, with the same quotas."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .base import Candidates, Floats, Ints, register_strategy, take_highest


def by_lot(scores: Floats, generator: np.random.Generator) -> npt.NDArray[np.floating]:
    """A lot in [0, 1) for each score, [M]."""
    return generator.random(len(scores))


@register_strategy("random", merit=by_lot)
def random(candidates: Candidates, quotas: Ints, seed: int) -> Ints:
    """Uniformly random rows within each group's quota; the same seed gives the same rows."""
    return take_highest(candidates, by_lot(candidates.scores, np.random.default_rng(seed)), quotas)
