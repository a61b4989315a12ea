"""From scores to rows: the budget, a quota for every group, and the strategy."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from .budget import allocate_quotas
from .config import SageConfig
from .groups import Groups
from .strategies import STRATEGIES, Candidates

logger = logging.getLogger(__name__)


def choose_rows(
    config: SageConfig,
    groups: Groups,
    usable: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.float32],
    losses: npt.NDArray[np.float32],
    budget: int,
) -> npt.NDArray[np.int64]:
    """The kept rows, [K] int64, ascending.

    Args:
        config: The strategy, the balance and the seed.
        groups: Of the rows.
        usable: [N], whether a row has a score.
        scores: [N] agreement.
        losses: [N].
        budget: How many to keep; where fewer have a score, all of these are kept, and it is said.
    """
    rows = np.flatnonzero(usable).astype(np.int64)
    balanced = config.balance != "none"
    codes = (groups.codes[rows] if balanced else np.zeros(len(rows))).astype(np.int64)
    quotas = share_out(config, np.bincount(codes, minlength=groups.count if balanced else 1), budget)
    return STRATEGIES[config.strategy](Candidates(rows, scores[rows], losses[rows], codes), quotas, config.seed)


def share_out(config: SageConfig, sizes: npt.NDArray[np.int64], budget: int) -> npt.NDArray[np.int64]:
    """[G] quotas that sum to the budget, or to all rows that have a score, which is said then.

    Args:
        config: The balance.
        sizes: [G], the rows of each group that have a score; one group where the balance is "none".
        budget: How many to keep.
    """
    scored = int(sizes.sum())
    if budget > scored:
        logger.warning(
            "%d rows were asked for and %d could be scored: all of these are kept; see Selection.set_aside.",
            budget,
            scored,
        )
    return allocate_quotas(sizes, min(budget, scored), "proportional" if config.balance == "none" else config.balance)
