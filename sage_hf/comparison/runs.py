"""One training, and the trainings of one strategy at one share of the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .intervals import Estimate

# The group that every other is held against, and the baseline; the first is no strategy's name.
ALL, RANDOM = "all", "random"
# Strategy, share and seed of a training.
Key = tuple[str, float, int]


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        strategy: What chose the rows; "all" for all of them.
        fraction: The share of the rows that it kept, in (0, 1].
        seed: Seed of the choice, of the fresh weights and of the order of the rows.
        rows: Number of rows that were kept.
        metrics: What the trained model reached on the test rows.
    """

    strategy: str
    fraction: float
    seed: int
    rows: int
    metrics: dict[str, float]

    @property
    def key(self) -> Key:
        """Which training of a comparison it is."""
        return self.strategy, self.fraction, self.seed


@dataclass(frozen=True)
class RunGroup:
    """The trainings of one strategy at one share.

    Attributes:
        strategy: What chose the rows.
        fraction: The share.
        rows: Number of rows that were kept; the most of any seed.
        value: The metric over the seeds.
        difference: The metric minus that of random rows at the same share, seed by seed; None where there is none.
        greater_is_better: Whether more of the metric is better.
    """

    strategy: str
    fraction: float
    rows: int
    value: Estimate
    difference: Estimate | None
    greater_is_better: bool

    @property
    def merit(self) -> float:
        """The mean with the sign that makes more better; what is no number is worst."""
        mean = self.value.mean if self.greater_is_better else -self.value.mean
        return -math.inf if math.isnan(mean) else mean

    @property
    def gain(self) -> int:
        """1 where it is better than random rows by more than the interval, -1 where worse, 0 where nothing shows."""
        if self.difference is None or not self.difference.differs_from_zero:
            return 0
        return 1 if (self.difference.mean > 0) == self.greater_is_better else -1

    @property
    def difference_text(self) -> str:
        """The difference to random rows, and a word where the interval leaves no doubt of it."""
        if self.difference is None:
            return "-"
        return self.difference.text("+") + {1: " better", 0: "", -1: " worse"}[self.gain]
