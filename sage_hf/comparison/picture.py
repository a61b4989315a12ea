"""The picture of a comparison; it needs matplotlib, which is optional.

A strategy has a marker and a dash of its own besides its shade: lines are told apart in black and white, too.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from ..hub.pictures import KEPT_COLOUR, render
from ..utils.files import whole_file
from .intervals import Estimate
from .metrics import bounds
from .runs import RANDOM

if TYPE_CHECKING:
    from .result import Comparison

PICTURE_NAME = "comparison"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h", "p", "d")
_DASHES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)), (0, (2, 1)))
# From dark to light, so that they differ in grey; the first is the colour of what was kept in all other pictures.
_COLOURS = (KEPT_COLOUR, "#2171b5", "#238b45", "#6a51a3", "#b8860b", "#41ab5d", "#807dba")
_RANDOM_LINE = {"color": "#737373", "linestyle": ":", "marker": "x"}
_ALL_COLOUR = "#d9d9d9"
# How far apart, as a factor, neighbouring strategies stand at one share: intervals would hide each other.
_APART = 1.035


def draw_comparison(comparison: Comparison) -> Any:
    """A matplotlib figure: the metric over the share of the rows, a line a strategy, all rows as a band.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ConfigError("matplotlib is not installed", where="plot", fix='pip install "sage-hf[plot]"')
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    with rc_context({"font.size": 9}):
        figure = Figure(figsize=(7.0, 4.0), layout="constrained")
        axes = figure.subplots()
        groups, strategies, goal = comparison.groups, comparison.strategies, comparison.reference.value
        within = _bounds(comparison)
        if goal.half is not None:
            below, above = _reach(goal, within)
            axes.axhspan(goal.mean - below, goal.mean + above, color=_ALL_COLOUR, alpha=0.6, linewidth=0)
        axes.axhline(goal.mean, color="black", linewidth=1.0, label="all rows")
        for place, strategy in enumerate(strategies):
            own = [group for group in groups if group.strategy == strategy]
            shift = _APART ** (place - (len(strategies) - 1) / 2)
            axes.errorbar(
                [group.fraction * shift for group in own],
                [group.value.mean for group in own],
                yerr=np.array([_reach(group.value, within) for group in own]).T,
                label=strategy,
                capsize=3,
                linewidth=1.4,
                markersize=5,
                elinewidth=0.9,
                clip_on=False,  # a mark at the end of the range is whole
                **_line(strategy, place),
            )
        shares = sorted({group.fraction for group in groups})
        direction = "" if comparison.greater_is_better else " (less is better)"
        axes.set(xscale="log", xlabel="share of the rows trained on", ylabel=comparison.metric + direction)
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, within[0]), min(high, within[1]))
        axes.set_xlim(shares[0] / 1.25, shares[-1] * 1.25)
        axes.xaxis.set_major_locator(FixedLocator(shares))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        axes.grid(axis="y", color="#eeeeee")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", frameon=False)
        if goal.half is not None:
            figure.supxlabel(
                f"bars and the band: 95 % intervals over {goal.count} seeds", x=0.01, ha="left", fontsize="small"
            )
        return figure


def save_picture(figure: Any, folder: Path) -> list[Path]:
    """Writes a figure of `draw_comparison` as PNG and SVG, in this order; the same figure is the same bytes.

    Raises:
        OutputError: It cannot be written.
    """
    paths = [folder / f"{PICTURE_NAME}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        with whole_file(path, "Choose a folder that can be written to.") as part:
            part.write_bytes(render(figure, path.suffix[1:]))
    return paths


def _bounds(comparison: Comparison) -> tuple[float, float]:
    """The range of the metric; none where a value is outside of what its name tells, such as a share in per cent."""
    low, high = bounds(comparison.metric)
    values = [run.metrics[comparison.metric] for run in comparison.runs]
    return (low, high) if all(low <= value <= high for value in values) else (-math.inf, math.inf)


def _reach(value: Estimate, within: tuple[float, float]) -> tuple[float, float]:
    """How far its bar goes down and up, within the metric's range; NaN, which draws none, where it is not known."""
    half = math.nan if value.half is None else value.half
    return min(half, value.mean - within[0]), min(half, within[1] - value.mean)


def _line(strategy: str, place: int) -> dict[str, Any]:
    if strategy == RANDOM:
        return _RANDOM_LINE
    return {
        "color": _COLOURS[place % len(_COLOURS)],
        "linestyle": _DASHES[place % len(_DASHES)],
        "marker": _MARKERS[place % len(_MARKERS)],
    }
