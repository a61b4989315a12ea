"""What a model's card and a dataset's card both tell of a selection, from a packaged template."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from .pictures import PICTURES

TAGS = ("sage", "data-selection")
PAPER = "2510.02470"
# Statistics that are told as they are.
_STATS = (
    *("rows", "kept", "set_aside", "consensus", "group_by", "target_weights", "row_width", "sketch_size", "energy"),
    *("mean_score", "mean_score_kept", "model_fingerprint", "processes", "versions"),
)
# Groups that a table lists, the largest.
_LISTED_GROUPS = 20


def template(name: str) -> str:
    """The text of a packaged template."""
    return (files("sage_hf.hub") / "templates" / name).read_text(encoding="utf-8")


def fill(name: str, values: dict[str, Any]) -> str:
    """A packaged template with its values filled in.

    Raises:
        jinja2.UndefinedError: A value is missing.
    """
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.filters |= {"count": "{:,}".format, "cell": cell, "number": number}
    return environment.from_string(template(name)).render(**values)


def selection_facts(
    stats: dict[str, Any], config: dict[str, Any], pictures: list[str], folder: str = "sage"
) -> dict[str, Any]:
    """Values of the section of a selection, ready for JSON.

    Args:
        stats: Statistics of the selection.
        config: Its settings.
        pictures: Names of the pictures that are there.
        folder: Their folder, seen from the card.
    """
    listed, others = largest_groups(stats)
    targets = config["target_modules"]
    fraction = config["fraction"]
    return {
        **{name: stats[name] for name in _STATS},
        "lost_groups": len(stats.get("lost_groups", [])),
        "budget": f"fraction {fraction:g}" if fraction else f"{config['num_examples']:,} asked for",
        "strategy": stats.get("strategy", config["strategy"]),
        "gate": stats.get("gate"),
        "balance": config["balance"],
        "target_modules": targets if isinstance(targets, str) else ", ".join(targets),
        "error_share": stats["error_bound"] / stats["squared_norm"],
        "seed": config["seed"],
        "groups": listed,
        "more_groups": len(others),
        "pictures": [[f"{folder}/{name}.png", PICTURES[name][1]] for name in pictures],
    }


def largest_groups(stats: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The groups that a table lists, in their order, and the smaller ones, which it counts."""
    groups = sorted(stats["groups"], key=lambda group: -group["rows"])
    return sorted(groups[:_LISTED_GROUPS], key=stats["groups"].index), groups[_LISTED_GROUPS:]


def cell(text: str) -> str:
    """Text that cannot break out of a table's cell, nor become markup."""
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", " ".join(str(text).split())) or "-"


def number(value: float | None) -> str:
    """A score with its sign and three digits."""
    return "-" if value is None else f"{value:+.3f}"
