"""What "auto" comes to for the rows at hand: the one place that decides it."""

from __future__ import annotations

import logging
from dataclasses import replace

from ..config import SageConfig
from ..strategies import STRATEGIES

logger = logging.getLogger(__name__)


def resolve(config: SageConfig, *, has_target: bool = False) -> SageConfig:
    """The settings with the strategy that "auto" comes to.

    Towards a target, rows need not stand for all others: they are chosen by agreement. What `target_modules`,
    `projection` and `group_by` come to depends on the model and the columns, and is told in the selection's `stats`.

    Args:
        config: The settings.
        has_target: Whether there is a target dataset.
    """
    if config.strategy != "auto" or not has_target:
        return config
    logger.info('strategy="auto" is "agreement" towards a target.')
    return replace(config, strategy="agreement")


def is_gated(config: SageConfig) -> bool:
    """Whether likely wrong rows go before the strategy chooses."""
    return isinstance(config.gate, float) or (config.gate == "auto" and STRATEGIES[config.strategy].gated)


def needed(config: SageConfig) -> frozenset[str]:
    """What a selection must gather of every row besides scores and losses: some of `strategies.SIGNALS`."""
    needs = STRATEGIES[config.strategy].needs
    return needs | {"embeddings"} if is_gated(config) else needs


def compares_rows(config: SageConfig) -> bool:
    """Whether a choice must see rows side by side: a stream is then chosen from window by window."""
    return is_gated(config) or STRATEGIES[config.strategy].merit is None
