"""What "auto" comes to for the rows at hand: the one place that decides it."""

from __future__ import annotations

import logging
from dataclasses import replace

from ..config import SageConfig
from ..strategies import STRATEGIES
from ..utils.given import given_config

logger = logging.getLogger(__name__)


def resolve(config: SageConfig, *, has_target: bool = False) -> SageConfig:
    """The settings with the strategy that "auto" comes to.

    Towards a target, rows need not stand for all others: they are chosen by agreement. What `target_modules`,
    `projection` and `group_by` come to depends on the model and the columns, and is told in the selection's `stats`.

    Args:
        config: The settings.
        has_target: Whether there is a target dataset.

    Raises:
        ConfigError: The settings are no `SageConfig`.
    """
    config = as_measured(given_config(config), has_target=has_target)
    if config.strategy != "auto" or not has_target:
        return config
    logger.info('strategy="auto" means "agreement" when there is a target.')
    return replace(config, strategy="agreement")


def as_measured(config: SageConfig, *, has_target: bool) -> SageConfig:
    """The settings with the spectrum's power that scores are taken with: towards a target 0, where none is given.

    What rows and a target have in common is seldom what is longest in all gradients, and with power 0 scores are
    cosines within the sketch, as LESS's are in a random projection.
    """
    if has_target and config.spectrum_power is None:
        return replace(config, spectrum_power=0.0)
    return config


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
