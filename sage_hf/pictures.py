"""Pictures of a selection; they need matplotlib, which is optional."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .selection import SCORED, Selection

logger = logging.getLogger(__name__)

# Told apart in black and white, too: light, and dark with hatching.
_KEPT: dict[str, Any] = {"color": "#a63603", "hatch": "//", "edgecolor": "white", "linewidth": 0}
_NOT_KEPT: dict[str, Any] = {"color": "#9ecae1"}
_BINS = 40


def save_scores(selection: Selection, path: Path) -> bool:
    """Draws how many rows have which agreement, kept and not kept.

    Args:
        selection: What to draw.
        path: The picture; its ending tells its format.

    Returns:
        False, and a word in the log, where matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        logger.info("No picture of the scores: matplotlib is not installed.")
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    kept = np.zeros(len(selection.scores), dtype=bool)
    kept[selection.indices] = True
    scored = selection.status == SCORED
    scores = selection.scores
    bins = np.linspace(min(-0.02, float(scores[scored].min())), 1.0, _BINS + 1).tolist()
    axes.hist(scores[scored & ~kept], bins, label=f"not kept ({int((scored & ~kept).sum()):,})", **_NOT_KEPT)
    axes.hist(scores[scored & kept], bins, label=f"kept ({int((scored & kept).sum()):,})", alpha=0.85, **_KEPT)
    axes.set(xlabel="agreement with the group", ylabel="rows", title="Rows by agreement")
    axes.legend()
    # No date inside, so that the same selection is the same file.
    figure.savefig(path, dpi=120, metadata={"Software": None} if path.suffix == ".png" else None)
    return True
