"""What trainings on chosen rows came to: a table, a picture, and what follows from them. Plain numbers throughout."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..errors import ConfigError, OutputError
from ..hub.cards import fill
from ..utils.files import whole_file
from .advice import advise
from .picture import draw_comparison
from .runs import ALL, RANDOM, Arm, Cell, arms_of

FORMAT_VERSION = 1
JSON_NAME = "comparison.json"


@dataclass(frozen=True)
class Comparison:
    """Trainings on the rows that strategies kept, against as many steps on all rows.

    Attributes:
        cells: One a training; those of strategy "all" trained on all rows.
        metric: The number that counts, one of every cell's `metrics`; `dataclasses.replace` names another.
        lower_is_better: Whether less of it is better.
        strategies: In the order in which they were named.
        fractions: Shares of the rows, ascending.
        tolerance: How far below all rows, as a share of what those reach, still counts as reaching it.
        about: What the card tells of the settings, as JSON-ready values.

    Example:
        >>> comparison = Comparison.load("out/compare")
        >>> print(comparison.recommendation)
    """

    cells: list[Cell]
    metric: str
    lower_is_better: bool
    strategies: list[str]
    fractions: list[float]
    tolerance: float = 0.01
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(self.metric not in cell.metrics for cell in self.cells):
            known = sorted({name for cell in self.cells for name in cell.metrics})
            raise ConfigError(f"Not every training has {self.metric!r}", where="metric", fix=f"Use one of {known}.")

    # --------------------------------------------------------------------- read
    @property
    def arms(self) -> list[Arm]:
        """Every strategy at every share, by share, in the strategies' order; each over its seeds."""
        wanted = [(strategy, fraction) for fraction in self.fractions for strategy in self.strategies]
        return arms_of(self.cells, self.metric, wanted)

    @property
    def reference(self) -> Arm:
        """Training on all rows."""
        return arms_of(self.cells, self.metric, [(ALL, 1.0)])[0]

    def arm(self, strategy: str, fraction: float) -> Arm:
        """One strategy at one share.

        Raises:
            ConfigError: It was not trained.
        """
        for each in (*self.arms, self.reference):
            if (each.strategy, each.fraction) == (strategy, fraction):
                return each
        raise ConfigError(
            f"{strategy!r} was not trained at {fraction}",
            where="strategy, fraction",
            fix=f"Use one of {self.strategies} at one of {self.fractions}.",
        )

    @property
    def seeds(self) -> list[int]:
        """Of the trainings."""
        return sorted({cell.seed for cell in self.cells})

    @property
    def recommendation(self) -> str:
        """What follows, in a few sentences: the best strategy, what it gains over random rows, and how few suffice."""
        arms = (self.arms, self.reference)
        return advise(*arms, self.metric, self.lower_is_better, self.strategies, self.tolerance)

    def __str__(self) -> str:
        return f"{len(self.cells)} trainings, judged by {self.metric}. {self.recommendation}"

    # --------------------------------------------------------------------- show
    def table(self) -> RenderableType:
        """Every arm with its interval, and what it gains over random rows with the same seeds; `rich` prints it."""
        held = self._rows()
        columns = ["share", "rows", "strategy", self.metric, f"minus {RANDOM}", "of all"]
        sign = "less is better" if self.lower_is_better else "more is better"
        said = "± is the 95 % interval" if len(self.seeds) > 1 else "one seed, so no interval"
        table = Table(
            title=f"{self.metric} after the same number of steps ({sign}; {said})",
            title_justify="left",
            pad_edge=False,
        )
        for name in columns:
            table.add_column(name, justify="left" if name == "strategy" else "right")
        for place, row in enumerate(held):
            last = place + 1 == len(held) or held[place + 1]["share"] != row["share"]
            texts = (row["share"], row["rows"], row["strategy"], row["value"], row["difference"], row["of_all"])
            table.add_row(*map(Text, texts), end_section=last, style="bold" if row["best"] else None)
        return table

    def plot(self) -> Any:
        """A matplotlib figure: the metric over the share of the rows, a line a strategy, all rows as a band.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        about = (self.metric, self.lower_is_better, self.strategies)
        return draw_comparison(self.arms, self.reference, *about)

    def card(self, picture: str | None = None) -> str:
        """A section of markdown: settings, table, recommendation and picture.

        Args:
            picture: Where the picture is, seen from the card; none by default.
        """
        told = {
            "metric": self.metric,
            "lower_is_better": self.lower_is_better,
            "seeds": self.seeds,
            "tolerance": f"{100 * self.tolerance:g}",
            "rows": self._rows(),
            "about": self.about,
            "recommendation": self.recommendation,
            "picture": picture,
            "judged": len([arm for arm in self.arms if arm.difference is not None]),
        }
        return fill("comparison.md", told)

    def _rows(self) -> list[dict[str, Any]]:
        """What table and card show of every arm, as text."""
        reference = self.reference
        best = {fraction: self._best(fraction) for fraction in self.fractions}
        rows = []
        for arm in (*self.arms, reference):
            is_all = arm.strategy == ALL
            of_all = arm.value.mean / reference.value.mean if reference.value.mean else math.nan
            rows.append(
                {
                    "share": f"{100 * arm.fraction:g} %",
                    "rows": f"{arm.rows:,}",
                    "strategy": arm.strategy,
                    "value": arm.value_text,
                    "difference": arm.difference_text(self.lower_is_better),
                    "of_all": "-" if is_all or not math.isfinite(of_all) else f"{100 * of_all:.1f} %",
                    "best": not is_all and arm.strategy == best[arm.fraction],
                }
            )
        return rows

    def _best(self, fraction: float) -> str:
        """The strategy with the best mean at a share; the first of equals."""
        arms = [arm for arm in self.arms if arm.fraction == fraction]
        return max(arms, key=lambda arm: arm.merit(self.lower_is_better)).strategy if len(arms) > 1 else ""

    # --------------------------------------------------------------------- file
    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, from which `from_dict` makes an equal comparison; arms are in it for other readers."""
        told = {name: getattr(self, name) for name in ("metric", "lower_is_better", "strategies", "fractions")}
        return {
            "format_version": FORMAT_VERSION,
            **told,
            "tolerance": self.tolerance,
            "recommendation": self.recommendation,
            "arms": [arm.to_dict() for arm in (*self.arms, self.reference)],
            "about": self.about,
            "cells": [asdict(cell) for cell in self.cells],
        }

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Comparison:
        """The comparison of `to_dict`.

        Raises:
            OutputError: It is none, or one of another format.
        """
        version = told.get("format_version") if isinstance(told, dict) else None
        if version != FORMAT_VERSION:
            raise OutputError(
                f"The comparison has format {version}, and this sage_hf reads {FORMAT_VERSION}",
                where=JSON_NAME,
                fix="Use the sage_hf that wrote it, or a newer one.",
            )
        names = ("metric", "lower_is_better", "strategies", "fractions", "tolerance", "about")
        try:
            cells = [Cell(**cell) for cell in told["cells"]]
            return cls(cells=cells, **{name: told[name] for name in names})
        except (KeyError, TypeError) as error:
            raise OutputError(
                f"The comparison lacks something: {error}", where=JSON_NAME, fix="Make it again, or restore the file."
            ) from error

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes it as JSON, whole or not at all.

        Args:
            path: A file that ends in .json, or a folder, into which `comparison.json` goes.

        Raises:
            OutputError: It cannot be written.
        """
        target = _file(path)
        with whole_file(target, "Choose a folder that can be written to.") as part:
            part.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Comparison:
        """Reads what `save` or `compare` wrote.

        Args:
            path: The file, or its folder.

        Raises:
            OutputError: There is none, or it cannot be read.
        """
        try:
            told = json.loads(_file(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(
                f"The comparison cannot be read: {error}", where=str(path), fix="Name a folder of sage-hf compare."
            ) from error
        return cls.from_dict(told)


def judged_by(cells: Iterable[Cell]) -> str:
    """The metric that counts: the first that was computed."""
    return next(iter(next(iter(cells)).metrics))


def _file(path: str | os.PathLike[str]) -> Path:
    return Path(path) if Path(path).suffix == ".json" else Path(path) / JSON_NAME
