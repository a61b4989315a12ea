"""Rows: from a model and a batch to per-example gradients [B, D]."""

from .collector import GradientCollector
from .layers.rules import register_rule
from .losses.per_example import per_example_loss

__all__ = ["GradientCollector", "per_example_loss", "register_rule"]
