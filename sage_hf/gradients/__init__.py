"""Rows: from a model and a batch to per-example gradients [B, D]."""

from .collector import GradientCollector
from .loss import per_example_loss

__all__ = ["GradientCollector", "per_example_loss"]
