"""Pictures of a selection; they need matplotlib, which is optional.

Kept rows are dark and hatched, others light, here and everywhere: they are told apart in black and white, too.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError

logger = logging.getLogger(__name__)

KEPT_COLOUR, OTHER_COLOUR = "#a63603", "#9ecae1"
_HATCH = "//"
_BINS = 40
# Groups that are drawn: the largest.
_DRAWN_GROUPS = 12
_COLUMNS = 5
# No date and no random names inside, so that the same selection is the same file; text stays text.
_STYLE = {"svg.hashsalt": "sage_hf", "svg.fonttype": "none", "hatch.linewidth": 0.5, "font.size": 9}


@dataclass(frozen=True)
class Seen:
    """What pictures show of a selection with G groups.

    Attributes:
        group_by: The column of the groups; None for a single one.
        table: [G] entries with `name`, `rows` and `kept`.
        kept: [G] arrays, the scores of each group's kept rows.
        others: [G] arrays, the scores of its other rows; None where they are not known, as of a stream.
        spectrum: [l] the sketch's squared singular values, descending.
        squared_norm: The sum of all rows' squared lengths, of which the spectrum holds a part.
    """

    group_by: str | None
    table: Sequence[dict[str, Any]]
    kept: Sequence[npt.NDArray[np.float32]]
    others: Sequence[npt.NDArray[np.float32]] | None
    spectrum: Sequence[float]
    squared_norm: float

    @property
    def largest(self) -> list[int]:
        """The groups to draw, in their order."""
        order = sorted(range(len(self.table)), key=lambda group: (-self.table[group]["rows"], group))
        return sorted(order[:_DRAWN_GROUPS])


def can_draw() -> bool:
    """Whether matplotlib is installed; a word in the log where it is not."""
    if find_spec("matplotlib") is None:
        logger.info("No pictures: matplotlib is not installed.")
        return False
    return True


def draw_scores(seen: Seen, figure: Any) -> None:
    """How many rows of each group have which agreement, kept and not kept, into a figure or a part of one."""
    from matplotlib.patches import Patch

    groups = seen.largest
    rows = -(-len(groups) // _COLUMNS)
    columns = -(-len(groups) // rows)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).flatten()
    parts = [(seen.kept[group], seen.others[group] if seen.others is not None else None) for group in groups]
    lowest = min((float(part.min()) for pair in parts for part in pair if part is not None and len(part)), default=0.0)
    bins = np.linspace(min(-0.02, lowest), 1.0, _BINS + 1).tolist()
    for place, (panel, group, (kept, others)) in enumerate(zip(panels, groups, parts, strict=False)):
        shown, colours = ([kept], [KEPT_COLOUR]) if others is None else ([kept, others], [KEPT_COLOUR, OTHER_COLOUR])
        shapes = panel.hist(shown, bins, color=colours, stacked=True, histtype="stepfilled")[2]
        (shapes if others is None else shapes[0])[0].set(hatch=_HATCH, edgecolor="white", linewidth=0)
        if len(groups) > 1:
            panel.set_title(_short(seen.table[group]["name"]), fontsize="medium")
        panel.yaxis.get_major_locator().set_params(integer=True)
        panel.tick_params(labelbottom=place + columns >= len(groups))
        _bare(panel)
    for panel in panels[len(groups) :]:
        panel.set_visible(False)
    figure.supxlabel("agreement with the group" if len(groups) > 1 else "agreement", fontsize="medium")
    figure.supylabel("rows", fontsize="medium")
    handles = [Patch(facecolor=KEPT_COLOUR, hatch=_HATCH, edgecolor="white", linewidth=0, label="kept")]
    if seen.others is not None:
        handles.append(Patch(facecolor=OTHER_COLOUR, label="not kept"))
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    if len(seen.table) > len(groups):
        figure.suptitle(f"The {len(groups)} largest of {len(seen.table)} groups", x=0.01, ha="left", fontsize="medium")


def draw_spectrum(seen: Seen, figure: Any) -> None:
    """The share of the gradients' energy in each direction of the sketch, and in the directions up to it."""
    from matplotlib.ticker import PercentFormatter

    each, together = figure.subplots(1, 2)
    shares = np.asarray(seen.spectrum, dtype=np.float64) / seen.squared_norm
    shares = shares[shares > 0]
    ranks = np.arange(1, len(shares) + 1)
    each.plot(ranks, shares, color=KEPT_COLOUR, marker="." if len(ranks) < 65 else None)
    each.set(yscale="log", ylabel="share of the energy", title="each direction")
    together.fill_between(ranks, shares.cumsum(), step="mid", color=OTHER_COLOUR)
    together.plot(ranks, shares.cumsum(), color=KEPT_COLOUR, drawstyle="steps-mid")
    together.axhline(1.0, color="black", linewidth=0.7, linestyle=":")
    together.set(ylim=(0, 1.04), title=f"up to it: {shares.sum():.1%} in all")
    together.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in (each, together):
        axes.set(xlim=(0.5, len(ranks) + 0.5), xlabel="direction of the sketch")
        axes.title.set_fontsize("medium")
        _bare(axes)


def draw_shares(seen: Seen, figure: Any) -> None:
    """The share of each group's rows that was kept, against the share of all."""
    from matplotlib.ticker import PercentFormatter

    axes = figure.subplots()
    entries = [seen.table[group] for group in seen.largest]
    shares = [entry["kept"] / entry["rows"] if entry["rows"] else 0.0 for entry in entries]
    axes.barh(range(len(entries)), shares, color=KEPT_COLOUR, hatch=_HATCH, edgecolor="white", linewidth=0)
    overall = sum(entry["kept"] for entry in seen.table) / sum(entry["rows"] for entry in seen.table)
    axes.axvline(overall, color="black", linewidth=0.9, linestyle="--")
    names = [f"{_short(entry['name'])}  ({entry['kept']:,} of {entry['rows']:,})" for entry in entries]
    axes.set_yticks(range(len(entries)), names)
    axes.set(
        xlim=(0, max([*shares, overall]) * 1.05),
        xlabel=f"share kept; of all (dashed): {overall:.1%}",
        ylabel=seen.group_by or "",
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.invert_yaxis()
    _bare(axes)


# Name of a picture to what draws it, what it shows in words, and its size in inches.
PICTURES: dict[str, tuple[Callable[[Seen, Any], None], str, tuple[float, float]]] = {
    "scores": (draw_scores, "Agreement of the rows by group, kept and not kept", (9.0, 4.2)),
    "spectrum": (draw_spectrum, "The sketch's spectrum and the energy that it holds", (8.0, 2.8)),
    "groups": (draw_shares, "Share of each group that was kept", (7.0, 3.6)),
}


def draw(seen: Seen, name: str | None = None) -> Any:
    """A matplotlib figure of one picture, or of all three.

    Args:
        seen: What to draw.
        name: "scores", "spectrum" or "groups"; None for all.

    Raises:
        ConfigError: The name is unknown, or matplotlib is not installed.
    """
    if name is not None and name not in PICTURES:
        raise ConfigError(f"There is no picture {name!r}", where="name", fix=f"Use one of {list(PICTURES)}, or None.")
    if find_spec("matplotlib") is None:
        raise ConfigError("matplotlib is not installed", where="plot", fix='pip install "sage-hf[plot]"')
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        if name is not None:
            drawing, _, size = PICTURES[name]
            figure = Figure(figsize=size, layout="constrained")
            drawing(seen, figure)
            return figure
        figure = Figure(figsize=(10.0, 8.0), layout="constrained")
        top, below = figure.subfigures(2, 1, height_ratios=(1.3, 1.0))  # type: ignore[misc]  # an array
        left, right = below.subfigures(1, 2)
        for place, (drawing, _, _) in zip((top, left, right), PICTURES.values(), strict=True):
            drawing(seen, place)
        return figure


def render(figure: Any, kind: str) -> bytes:
    """A figure as the bytes of a "png" or "svg" file; the same figure is the same bytes."""
    from matplotlib import rc_context

    file = io.BytesIO()
    with rc_context(_STYLE):
        figure.savefig(file, format=kind, dpi=120, metadata={"Software" if kind == "png" else "Date": None})
    return file.getvalue()


def save_pictures(seen: Seen, folder: Path) -> list[str]:
    """Writes every picture as PNG, which the Hub and GitHub show in cards.

    Args:
        seen: What to draw.
        folder: Where to; made if it is not there.

    Returns:
        The names of the pictures, without ending; none, and a word in the log, where matplotlib is not installed.
    """
    if not can_draw():
        return []
    folder.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        (folder / f"{name}.png").write_bytes(render(draw(seen, name), "png"))
    return list(PICTURES)


def _bare(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _short(name: str) -> str:
    # A dollar would begin a formula.
    shown = " ".join(name.split()).replace("$", r"\$")
    return shown if len(shown) <= 24 else shown[:23] + "…"
