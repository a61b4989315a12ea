"""Strategies: from scores to row numbers. One file each; this table names them.

A strategy is a function `(candidates, quotas, seed) -> rows`, see `Candidates`. It must return exactly
`quotas.sum()` distinct row numbers, `quotas[g]` of group g, and be a pure function of its arguments.
"""

from __future__ import annotations

from .agreement import agreement
from .base import Candidates, Strategy
from .random import random

STRATEGIES: dict[str, Strategy] = {"agreement": agreement, "random": random}

__all__ = ["STRATEGIES", "Candidates", "Strategy"]
