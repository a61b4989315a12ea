"""Pictures of a selection; they need matplotlib, which is optional."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .selection import SCORED, Selection

logger = logging.getLogger(__name__)

# Told apart in black and white, too: dark (and hatched), and light.
_KEPT, _NOT_KEPT = "#a63603", "#9ecae1"
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
    parts = {"kept": scores[scored & kept], "not kept": scores[scored & ~kept]}
    labels = [f"{name} ({len(part):,})" for name, part in parts.items()]
    drawn: Any = axes.hist(list(parts.values()), bins, label=labels, color=[_KEPT, _NOT_KEPT], stacked=True)
    for bar in drawn[2][0]:
        bar.set(hatch="//", edgecolor="white", linewidth=0)
    axes.set(xlabel="agreement with the group", ylabel="rows", title="Rows by agreement")
    axes.legend()
    # No date inside, so that the same selection is the same file.
    figure.savefig(path, dpi=120, metadata={"Software": None} if path.suffix == ".png" else None)
    return True
