"""Means of a few trainings and how sure they are, by Student's t.

Five trainings are few: the normal interval would be 1.4 times too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over trainings.

    Attributes:
        mean: Mean of their values; NaN without any.
        half: Half the width of the 95 % interval around it; None of a single value, which tells nothing of others.
        count: How many values.
    """

    mean: float
    half: float | None
    count: int

    @property
    def differs_from_zero(self) -> bool:
        """Whether 0 is outside the interval; never without one."""
        return self.half is not None and abs(self.mean) > self.half

    def text(self, sign: str = "-") -> str:
        """Mean and half interval, for people; a sign of "+" stands before gains, too."""
        return digits(self.mean, sign) + ("" if self.half is None else f" ± {digits(self.half)}")


def digits(value: float, sign: str = "-") -> str:
    """A number of a metric for people: three decimals, or four digits where it is large."""
    return f"{value:{sign}.3f}" if not abs(value) >= 100 else f"{value:{sign}.4g}"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of values and its 95 % interval by Student's t, which takes them for draws from a normal distribution.

    Args:
        values: One a training, each from a seed of its own.
    """
    count = len(values)
    mean = math.fsum(values) / count if count else math.nan
    if count < 2:
        return Estimate(mean, None, count)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    quantile = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))
    return Estimate(mean, quantile * deviation / math.sqrt(count), count)
