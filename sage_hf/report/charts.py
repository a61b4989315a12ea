"""Charts as geometry, which `templates/charts.html` draws as SVG.

A chart is 320 wide and never scaled by much, so that its words can be read on a phone; wide screens show more of them
side by side. Kept rows stand above a line and others below it: they are told apart without colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..hub.pictures import Seen
from .words import count, percent

WIDTH, HEIGHT = 320.0, 176.0
# The frame of the plot within the chart.
LEFT, RIGHT, TOP, BOTTOM = 50.0, 312.0, 8.0, 140.0
_BINS = 32
# From so many times more rows on one side than on the other, counts are on a log scale.
_LOG_FROM = 12.0
# Words of an axis are no closer.
_CLOSEST = 13.0
# Decades of the spectrum that are shown.
_DECADES = 5


@dataclass(frozen=True)
class Tick:
    """A word at a place of an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    """A bar of kept rows or of others; its words are shown where a pointer rests on it."""

    kind: Literal["kept", "other"]
    x: float
    y: float
    width: float
    height: float
    words: str


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: What it is of.
        words: What it shows, for those who do not see it.
        x_label: What its horizontal axis tells.
        x_ticks: Words below the plot.
        y_ticks: Words beside it.
        bars: Its bars.
        line: Points of its line, as SVG writes them; empty where it has none.
        area: Points of the area below its line.
        baseline: Height of its zero.
        notes: Words within the plot, each at a height.
    """

    title: str
    words: str
    x_label: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    bars: Sequence[Bar] = ()
    line: str = ""
    area: str = ""
    baseline: float = BOTTOM
    notes: Sequence[Tick] = field(default_factory=tuple)


@dataclass(frozen=True)
class Quartiles:
    """Where the scores of some rows lie: how many they are, and their quartiles; None of no rows."""

    rows: int
    low: float | None
    middle: float | None
    high: float | None


@dataclass(frozen=True)
class GroupScores:
    """The scores of a group: a chart, and the quartiles of kept rows and of others; None where these are not known."""

    name: str
    chart: Chart
    kept: Quartiles
    others: Quartiles | None


@dataclass(frozen=True)
class Scores:
    """The scores of the largest groups, all on the same axes.

    Attributes:
        groups: The groups, in their order.
        smaller: Number of groups that are not shown.
        is_log: Whether counts are on a log scale.
    """

    groups: Sequence[GroupScores]
    smaller: int
    is_log: bool


def score_charts(seen: Seen, limit: int | None = None) -> Scores:
    """How many rows of each group have which score.

    Args:
        seen: The selection's scores.
        limit: Number of groups at most, the largest; as many as pictures show by default.
    """
    shown = sorted(sorted(seen.largest, key=lambda group: -seen.table[group].rows)[:limit])
    kept = [_finite(seen.kept[group]) for group in shown]
    others = None if seen.others is None else [_finite(seen.others[group]) for group in shown]
    everything = np.concatenate([*kept, *(others or []), np.zeros(0)])
    low, high = _range(everything)
    edges = np.linspace(low, high, _BINS + 1)
    above = [np.histogram(part, edges)[0] for part in kept]
    below = None if others is None else [np.histogram(part, edges)[0] for part in others]
    is_log = below is not None and _needs_log(above, below)
    groups = []
    for place, group in enumerate(shown):
        entry = seen.table[group]
        parts = _quartiles(kept[place]), None if others is None else _quartiles(others[place])
        drawn = _mirrored(entry.name, edges, above[place], None if below is None else below[place], is_log, parts)
        groups.append(GroupScores(entry.name, drawn, *parts))
    return Scores(groups, len(seen.table) - len(shown), is_log)


def spectrum_charts(seen: Seen) -> list[Chart]:
    """The share of the energy in each direction of the sketch, and in all up to it; none of a spectrum without any."""
    shares = energy_shares(seen)
    if not len(shares):
        return []
    ranks = range(1, len(shares) + 1)
    across = _scale(0.5, len(shares) + 0.5, LEFT, RIGHT)
    x_ticks = [Tick(across(rank), count(rank)) for rank in sorted({1, *_ticks(1, len(shares))}) if rank == int(rank)]
    top = math.ceil(math.log10(float(shares[0])))
    bottom = max(top - _DECADES, min(top - 1, math.floor(math.log10(float(shares[-1])))))
    up = _scale(bottom, top, BOTTOM, TOP + 4)
    powers = [*range(bottom, top + 1)][::-1]
    powers = powers[:: max(1, math.ceil(len(powers) / 4))]
    heights = [up(max(bottom, math.log10(share))) for share in shares.tolist()]
    together = shares.cumsum()
    rise = _scale(0.0, 1.0, BOTTOM, TOP + 4)
    steps = [(across(rank), rise(min(1.0, share))) for rank, share in zip(ranks, together.tolist(), strict=True)]
    steps = [(LEFT, rise(0.0)), *steps] if len(steps) > 1 else [(LEFT, rise(0.0)), steps[0], (RIGHT, steps[0][1])]
    return [
        Chart(
            "Energy of each direction",
            f"The first of {len(shares)} directions holds {percent(float(shares[0]))} of the energy, the last "
            f"{percent(float(shares[-1]))}. The scale is logarithmic.",
            "direction of the sketch",
            x_ticks,
            [Tick(up(power), percent(10.0**power, least_digits=True)) for power in powers],
            line=_points(zip(map(across, ranks), heights, strict=True)),
        ),
        Chart(
            "Cumulative energy of the directions",
            f"All {len(shares)} directions hold {percent(float(together[-1]))} of the energy.",
            "directions of the sketch",
            x_ticks,
            [Tick(rise(share), percent(share, least_digits=True)) for share in (0.0, 0.5, 1.0)],
            line=_points(steps),
            area=_points([*steps, (steps[-1][0], BOTTOM), (LEFT, BOTTOM)]),
        ),
    ]


def energy_shares(seen: Seen) -> npt.NDArray[np.float64]:
    """Share of the energy in each direction of the sketch, descending, without empty ones."""
    if not seen.squared_norm > 0:
        return np.zeros(0)
    shares = np.asarray(seen.spectrum, dtype=np.float64) / seen.squared_norm
    return shares[shares > 0]


def _mirrored(
    name: str,
    edges: npt.NDArray[np.float64],
    above: npt.NDArray[np.intp],
    below: npt.NDArray[np.intp] | None,
    is_log: bool,
    parts: tuple[Quartiles, Quartiles | None],
) -> Chart:
    """Counts of kept rows above a line and of others below it, on one scale; without others, above alone."""
    highest = max(1, int(above.max()), 0 if below is None else int(below.max()))
    middle = BOTTOM if below is None else (TOP + BOTTOM) / 2
    tall = middle - TOP - 4
    height: Callable[[float], float] = (
        (lambda rows: tall * math.log1p(rows) / math.log1p(highest))
        if is_log
        else (lambda rows: tall * rows / highest)
    )
    across = _scale(float(edges[0]), float(edges[-1]), LEFT, RIGHT)
    bars = []
    for kind, counts in (("kept", above), ("other", below)):
        for place in np.flatnonzero(counts) if counts is not None else ():
            start, end, rows = float(edges[place]), float(edges[place + 1]), int(counts[place])  # type: ignore[index]
            tallness = max(1.0, height(rows))
            words = f"{start:.2f} to {end:.2f}: {count(rows)} {'kept' if kind == 'kept' else 'not kept'}"
            x, width = across(start) + 0.5, across(end) - across(start) - 1.0
            bars.append(
                Bar(kind, x, middle - tallness if kind == "kept" else middle, width, tallness, words)  # type: ignore[arg-type]
            )
    values = [10**power for power in range(1 + int(math.log10(highest)))] if is_log else _whole_ticks(highest)
    values = [value for value in values if height(value) >= _CLOSEST][-2 if below is not None else -3 :]
    y_ticks = [Tick(middle, "0"), *(Tick(middle - height(value), count(value)) for value in values)]
    if below is not None:
        y_ticks += [Tick(middle + height(value), count(value)) for value in values]
    notes = [] if below is None else [Tick(TOP + 10, "kept"), Tick(BOTTOM - 4, "not kept")]
    told = [_in_words("kept", parts[0])] + ([_in_words("not kept", parts[1])] if parts[1] is not None else [])
    x_ticks = [Tick(across(value), f"{value:g}") for value in _ticks(float(edges[0]), float(edges[-1]))]
    words = ". ".join(told) + "."
    return Chart(f"Agreement of {name}", words, "agreement", x_ticks, y_ticks, bars, baseline=middle, notes=notes)


def _in_words(kind: str, part: Quartiles) -> str:
    if part.middle is None:
        return f"No rows {kind}"
    return (
        f"{count(part.rows)} {kind}: half of them between {part.low:.2f} and {part.high:.2f}, median {part.middle:.2f}"
    )


def _quartiles(scores: npt.NDArray[np.float32]) -> Quartiles:
    if not len(scores):
        return Quartiles(0, None, None, None)
    low, middle, high = np.quantile(scores, [0.25, 0.5, 0.75]).tolist()
    return Quartiles(len(scores), low, middle, high)


def _needs_log(above: Sequence[npt.NDArray[np.intp]], below: Sequence[npt.NDArray[np.intp]]) -> bool:
    highest = [max((int(part.max()) for part in side), default=0) for side in (above, below)]
    return min(highest) > 0 and max(highest) >= _LOG_FROM * min(highest)


def _finite(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return scores[np.isfinite(scores)]


def _range(scores: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Where an axis of scores begins and ends, at tenths; at least a fifth apart."""
    if not len(scores):
        return 0.0, 1.0
    low, high = math.floor(float(scores.min()) * 10) / 10, math.ceil(float(scores.max()) * 10) / 10
    return (low, high) if high - low >= 0.2 else (low - 0.1, high + 0.1)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """What takes [low, high] to [start, end]."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers in a range, about so many."""
    rough = (high - low) / about
    if rough <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 10) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def _whole_ticks(highest: int) -> list[int]:
    """Whole round numbers above 0, up to a count."""
    return [int(value) for value in _ticks(0, highest, 2) if value > 0 and value == int(value)] or [highest]


def _points(pairs: object) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)  # type: ignore[attr-defined]
