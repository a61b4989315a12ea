"""Does selecting help? Trainings on subsets, over seeds, side by side."""

from .result import Comparison

__all__ = ["Comparison"]
