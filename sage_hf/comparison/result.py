"""What trainings on chosen rows came to: a table, a picture, and what follows from them. Plain numbers throughout."""

from __future__ import annotations

import json
import math
import os
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..errors import ConfigError, OutputError, printable
from ..hub.markdown import fill
from ..utils.checksums import CHECKSUM, UNSEALED, check_seal, seal
from ..utils.files import whole_file
from ..utils.shown import ShortRepr
from .advice import advise
from .intervals import LEAST_COUNT, counting_error, estimate
from .metrics import bounds
from .picture import draw_comparison
from .runs import ALL, RANDOM, Run, RunGroup

FORMAT_VERSION = 2
JSON_NAME = "comparison.json"


@dataclass(frozen=True, repr=False)
class Comparison(ShortRepr):
    """Trainings on the rows that strategies kept, against as many steps on all rows.

    Attributes:
        runs: One a training; those of strategy "all" trained on all rows.
        metric: The number that is compared, one of every run's `metrics`; `dataclasses.replace` names another.
        greater_is_better: Whether more of it is better.
        strategies: In the order in which they were named.
        fractions: Shares of the rows, ascending.
        tolerance: How far a result may lie below that of all rows, as a share of it, and still count as reaching it.
        settings: The settings that the card shows, as JSON-ready values.
        guessing: What always guessing the commonest class of the test rows gets, by metric; empty where there are no
            classes.
        eval_rows: Number of rows to judge by; None where it is not known.

    Example:
        >>> comparison = Comparison.load("out/compare")
        >>> print(comparison.recommendation)
    """

    runs: list[Run]
    metric: str
    greater_is_better: bool
    strategies: list[str]
    fractions: list[float]
    tolerance: float = 0.01
    settings: dict[str, Any] = field(default_factory=dict)
    guessing: dict[str, float] = field(default_factory=dict)
    eval_rows: int | None = None

    def __post_init__(self) -> None:
        if any(self.metric not in run.metrics for run in self.runs):
            known = sorted({name for run in self.runs for name in run.metrics})
            raise ConfigError(f"Not every training has {self.metric!r}", where="metric", fix=f"Use one of {known}.")

    # --------------------------------------------------------------------- read
    @property
    def groups(self) -> list[RunGroup]:
        """Every strategy at every share at which it was trained, by share, in the strategies' order."""
        trained = {(run.strategy, run.fraction) for run in self.runs}
        return [
            self.group(strategy, fraction)
            for fraction in self.fractions
            for strategy in self.strategies
            if (strategy, fraction) in trained
        ]

    @property
    def reference(self) -> RunGroup:
        """Training on all rows."""
        return self.group(ALL, 1.0)

    def group(self, strategy: str, fraction: float) -> RunGroup:
        """One strategy at one share, over its seeds.

        Raises:
            ConfigError: It was not trained.
        """
        runs = self._by_seed(strategy, fraction)
        if not runs:
            raise ConfigError(
                f"{strategy!r} was not trained at {fraction}",
                where="strategy, fraction",
                fix=f"Use one of {self.strategies} at one of {self.fractions}.",
            )
        values = {seed: run.metrics[self.metric] for seed, run in runs.items()}
        lots = self._by_seed(RANDOM, fraction) if strategy not in (RANDOM, ALL) else {}
        # Pairs: the same seed is the same fresh weights, whose luck goes out of the difference.
        pairs = [value - lots[seed].metrics[self.metric] for seed, value in values.items() if seed in lots]
        return RunGroup(
            strategy,
            fraction,
            rows=max(run.rows for run in runs.values()),
            value=estimate(list(values.values())),
            difference=estimate(pairs) if pairs else None,
            greater_is_better=self.greater_is_better,
        )

    def _by_seed(self, strategy: str, fraction: float) -> dict[int, Run]:
        return {run.seed: run for run in self.runs if (run.strategy, run.fraction) == (strategy, fraction)}

    @property
    def seeds(self) -> list[int]:
        """Seeds of the trainings, ascending."""
        return sorted({run.seed for run in self.runs})

    @property
    def learns(self) -> bool:
        """Whether training on all rows beats always guessing the commonest class, by more than the test rows' chance.

        True where there is nothing to hold it against, which holds for losses.
        """
        guess = self.guessing.get(self.metric)
        if guess is None:
            return True
        gain = self.reference.value.mean - guess
        return (gain if self.greater_is_better else -gain) > self.chance

    @property
    def chance(self) -> float:
        """Half the 95 % interval of guessing the commonest class on so many test rows; 0 where it is not known."""
        guess = self.guessing.get(self.metric)
        if guess is None or not self.eval_rows or bounds(self.metric) != (0.0, 1.0):
            return 0.0
        return counting_error(guess, self.eval_rows)

    @property
    def recommendation(self) -> str:
        """What follows, in a few sentences: the best strategy, what it gains over random rows, and how few suffice."""
        return advise(self)

    def __str__(self) -> str:
        return f"{len(self.runs)} trainings, judged by {self.metric}. {self.recommendation}"

    # --------------------------------------------------------------------- show
    def table(self) -> RenderableType:
        """Every group with its interval, and what it gains over random rows with the same seeds; `rich` prints it."""
        sign = "more is better" if self.greater_is_better else "less is better"
        interval = "± is the 95 % interval" if len(self.seeds) > 1 else "one seed, so no interval"
        metric = Text(printable(self.metric))
        table = Table(pad_edge=False)
        for name in ("share", "rows", "strategy", metric, f"minus {RANDOM}", "of all"):
            table.add_column(name, justify="left" if name == "strategy" else "right")
        rows = self._rows()
        for row, following in zip(rows, [*rows[1:], None], strict=True):
            names = ("share", "rows", "strategy", "value", "difference", "of_all")
            texts = [Text(printable(row[name])) for name in names]
            is_last = following is None or following["share"] != row["share"]
            table.add_row(*texts, end_section=is_last, style="bold" if row["best"] else None)
        # Not the table's own title, which breaks where the table ends.
        title = Text(f"{metric} after the same number of steps ({sign}; {interval})", style="italic")
        return Group(title, table)

    def plot(self) -> Any:
        """A matplotlib figure: the metric over the share of the rows, a line a strategy, all rows as a band.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        return draw_comparison(self)

    def card(self, picture: str | None = None) -> str:
        """A section of markdown: settings, table, recommendation, and a picture where its path is given."""
        values = {
            "metric": self.metric,
            "greater_is_better": self.greater_is_better,
            "seeds": self.seeds,
            "tolerance": f"{100 * self.tolerance:g}",
            "rows": self._rows(),
            "settings": self.settings,
            "recommendation": self.recommendation,
            "picture": picture,
            "judged": sum(group.difference is not None for group in self.groups),
        }
        return fill("comparison.md", values)

    def _rows(self) -> list[dict[str, Any]]:
        """What table and card show of every group, as text."""
        groups, reference, rows = self.groups, self.reference, []
        for group in (*groups, reference):
            rivals = [each for each in groups if each.fraction == group.fraction]
            of_all = group.value.mean / reference.value.mean if reference.value.mean else math.nan
            rows.append(
                {
                    "share": f"{100 * group.fraction:g} %",
                    "rows": f"{group.rows:,}",
                    "strategy": group.strategy,
                    "value": group.value.text(),
                    "difference": group.difference_text,
                    "of_all": "-" if group is reference or not math.isfinite(of_all) else f"{100 * of_all:.1f} %",
                    # max takes the first of equals
                    "best": len(rivals) > 1
                    and self.learns
                    and group.value.count >= LEAST_COUNT
                    and group is max(rivals, key=lambda each: each.merit),
                }
            )
        return rows

    # --------------------------------------------------------------------- file
    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, from which `from_dict` makes an equal comparison; groups are in it for other readers."""
        return {
            "format_version": FORMAT_VERSION,
            "recommendation": self.recommendation,
            "groups": [asdict(group) for group in (*self.groups, self.reference)],
            **asdict(self),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Comparison:
        """The comparison of `to_dict`.

        Raises:
            OutputError: It is none, or one of another format.
        """
        version = values.get("format_version") if isinstance(values, dict) else None
        if version != FORMAT_VERSION:
            raise OutputError(
                f"The comparison has format {version}, and this sage_hf reads {FORMAT_VERSION}",
                where=JSON_NAME,
                fix="Compare again, or use the sage_hf that wrote it.",
            )
        try:
            own = {each.name: values[each.name] for each in fields(cls) if each.name in values or _is_needed(each)}
            return cls(**{**own, "runs": [Run(**run) for run in own["runs"]]})
        except (KeyError, TypeError) as error:
            raise OutputError(
                f"The comparison lacks an entry: {error}", where=JSON_NAME, fix="Make it again, or restore the file."
            ) from error

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes it as JSON, whole or not at all: to a file that ends in .json, or as `comparison.json` to a folder.

        Raises:
            OutputError: It cannot be written.
        """
        file = _file(path)
        with whole_file(file, "Choose a folder that can be written to.") as part:
            part.write_text(
                json.dumps({CHECKSUM: UNSEALED, **self.to_dict()}, indent=2, ensure_ascii=False) + "\n",
                encoding="utf-8",
            )
            seal(part)
        return file

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Comparison:
        """Reads what `save` or `compare` wrote, from the file or its folder.

        Raises:
            OutputError: There is none, or it cannot be read.
        """
        try:
            values = json.loads(_file(path).read_text(encoding="utf-8"))
            check_seal(_file(path), is_needed=False)
        except (OSError, ValueError, RecursionError) as error:
            raise OutputError(
                f"The comparison cannot be read: {error}",
                where=str(path),
                fix="Name a folder of sage-hf compare; of a damaged file, compare again: finished trainings are kept.",
            ) from error
        return cls.from_dict(values)


def _is_needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _file(path: str | os.PathLike[str]) -> Path:
    return Path(path) if Path(path).suffix == ".json" else Path(path) / JSON_NAME
