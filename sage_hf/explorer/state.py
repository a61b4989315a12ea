"""What the explorer knows: a selection, another choice from its rows, and marked labels. No gradio here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import STRATEGY_LINES, SageConfig
from ..errors import ConfigError, SageError
from ..selection.resolve import needed, resolve
from ..selection.rows import ROW_VIEWS, ShownRow, numbers_of, rows_at
from ..selection.selection import Selection
from ..strategies import SIGNALS, STRATEGIES
from ..utils.setting_text import from_text
from .marks import Mark, marked

# Rows that changed sides, besides the views of every selection.
ADDED, REMOVED = "newly kept", "no longer kept"
VIEWS = (*ROW_VIEWS, ADDED, REMOVED)


@dataclass(frozen=True)
class Settings:
    """What a person changes.

    Attributes:
        fraction: Share of the rows to keep, in (0, 1]; None leaves the budget as it was.
        strategy: As of `SageConfig`.
        balance: As of `SageConfig`.
        gate: The same, as text: auto, none or a share.
    """

    fraction: float | None
    strategy: str
    balance: str
    gate: str


@dataclass(frozen=True)
class Explored:
    """Where a person is.

    Attributes:
        original: The selection that was opened.
        chosen: What is kept by the settings now; the original at first.
        marks: By row number of the source, what is to be done with its label.
    """

    original: Selection
    chosen: Selection
    marks: Mapping[int, Mark] = field(default_factory=dict)

    @classmethod
    def of(cls, selection: Selection) -> Explored:
        """A selection that was opened just now."""
        return cls(selection, selection)

    def choose(self, settings: Settings) -> Explored:
        """The rows that are kept by other settings, without a model.

        Raises:
            SageError: The settings cannot be, or need what the selection does not know of its rows.
        """
        if settings == settings_of(self.original):
            return replace(self, chosen=self.original)
        chosen = self.original.choose(
            fraction=settings.fraction,
            strategy=settings.strategy,
            balance=settings.balance,
            gate=from_text("gate", settings.gate),
        )
        return replace(self, chosen=chosen)

    def rows(self, numbers: npt.NDArray[np.int64]) -> list[ShownRow]:
        """Rows by their numbers, with what became of them now."""
        rows = rows_at(self.chosen, numbers)
        if self.chosen.source is not None or self.chosen is self.original:
            return rows
        # Without the source, content is known of the rows in the folder: those that the original kept.
        known = rows_at(self.original, numbers)
        return [replace(now, content=was.content, label=was.label) for now, was in zip(rows, known, strict=True)]

    def mark(self, row: int, action: str) -> Explored:
        """Marks the label of a row; an empty action takes the mark away.

        Raises:
            ConfigError: The row has no label that is known.
        """
        marks = {number: each for number, each in self.marks.items() if number != row}
        if action:
            (shown,) = self.rows(np.array([row]))
            marks[row] = marked(self.original, shown, action)
        return replace(self, marks=marks)

    def unmarked(self) -> Explored:
        """Without any mark."""
        return replace(self, marks={})


@dataclass(frozen=True)
class Change:
    """How the choice differs from the original: numbers of rows.

    Attributes:
        rows: N.
        before: Kept by the original.
        now: Kept now.
        added: Kept now alone.
        removed: Kept by the original alone.
    """

    rows: int
    before: int
    now: int
    added: int
    removed: int


@dataclass(frozen=True)
class GroupChange:
    """A group: how many rows it has, how many of these the original kept, and how many are kept now."""

    name: str
    rows: int
    before: int
    now: int


@dataclass(frozen=True)
class Page:
    """Some rows of a view.

    Attributes:
        rows: The rows.
        number: Which page this is, from 0 on.
        pages: Number of pages, at least 1.
        first: Place of the first row in the view, from 0 on.
        total: Number of rows of the view.
        note: Why contents are not shown; empty where they are, or where nothing is to be said.
    """

    rows: list[ShownRow]
    number: int
    pages: int
    first: int
    total: int
    note: str = ""


def settings_of(selection: Selection) -> Settings:
    """The settings that a selection was made by, with the budget as it was."""
    config = selection.config
    gate = "none" if config.gate is None else f"{config.gate:g}" if isinstance(config.gate, float) else config.gate
    return Settings(None, config.strategy, config.balance, gate)


def strategies_of(selection: Selection) -> dict[str, str]:
    """Strategies that the signals of a selection are enough for, and its own, with a line each."""
    signals = selection.signals
    known = {name for name in SIGNALS if signals is not None and getattr(signals, name) is not None}
    config, has_target = selection.config, selection.stats.targets is not None

    def is_possible(name: str) -> bool:
        made = SageConfig.from_dict({**config.to_dict(), "strategy": name})
        return needed(resolve(made, has_target=has_target)) <= known

    names = [name for name in STRATEGIES if is_possible(name)]
    names = ["auto", *names] if "auto" not in names and is_possible("auto") else names
    return {name: STRATEGY_LINES.get(name, "") for name in dict.fromkeys([config.strategy, *names])}


def change_of(state: Explored) -> Change:
    """How the choice differs from the original."""
    before, now = state.original.indices, state.chosen.indices
    both = len(np.intersect1d(before, now, assume_unique=True))
    return Change(len(state.original.scores), len(before), len(now), len(now) - both, len(before) - both)


def groups_of(state: Explored) -> list[GroupChange]:
    """All groups, in the order of their codes."""
    pairs = zip(state.original.stats.groups, state.chosen.stats.groups, strict=True)
    return [GroupChange(now.name, now.rows, before.kept, now.kept) for before, now in pairs]


def view_numbers(state: Explored, view: str, group: int = -1) -> npt.NDArray[np.int64]:
    """Numbers of the rows of a view, in its order.

    Args:
        state: Where a person is.
        view: One of `VIEWS`.
        group: Code of a group; -1 for all.

    Raises:
        ConfigError: There is no such view or group.
    """
    before, now = state.original.indices, state.chosen.indices
    if view == ADDED:
        numbers = np.setdiff1d(now, before, assume_unique=True)
    elif view == REMOVED:
        numbers = np.setdiff1d(before, now, assume_unique=True)
    else:
        numbers = numbers_of(state.chosen, view)
    if not -1 <= group < len(state.chosen.group_names):
        raise ConfigError(f"There is no group {group}", where="group", fix="Choose one of the list.")
    return numbers if group < 0 else numbers[state.chosen.groups[numbers] == group]


def page_of(state: Explored, view: str, group: int, number: int, size: int) -> Page:
    """A page of the rows of a view; the nearest that there is.

    Args:
        state: Where a person is.
        view: One of `VIEWS`.
        group: Code of a group; -1 for all.
        number: Which page, from 0 on.
        size: Number of rows of a page.

    Raises:
        ConfigError: There is no such view or group.
    """
    numbers = view_numbers(state, view, group)
    pages = max(1, -(-len(numbers) // size))
    number = min(max(0, number), pages - 1)
    wanted, note = numbers[number * size : (number + 1) * size], ""
    try:
        rows = state.rows(wanted)
    except (OSError, ValueError, ImportError) as error:  # an image whose file is gone, a decoder that is missing
        rows = rows_at(replace(state.chosen, source=None), wanted)
        note = f"Rows cannot be shown as they are, because reading them failed: {' '.join(str(error).split())}"
    if not note and any(row.content is None for row in rows):
        note = "The original dataset is not available, so rows that were not kept have no content here."
    return Page(rows, number, pages, number * size, len(numbers), note)


def command_of(state: Explored, folder: str | None) -> str:
    """The line that makes the choice again: of the shell where the folder is known, else of Python."""
    before, config = settings_of(state.original), state.chosen.config
    now = settings_of(state.chosen)
    values: dict[str, Any] = {"fraction": config.fraction} if config.fraction is not None else {}
    if config.num_examples is not None:
        values["num_examples"] = config.num_examples
    values |= {name: getattr(now, name) for name in ("strategy", "balance", "gate") if _differs(name, now, before)}
    if folder is not None:
        words = [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        return shlex.join(["sage-hf", "choose", folder, *words, "-o", "NEW_FOLDER"])
    values |= {"gate": config.gate} if "gate" in values else {}
    return f"selection.choose({', '.join(f'{name}={value!r}' for name, value in values.items())})"


def message_of(error: SageError) -> str:
    """An error as a person reads it: what is wrong, and what to do."""
    return f"{error.what}. {error.fix}"


def _differs(name: str, one: Settings, other: Settings) -> bool:
    return bool(getattr(one, name) != getattr(other, name))
