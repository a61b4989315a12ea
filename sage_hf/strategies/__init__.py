"""Strategies: from what is known of the rows to row numbers. A file each for every kind; `STRATEGIES` names them.

A strategy is a function `(candidates, quotas, seed) -> rows`, see `Candidates`, made known by `register_strategy`. It
must return exactly `quotas.sum()` distinct row numbers, `quotas[g]` of group g, and be a pure function of its
arguments.
"""

from . import agreement, coverage, difficulty, random, representation
from .base import SIGNALS, STRATEGIES, Candidates, Merit, Strategy, Vectors, register_strategy, take_highest

__all__ = [
    "SIGNALS",
    "STRATEGIES",
    "Candidates",
    "Merit",
    "Strategy",
    "Vectors",
    "agreement",
    "coverage",
    "difficulty",
    "random",
    "register_strategy",
    "representation",
    "take_highest",
]
