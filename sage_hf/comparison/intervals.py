"""Means of a few trainings and how sure they are: Student's t, without scipy, whose last digits are others.

Five trainings are few: the normal interval would be 1.4 times too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
# What it is of a normal distribution, on both sides.
_NORMAL = 1.96
# With fewer trainings nothing is called better than anything: the interval of two is 12.7 times their deviation.
LEAST_COUNT = 3
# A deviation of less, as a share of the values, is rounding.
_ROUNDING = 1e-12
_HALVINGS = 200


@dataclass(frozen=True)
class Estimate:
    """A mean over trainings.

    Attributes:
        mean: Mean of their values; NaN without any.
        half: Half the width of the 95 % interval around it; None where it is not known: of a single value, and of
            values that are all the same, whose spread is below what the metric shows (of accuracy, one test row), and
            not 0.
        count: Number of values.
    """

    mean: float
    half: float | None
    count: int

    @property
    def differs_from_zero(self) -> bool:
        """Whether 0 is outside the interval; never without one, nor of fewer than three values."""
        return self.count >= LEAST_COUNT and self.half is not None and abs(self.mean) > self.half

    def text(self, sign: str = "-") -> str:
        """Mean and half interval, for people; a sign of "+" stands before gains, too."""
        return digits(self.mean, sign) + ("" if self.half is None else f" ± {digits(self.half)}")


def digits(value: float, sign: str = "-") -> str:
    """A number of a metric for people: three decimals, or four digits where it is large."""
    return f"{value:{sign}.3f}" if not abs(value) >= 100 else f"{value:{sign}.4g}"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of values, one a training, and its 95 % interval by Student's t, as of a normal distribution."""
    count = len(values)
    mean = math.fsum(values) / count if count else math.nan
    if count < 2:
        return Estimate(mean, None, count)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    if deviation <= _ROUNDING * max(map(abs, values)):
        return Estimate(mean, None, count)
    return Estimate(mean, student_t(count - 1) * deviation / math.sqrt(count), count)


def counting_error(share: float, rows: int) -> float:
    """Half the 95 % interval of a share, in [0, 1], that is counted on so many rows."""
    return _NORMAL * math.sqrt(share * (1.0 - share) / rows)


def student_t(degrees: int, confidence: float = CONFIDENCE) -> float:
    """The t that Student's distribution of 1 or more degrees stays within, on both sides of 0, with a probability."""
    low, high = 0.0, math.pi / 2
    for _ in range(_HALVINGS):  # ends at neighbouring floats, well before
        middle = (low + high) / 2
        if _central(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _central(angle: float, degrees: int) -> float:
    """P(|T| <= sqrt(degrees) tan(angle)), exact for whole degrees (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    cosine, sine = math.cos(angle), math.sin(angle)
    is_odd = degrees % 2
    term = cosine if is_odd else 1.0
    total = term if degrees > 1 else 0.0
    for power in range(3 if is_odd else 2, degrees - 1, 2):
        term *= cosine**2 * (power - 1) / power
        total += term
    return 2 / math.pi * (angle + sine * total) if is_odd else sine * total
