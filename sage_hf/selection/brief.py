"""A selection in about five lines, for `print`."""

from __future__ import annotations

from ..data.stats import GroupStats, SelectionStats
from ..errors import printable

# Groups that are named, and characters of a name.
_NAMED, _LONGEST = 4, 20


def about(stats: SelectionStats, name: str, kind: str) -> list[str]:
    """The lines.

    Args:
        stats: Statistics of the selection.
        name: Its class.
        kind: What it is from: "dataset" or "stream".
    """
    rule = f"Strategy: {stats.strategy}"
    if stats.gate is not None and stats.gate.recipe is not None:
        rule += f" (recipe: {stats.gate.recipe})"
    if stats.targets:
        rule += f", towards {', '.join(stats.targets)}"
    lines = [
        f"{name}: {stats.kept:,} of {stats.rows:,} rows of the {kind} kept ({_percent(stats.kept / stats.rows)})",
        _groups(stats.groups, stats.group_by),
        f"{rule}; mean score {stats.mean_score_kept:.3f}, of all rows {stats.mean_score:.3f}",
        f"The sketch holds {_percent(stats.energy)} of the gradients' energy; {_stayed_out(stats)}",
    ]
    if stats.warning:
        lines.append(stats.warning)
    more = ", .choose(fraction=...) for another share" if kind == "dataset" else ""
    return [*map(printable, lines), f"Go on: .dataset for the rows, .save_to_disk(path), .plot(){more}"]


def _groups(groups: list[GroupStats], column: str | None) -> str:
    if column is None or len(groups) < 2:
        return "Groups: none, all rows share one budget"
    ranked = sorted(groups, key=lambda group: -group.rows)[:_NAMED]
    named = ", ".join(f"{_cut(group.name)} {group.kept:,} of {group.rows:,}" for group in ranked)
    more = f", {len(groups) - _NAMED} more" if len(groups) > _NAMED else ""
    return f"Groups by {column}: {named}{more}"


def _stayed_out(stats: SelectionStats) -> str:
    parts = [f"{stats.set_aside:,} rows set aside"]
    if stats.gate is not None:
        parts.append(f"{stats.gate.doubted:,} doubted")
        parts += [f"{stats.gate.copies:,} near-duplicates"] if stats.gate.copies else []
    return ", ".join(parts)


def _cut(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
