"""The mathematics of the paper, readable alone: the sketch, and agreement in it."""

from .agreement import Consensus
from .sketch import FrequentDirections

__all__ = ["Consensus", "FrequentDirections"]
