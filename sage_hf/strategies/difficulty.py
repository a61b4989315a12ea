"""Baselines that judge a row by how hard it is: most keep the hardest, as their papers do, one the easiest."""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError
from .base import Candidates, Ints, register_strategy, take_highest


@register_strategy("loss")
def loss(candidates: Candidates, quotas: Ints, seed: int) -> Ints:
    """Highest loss first; uses no seed."""
    return take_highest(candidates, candidates.losses, quotas)


@register_strategy("small_loss")
def small_loss(candidates: Candidates, quotas: Ints, seed: int) -> Ints:
    """Lowest loss first, the trick against wrong labels (Han et al., arXiv 1804.06872); uses no seed."""
    return take_highest(candidates, -candidates.losses, quotas)


@register_strategy("gradient_norm", needs=["norms"])
def gradient_norm(candidates: Candidates, quotas: Ints, seed: int) -> Ints:
    """Longest gradient first: GraNd (Paul et al., arXiv 2107.07075) of one model; uses no seed."""
    assert candidates.norms is not None
    return take_highest(candidates, candidates.norms, quotas)


@register_strategy("el2n", needs=["el2n"])
def el2n(candidates: Candidates, quotas: Ints, seed: int) -> Ints:
    """Largest error vector first: EL2N (Paul et al., arXiv 2107.07075) of one model; uses no seed.

    Raises:
        ConfigError: The rows have no class, so there is no error vector.
    """
    assert candidates.el2n is not None
    if np.isnan(candidates.el2n).any():
        raise ConfigError(
            "EL2N is the error of a classifier's probabilities, and rows have no class label",
            where="strategy",
            fix='Use "loss" or "gradient_norm".',
        )
    return take_highest(candidates, candidates.el2n, quotas)
