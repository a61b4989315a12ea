"""One training, and the trainings of one strategy at one share of the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .intervals import Estimate, estimate

# The arm that everything is held against, and the baseline; the first is no strategy's name.
ALL, RANDOM = "all", "random"


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        strategy: That chose the rows; "all" for all of them.
        fraction: The share of the rows that it kept, in (0, 1].
        seed: Of the choice, of the fresh weights and of the order of the rows.
        rows: How many were kept.
        metrics: What the trained model reached on the test rows.
    """

    strategy: str
    fraction: float
    seed: int
    rows: int
    metrics: dict[str, float]

    @property
    def key(self) -> tuple[str, float, int]:
        """Which training of a comparison it is."""
        return self.strategy, self.fraction, self.seed


@dataclass(frozen=True)
class Arm:
    """The trainings of one strategy at one share.

    Attributes:
        strategy: That chose the rows.
        fraction: The share.
        rows: How many were kept; the most of any seed.
        value: The metric over the seeds.
        difference: Of the metric to that of random rows at the same share, seed by seed; None where there is none.
    """

    strategy: str
    fraction: float
    rows: int
    value: Estimate
    difference: Estimate | None

    def merit(self, lower_is_better: bool) -> float:
        """The mean with the sign that makes more better; what is no number is worst."""
        mean = -self.value.mean if lower_is_better else self.value.mean
        return -math.inf if math.isnan(mean) else mean

    def gain(self, lower_is_better: bool) -> int:
        """1 where it is better than random rows by more than the interval, -1 where worse, 0 where nothing shows."""
        if self.difference is None or not self.difference.differs_from_zero:
            return 0
        return 1 if (self.difference.mean < 0) == lower_is_better else -1

    @property
    def value_text(self) -> str:
        """Mean and half interval, for people."""
        return _with_half(digits(self.value.mean), self.value)

    def difference_text(self, lower_is_better: bool) -> str:
        """The difference to random rows, and a word where the interval leaves no doubt of it."""
        if self.difference is None:
            return "-"
        said = {1: " better", 0: "", -1: " worse"}[self.gain(lower_is_better)]
        return _with_half(digits(self.difference.mean, "+"), self.difference) + said

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def arms_of(cells: Sequence[Cell], metric: str, wanted: Sequence[tuple[str, float]]) -> list[Arm]:
    """The arms of some strategies at some shares, in that order; those without a training are left out.

    Args:
        cells: All trainings.
        metric: The number that counts.
        wanted: Strategy and share of each arm.
    """
    values: dict[tuple[str, float], dict[int, float]] = {}
    rows: dict[tuple[str, float], int] = {}
    for cell in cells:
        key = (cell.strategy, cell.fraction)
        values.setdefault(key, {})[cell.seed] = cell.metrics[metric]
        rows[key] = max(rows.get(key, 0), cell.rows)
    arms = []
    for strategy, fraction in wanted:
        own = values.get((strategy, fraction))
        if own is None:
            continue
        lots = values.get((RANDOM, fraction), {}) if strategy not in (RANDOM, ALL) else {}
        # Pairs: the same seed is the same fresh weights, whose luck goes out of the difference.
        pairs = [own[seed] - lots[seed] for seed in sorted(own.keys() & lots.keys())]
        difference = estimate(pairs) if pairs else None
        mean = estimate([own[seed] for seed in sorted(own)])
        arms.append(Arm(strategy, fraction, rows[strategy, fraction], mean, difference))
    return arms


def digits(value: float, sign: str = "-") -> str:
    """A number of a metric for people: three decimals, or four digits where it is large."""
    return f"{value:{sign}.3f}" if not abs(value) >= 100 else f"{value:{sign}.4g}"


def _with_half(text: str, value: Estimate) -> str:
    return text if value.half is None else f"{text} ± {digits(value.half)}"
