"""Rows: from a model and a batch to per-example gradients [B, D]."""

from .collector import GradientCollector
from .loss import per_example_loss
from .rules import register_rule

__all__ = ["GradientCollector", "per_example_loss", "register_rule"]
