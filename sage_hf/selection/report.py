"""A selection told to a person: the summary table of the shell."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..data.stats import GateStats
from ..errors import printable
from ..hub.cards import GROUP_HEAD, about_aim, group_cells, largest_groups
from .choice import about_lost
from .rows import source_numbers
from .selection import Selection
from .stream_selection import StreamSelection

# What is said where the share of wrong labels is None.
NOTHING_TOLD = (
    "classifiers of the model's embeddings and of the inputs find too little about the classes, or there are too "
    "few rows of two classes"
)
# Rows that are named when they were set aside.
_NAMED_ROWS = 10


def summary(
    selection: Selection | StreamSelection, was_said: Callable[[str], bool] = lambda text: False
) -> RenderableType:
    """Kept rows by group, energy captured, rows set aside and time, as something `rich` prints.

    Args:
        selection: The selection.
        was_said: Whether a person was warned of this already: then it is not said again.
    """
    stats = selection.stats
    table = Table(title=f"Kept {stats.kept:,} of {stats.rows:,} rows", title_justify="left")
    table.add_column(Text(printable(stats.group_by or "group")))
    for name in GROUP_HEAD:
        table.add_column(name, justify="right")
    listed, others = largest_groups(stats.groups)
    for group in listed:  # Text, not str: a group may be called "[b]"
        table.add_row(*(Text(printable(each)) for each in group_cells(group)))
    if others:
        table.add_row(f"{len(others)} more", f"{sum(g.rows for g in others):,}", f"{sum(g.kept for g in others):,}")
    lines = [
        f"Sketch: {stats.sketch_size} rows x {stats.row_width:,}, of {stats.target_weights:,} weights; "
        f"it holds {stats.energy:.1%} of the gradients' energy.",
        f"Consensus: {stats.consensus}. Mean score of the kept rows {stats.mean_score_kept:.3f}, "
        f"of all {stats.mean_score:.3f}.",
        _about_time(selection),
    ]
    if aim := about_aim(stats, selection.config):
        lines.insert(1, f"Scores: {aim}.")
    if stats.gate:
        lines[-1:-1] = about_gate(stats.gate)
    if stats.warning and not was_said(stats.warning):
        lines.append(stats.warning)
    if stats.one_at_a_time:
        lines.append("The model's rows could not be told apart in a batch: they were scored one at a time.")
    if (lost := about_lost(stats.groups, selection.config)) and not was_said(lost):
        lines.append(lost)
    aside = selection.set_aside
    if aside:
        count = stats.set_aside  # a stream names some of them
        first = list(aside)[:_NAMED_ROWS]
        numbers = source_numbers(selection, first) if isinstance(selection, Selection) else first
        named = ", ".join(f"{number} ({aside[row]})" for number, row in zip(numbers, first, strict=True))
        more = f" and {count - _NAMED_ROWS:,} more" if count > _NAMED_ROWS else ""
        lines.append(f"Set aside and never chosen: {count:,} rows, {named}{more}.")
    return Group(table, Text(printable("\n".join(lines))))


def about_choice(selection: Selection | StreamSelection) -> list[str]:
    """Sentences on how rows were chosen: the gate, and groups that lose all."""
    stats = selection.stats
    lines = about_gate(stats.gate) if stats.gate is not None else []
    lost = about_lost(stats.groups, selection.config)
    return [*lines, *([lost] if lost else [])]


def _about_time(selection: Selection | StreamSelection) -> str:
    """How long the stages took; a stream is scored and chosen from in one."""
    stats = selection.stats
    fit, score, choose = (f"{each:.1f} s" for each in (stats.fit_seconds, stats.score_seconds, stats.choose_seconds))
    if isinstance(selection, StreamSelection):
        return f"Time: {fit} to fit, {score} to score and choose."
    return f"Time: {fit} to fit, {score} to score, {choose} to choose."


def _stay_out(rows: int, kind: str = "") -> str:
    return f"1 {kind}row stays out" if rows == 1 else f"{rows:,} {kind}rows stay out"


def about_gate(gate: GateStats) -> list[str]:
    """What stayed out, and how the others were chosen from."""
    if gate.wrong_share is not None:
        share = f"{gate.wrong_share:.1%}".replace("%", " %")
        lines = [f"Gate: none of {gate.judged:,} rows is likely to have a wrong label. Estimated share: {share}."]
        if gate.doubted:
            lines = [
                f"Gate: {gate.doubted:,} of {gate.judged:,} rows may have a wrong label and stay out. Estimated share "
                f"of wrong labels: {share}; sage-hf label-issues lists them."
            ]
    elif gate.method == "cross-fold":
        lines = [f"Gate: the share of wrong labels is not known: {NOTHING_TOLD}."]
    else:
        lines = [f"Gate: {gate.doubted:,} of {gate.judged:,} rows are doubted ({gate.method}) and stay out."]
    if gate.copies:
        looks = "it looks" if gate.copies == 1 else "each looks"
        lines.append(
            f"Near-duplicates: {_stay_out(gate.copies)}, because {looks} the same to the model as another row."
        )
    if gate.recipe is not None:
        hard = f", for which {_stay_out(gate.hard, 'hard ')}, too" if gate.hard else ""
        lines.append(f"Recipe: {gate.recipe}{hard}.")
    if gate.tried:
        told = ", ".join(f"{each.name} {each.accuracy:.1%}".replace("%", " %") for each in gate.tried)
        lines.append(f"Probe (accuracy of a small classifier on rows that are left out): {told}.")
    return lines
