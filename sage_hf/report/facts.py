"""What a report tells: plain values, whatever kind of selection they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..config import SageConfig
from ..data.stats import SelectionStats
from ..hub.pictures import Seen


class Row(Protocol):
    """One row of the source, as it is shown."""

    @property
    def row(self) -> int:
        """Its number in the source."""

    @property
    def outcome(self) -> str:
        """What became of it, such as "kept"."""

    @property
    def score(self) -> float | None:
        """Its agreement in [-1, 1]; None where it has none."""

    @property
    def loss(self) -> float | None:
        """Its loss; None where it is not known."""

    @property
    def group(self) -> str:
        """The name of its group."""

    @property
    def label(self) -> str | None:
        """The name of its class; None where rows have no classes."""

    @property
    def doubt(self) -> float | None:
        """How likely its label is wrong, in [0, 1]; None where it was not judged."""

    @property
    def suggestion(self) -> str | None:
        """The name of the likeliest other class; None where it is not known."""

    @property
    def content(self) -> Mapping[str, Any] | None:
        """Its columns, images decoded; None where the source is not at hand."""


@dataclass(frozen=True)
class RowList:
    """Some rows under a heading.

    Attributes:
        title: The heading.
        about: What kind of rows these are, and in which order.
        rows: The rows that are shown.
        total: Number of all such rows, of which some are shown; None where these are the ends of one order.
    """

    title: str
    about: str
    rows: Sequence[Row]
    total: int | None = None


@dataclass(frozen=True)
class ReportFacts:
    """What a report tells of a selection with N rows and G groups.

    Attributes:
        stats: What the run measured.
        config: The settings.
        seen: What charts show.
        why: Sentences on how rows were chosen: the gate, the recipe, lost groups.
        outcomes: What became of how many rows, such as {"kept": 10, "not chosen": 90}; of N rows in sum.
        typical: Lists of highest, lowest and doubted rows.
        duplicates: Near-duplicates that stayed out; None where nobody looked for them.
        set_aside: Reason to the numbers of the rows that were set aside, of a stream of some of them.
        set_aside_rows: Some of these rows.
        note: What cannot be shown, and what would show it; empty where all is at hand.
    """

    stats: SelectionStats
    config: SageConfig
    seen: Seen
    why: Sequence[str] = ()
    outcomes: Mapping[str, int] = field(default_factory=dict)
    typical: Sequence[RowList] = ()
    duplicates: RowList | None = None
    set_aside: Mapping[str, Sequence[int]] = field(default_factory=dict)
    set_aside_rows: Sequence[Row] = ()
    note: str = ""
