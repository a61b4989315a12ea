"""The page, and its small form: what facts say, laid out by the templates."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from typing import Any

from .. import __version__
from ..config import STRATEGY_LINES, SageConfig
from ..data.stats import GroupStats
from ..hub.cards import about_aim, largest_groups
from .charts import energy_shares, score_charts, spectrum_charts
from .contents import Shown, show
from .environment import environment
from .facts import ReportFacts, Row, RowList
from .words import share_of

# Rows that are named by number for each reason that they were set aside for.
_NAMED = 20
# Groups and charts of the small form.
_SMALL_GROUPS, _SMALL_CHARTS = 10, 3


@dataclass(frozen=True)
class GroupLine:
    """A group in the table: its statistics, its share kept, and that share as a part of the largest."""

    entry: GroupStats
    share: float
    width: float


@dataclass(frozen=True)
class GroupTable:
    """The largest groups, what the smaller ones come to, and where the share of all rows lies."""

    lines: list[GroupLine]
    smaller: int
    others: GroupLine | None
    overall: float
    mark: float


@dataclass(frozen=True)
class Card:
    """A row and what is shown of its columns."""

    row: Row
    shown: Shown | None


@dataclass(frozen=True)
class Cards:
    """Some rows under a heading; `narrow` where pictures are all that they show."""

    title: str
    about: str
    cards: list[Card]
    total: int | None
    narrow: bool


def render_page(facts: ReportFacts) -> str:
    """One file of HTML with the whole report: no script, and nothing from elsewhere.

    Args:
        facts: What to tell.
    """
    return _render("report.html", {**_common(facts), **_whole(facts)})


def render_small(facts: ReportFacts) -> str:
    """The small form, for a notebook's cell: a part of a page, in the colours of what is around it."""
    return _render(
        "small.html",
        {
            **_common(facts),
            "table": group_lines(facts.stats.groups, _SMALL_GROUPS),
            "scores": score_charts(facts.seen, _SMALL_CHARTS),
        },
    )


def group_lines(groups: list[GroupStats], limit: int | None = None) -> GroupTable:
    """The table of the groups.

    Args:
        groups: All groups.
        limit: Number that it lists, the largest; as many as cards list by default.
    """
    listed, _ = largest_groups(groups)
    if limit is not None:
        listed = sorted(sorted(listed, key=lambda group: -group.rows)[:limit], key=groups.index)
    names = {id(group) for group in listed}
    rest = [group for group in groups if id(group) not in names]
    together = GroupStats(
        "", sum(g.rows for g in rest), sum(g.kept for g in rest), sum(g.set_aside for g in rest), None, None
    )
    entries = [*listed, *([together] if rest else [])]
    overall = share_of(sum(g.kept for g in groups), sum(g.rows for g in groups))
    shares = [share_of(entry.kept, entry.rows) for entry in entries]
    widest = max([*shares, overall, 1e-9]) * 1.04
    lines = [GroupLine(entry, share, share / widest) for entry, share in zip(entries, shares, strict=True)]
    return GroupTable(lines[: len(listed)], len(rest), lines[len(listed)] if rest else None, overall, overall / widest)


def cards_of(rows: RowList) -> Cards:
    """A list of rows with what is shown of each."""
    cards = [Card(row, None if row.content is None else show(row.content, row.label is not None)) for row in rows.rows]
    shown = [card.shown for card in cards if card.shown is not None]
    narrow = all(len(each.pictures) == 1 and not each.passages for each in shown) if shown else True
    return Cards(rows.title, rows.about, cards, rows.total, narrow)


def changed_settings(config: SageConfig, row_width: int, weights: int) -> dict[str, str]:
    """Settings that differ from their defaults, as text; numbers that "auto" comes to, too, are no change.

    Args:
        config: The settings, with numbers in the place of "auto".
        row_width: D of the gradient rows.
        weights: Number of weights that they are of.
    """
    defaults = {each.name: each.default for each in fields(SageConfig)}
    settled = SageConfig().settled(row_width, weights)
    values = {
        name: value
        for name, value in config.to_dict().items()
        if value not in (defaults[name], getattr(settled, name))
    }
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in values.items()
    }


def _common(facts: ReportFacts) -> dict[str, Any]:
    stats, config = facts.stats, facts.config
    source, model = stats.source, stats.model
    return {
        "facts": facts,
        "stats": stats,
        "config": config,
        "dataset": source.get("id") or source.get("name") or "a dataset in memory",
        "model": model.get("id") or model.get("class") or "a model in memory",
        "overall": share_of(stats.kept, stats.rows),
        "version": __version__,
    }


def _whole(facts: ReportFacts) -> dict[str, Any]:
    stats, config = facts.stats, facts.config
    shares = energy_shares(facts.seen)
    ranks = sorted({rank for rank in (*(2**power for power in range(20)), len(shares)) if 0 < rank <= len(shares)})
    changed = changed_settings(config, stats.row_width, stats.target_weights)
    python = ", ".join(f"{name}={getattr(config, name)!r}" for name in changed)
    rows = sum(facts.outcomes.values())
    starts = [0, *_running(facts.outcomes.values())]
    return {
        "aim": about_aim(stats, config),
        "strategy_line": STRATEGY_LINES.get(config.strategy, "A strategy of your own."),
        "outcomes": [
            (name, number, share_of(number, rows), share_of(start, rows))
            for (name, number), start in zip(facts.outcomes.items(), starts, strict=False)
        ],
        "table": group_lines(stats.groups),
        "scores": score_charts(facts.seen),
        "spectrum": spectrum_charts(facts.seen),
        "directions": [(rank, float(shares[rank - 1]), float(shares[:rank].sum())) for rank in ranks],
        "lists": [cards_of(each) for each in facts.typical],
        "duplicates": None if facts.duplicates is None else cards_of(facts.duplicates),
        "aside": [(reason, len(rows), rows[:_NAMED]) for reason, rows in facts.set_aside.items()],
        "aside_cards": cards_of(RowList("", "", facts.set_aside_rows)),
        "changed": changed,
        "command": shlex.join(stats.command) if stats.command else None,
        "python": f"SageConfig({python})",
    }


def _running(numbers: Any) -> list[int]:
    total, sums = 0, []
    for number in numbers:
        total += number
        sums.append(total)
    return sums


def _render(name: str, values: dict[str, Any]) -> str:
    return environment("sage_hf.report").get_template(name).render(**values)
