"""What "auto" comes to for the rows at hand: the one place that decides it."""

from __future__ import annotations

import logging
from dataclasses import replace

from ..config import SageConfig
from ..strategies import STRATEGIES

logger = logging.getLogger(__name__)


def resolve(config: SageConfig, *, is_stream: bool = False, has_target: bool = False) -> SageConfig:
    """The settings with the strategy that "auto" comes to.

    A stream does not hold its rows side by side, and towards a target rows need not stand for all others: both are
    chosen by agreement. What `target_modules`, `projection` and `group_by` come to depends on the model and the
    columns, and is told in the selection's `stats`.

    Args:
        config: The settings.
        is_stream: Whether rows come as a stream.
        has_target: Whether there is a target dataset.
    """
    if config.strategy != "auto" or not (is_stream or has_target):
        return config
    reason = "of a stream" if is_stream else "towards a target"
    logger.info('strategy="auto" is "agreement" %s.', reason)
    return replace(config, strategy="agreement")


def is_gated(config: SageConfig) -> bool:
    """Whether likely wrong rows go before the strategy chooses."""
    return isinstance(config.gate, float) or (config.gate == "auto" and STRATEGIES[config.strategy].gated)


def needed(config: SageConfig) -> frozenset[str]:
    """What a selection must gather of every row besides scores and losses: some of `strategies.SIGNALS`."""
    needs = STRATEGIES[config.strategy].needs
    return needs | {"embeddings"} if is_gated(config) else needs
