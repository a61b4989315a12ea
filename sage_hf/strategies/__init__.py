"""Strategies: from scores to row numbers. One file each; this table names them.

A strategy is a function `(candidates, quotas, seed) -> rows`, see `Candidates`. It must return exactly
`quotas.sum()` distinct row numbers, `quotas[g]` of group g, and be a pure function of its arguments.
"""

from __future__ import annotations

from .agreement import agreement, by_agreement
from .base import Candidates, Merit, Strategy
from .random import by_lot, random

STRATEGIES: dict[str, Strategy] = {"agreement": agreement, "random": random}

# The strategies that judge every row by itself; only these choose from a stream.
MERITS: dict[str, Merit] = {"agreement": by_agreement, "random": by_lot}

__all__ = ["MERITS", "STRATEGIES", "Candidates", "Merit", "Strategy"]
