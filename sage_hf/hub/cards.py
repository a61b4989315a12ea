"""What a model's card and a dataset's card both tell of a selection, from a packaged template."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..config import SageConfig
from ..data.stats import GroupStats, SelectionStats
from .markdown import number
from .pictures import PICTURES

TAGS = ("sage", "data-selection")
PAPER = "2510.02470"
# Statistics that are told as they are.
GROUP_HEAD = ("rows", "kept", "set aside", "mean score", "mean score of kept")
_STATS = (
    *("rows", "kept", "set_aside", "consensus", "group_by", "target_weights", "row_width", "sketch_size", "energy"),
    *("strategy", "mean_score", "mean_score_kept", "model_fingerprint", "processes", "versions"),
)
# Groups that a table lists, the largest.
_LISTED_GROUPS = 20


def selection_facts(
    stats: SelectionStats, config: SageConfig, pictures: list[str], folder: str = "sage"
) -> dict[str, Any]:
    """Values of the section of a selection, ready for JSON.

    Args:
        stats: Statistics of the selection.
        config: Its settings.
        pictures: Names of the pictures that are there.
        folder: Their folder, seen from the card.
    """
    listed, others = largest_groups(stats.groups)
    targets = config.target_modules
    return {
        **{name: getattr(stats, name) for name in _STATS},
        "lost_groups": len(stats.lost_groups),
        "budget": f"fraction {config.fraction:g}" if config.fraction else f"{config.num_examples:,} asked for",
        "gate": None if stats.gate is None else asdict(stats.gate),
        "aim": about_aim(stats, config),
        "warning": stats.warning,
        "balance": config.balance,
        "max_row_norm": config.max_row_norm,
        "target_modules": targets if isinstance(targets, str) else ", ".join(targets),
        "error_share": stats.error_bound / stats.squared_norm,
        "seed": config.seed,
        "groups": [vars(group) for group in listed],
        "more_groups": len(others),
        "pictures": [[f"{folder}/{name}.png", PICTURES[name][1]] for name in pictures],
    }


# What a row counts by where there are several targets.
_BY_TARGETS = {"nearest": "its nearest target", "max": "its largest agreement", "mean": "the mean of its agreements"}


def about_aim(stats: SelectionStats, config: SageConfig) -> str:
    """What rows were held against and as what, where it is not the consensus of one model's gradients; else empty."""
    parts = []
    if stats.targets:
        several = f", a row by {_BY_TARGETS[config.target_reduction]}" if len(stats.targets) > 1 else ""
        parts.append(f"towards {', '.join(stats.targets)}{several}")
    if stats.checkpoints is not None:
        weights = ", ".join(f"{weight:.2f}" for weight in stats.checkpoint_weights or ())
        parts.append(f"the mean of {stats.checkpoints} models{f', weighted {weights}' if weights else ''}")
    if stats.adam:
        parts.append("Adam's updates in place of gradients")
    return "; ".join(parts)


def largest_groups(groups: list[GroupStats]) -> tuple[list[GroupStats], list[GroupStats]]:
    """The groups that a table lists, in their order, and the smaller ones, which it counts."""
    ranked = sorted(groups, key=lambda group: -group.rows)
    return sorted(ranked[:_LISTED_GROUPS], key=groups.index), ranked[_LISTED_GROUPS:]


def group_cells(group: GroupStats) -> list[str]:
    """The cells of a table of groups, under `GROUP_HEAD`, as text."""
    counts = [f"{count:,}" for count in (group.rows, group.kept, group.set_aside)]
    return [group.name, *counts, number(group.mean_score), number(group.mean_score_kept)]
