"""Everything that reads all rows."""

from .run import GradientPasses

__all__ = ["GradientPasses"]
