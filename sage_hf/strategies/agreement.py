"""The paper's rule: keep the rows that agree most with their group's consensus."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .base import Candidates, Floats, Ints, register_strategy, take_highest


def by_agreement(scores: Floats, generator: np.random.Generator) -> npt.NDArray[np.floating]:
    """The score itself, [M]; draws nothing."""
    return scores


@register_strategy("agreement", merit=by_agreement)
def agreement(candidates: Candidates, quotas: Ints, seed: int) -> Ints:
    """Highest agreement first (SAGE, arXiv 2510.02470; with quotas per class, CB-SAGE); uses no seed."""
    return take_highest(candidates, candidates.scores, quotas)
