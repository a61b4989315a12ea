"""A diagnosis: all that was found, in words for a person and in values for a program."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Group, RenderableType

from ..utils.console import PlainConsole
from .findings import SEVERITIES, CheckFindings, ModelFindings, Problem, RowFindings, Space, TimeFindings
from .text import render_check, render_model, render_problems, render_rows, render_spaces

_WIDTH = 80


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        model: The model, and which weights are targeted by which rule.
        spaces: Memory and disk that a selection takes, or would take with other settings.
        rows: The dataset; None without one.
        check: Whether rows that share a batch can be told apart; None without a dataset.
        time: What a selection would take; None where nothing could be timed.
        problems: What to change, in order of importance.
    """

    model: ModelFindings
    spaces: tuple[Space, ...]
    rows: RowFindings | None
    check: CheckFindings | None
    time: TimeFindings | None
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether no problem is an error."""
        return all(problem.severity != "error" for problem in self.problems)

    def with_problems(self, more: Iterable[Problem]) -> Diagnosis:
        """The same with more problems, each behind those that are as bad."""
        return replace(self, problems=by_severity([*self.problems, *more]))

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready values."""
        return {"ok": self.ok, **asdict(self)}

    def __rich__(self) -> RenderableType:
        """The report."""
        count = None if self.rows is None else self.rows.rows
        parts = [*render_model(self.model), *render_spaces(self.spaces)]
        if self.rows is not None:
            parts += render_rows(self.rows)
        return Group(*parts, *render_check(self.check, self.time, count), *render_problems(self.problems))

    def __str__(self) -> str:
        """The report as plain text of 80 columns."""
        text = io.StringIO()
        PlainConsole(file=text, width=_WIDTH, color_system=None, legacy_windows=False).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def by_severity(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Errors, then warnings, then notes, each in the order in which they were found."""
    return tuple(sorted(problems, key=lambda problem: SEVERITIES.index(problem.severity)))
