"""From what is known of the rows to those that are kept: the budget, a quota for every group, gate and strategy."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from .budget import allocate_quotas, allocate_shares
from .config import SageConfig
from .gate import judge, let_through, set_hard_aside
from .material import Material
from .strategies import STRATEGIES

logger = logging.getLogger(__name__)


def is_gated(config: SageConfig) -> bool:
    """Whether likely wrong rows go before the strategy chooses."""
    return isinstance(config.gate, float) or (config.gate == "auto" and STRATEGIES[config.strategy].gated)


def needed(config: SageConfig) -> frozenset[str]:
    """What a selection must gather of every row besides scores and losses: some of `strategies.SIGNALS`."""
    needs = STRATEGIES[config.strategy].needs
    return needs | {"embeddings"} if is_gated(config) else needs


def choose_rows(config: SageConfig, material: Material, budget: int) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
    """The kept rows, [K] int64, ascending; and what the gate did, where there is one.

    Args:
        config: The strategy, the gate, the balance and the seed.
        material: What is known of the rows.
        budget: How many to keep; where fewer have a score, all of these are kept, and it is said.

    Raises:
        ConfigError: The strategy or the gate needs what the material lacks.
    """
    material.check(config.strategy, needed(config))
    balanced = config.balance != "none"
    candidates = material.candidates(balanced, config.spectrum_power)
    sizes = np.bincount(candidates.groups, minlength=material.groups.count if balanced else 1)
    quotas = share_out(config, sizes, budget, material.shares if balanced else None)
    about: dict[str, Any] = {}
    if is_gated(config):
        verdict = judge(config, material, candidates)
        suspects = int(verdict.suspects.sum())
        about["gate"] = {"method": verdict.method, "suspects": suspects, "judged": len(verdict.doubts)}
        if config.gate == "auto" and verdict.method == "cross-fold":
            verdict = set_hard_aside(candidates, quotas, verdict)
            about["gate"]["hard"] = int(verdict.suspects.sum()) - suspects
        candidates = let_through(candidates, quotas, verdict)
    return STRATEGIES[config.strategy](candidates, quotas, config.seed), about


def share_out(
    config: SageConfig,
    sizes: npt.NDArray[np.int64],
    budget: int,
    shares: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.int64]:
    """[G] quotas that sum to the budget, or to all rows that have a score, which is said then.

    Args:
        config: The balance.
        sizes: [G], the rows of each group that have a score; one group where the balance is "none".
        budget: How many to keep.
        shares: [G] wanted shares of the budget; None leaves it to the balance.
    """
    scored = int(sizes.sum())
    if budget > scored:
        logger.warning(
            "%d rows were asked for and %d could be scored: all of these are kept; see Selection.set_aside.",
            budget,
            scored,
        )
    budget = min(budget, scored)
    if shares is not None:
        return allocate_shares(sizes, shares, budget)
    return allocate_quotas(sizes, budget, "proportional" if config.balance == "none" else config.balance)
