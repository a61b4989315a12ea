"""What passes learned of the rows of a dataset: all that any strategy chooses from, at any budget."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.groups import Groups
from ..data.stats import FitStats
from ..data.status import SCORED
from ..errors import ConfigError
from ..passes.kept_rows import RowRecords
from ..strategies import SIGNALS, Candidates, Vectors
from ..strategies.base import PartOf
from ..utils.columns import counts_of, picked, places_of
from ..utils.shown import ShortRepr


@dataclass(repr=False)
class RowSignals(ShortRepr):
    """Columns of N rows.

    Attributes:
        groups: The groups of all rows.
        status: [N] uint8, whether each row is scored or why it is set aside, of `data.status`.
        scores: [N] float32 agreement, NaN where a row is set aside.
        losses: [N] float32, the same.
        stats: What the passes measured; None where nobody tells of it.
        labels: [N] classes of the rows, whatever they are grouped by; None where the task has none.
        label_names: The name of each class.
        norms: [N] float32, lengths of the gradients; None where nobody asked, as all that follow.
        sketched: [N, l] z = S g / |g|.
        spectrum: [l] float32, singular values of the sketch, the largest 1.
        embeddings: [N, H].
        inputs: [N, I], what the rows are without a model, see `data.inputs`.
        el2n: [N] float32.
        doubts: [N] float32, how the scoring model doubts each label; NaN where a row has no class.
        progress: Whether strategies show progress.
        records: The file that `sketched`, `embeddings`, `inputs`, `norms`, `el2n` and `doubts` are read from; None
            where they are not from one.
        shares: [G] how the budget is shared between groups that are targets; None leaves it to the balance.
        target_scores: [K, N] agreement with each of several targets, of which `scores` is the largest; else None.
    """

    groups: Groups
    status: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.float32]
    losses: npt.NDArray[np.float32]
    stats: FitStats | None = None
    labels: npt.NDArray[np.integer[Any]] | None = None
    label_names: list[str] | None = None
    norms: npt.NDArray[np.float32] | None = None
    sketched: Vectors | None = None
    spectrum: npt.NDArray[np.float32] | None = None
    embeddings: Vectors | None = None
    inputs: Vectors | None = None
    el2n: npt.NDArray[np.float32] | None = None
    doubts: npt.NDArray[np.float32] | None = None
    shares: npt.NDArray[np.float64] | None = None
    target_scores: npt.NDArray[np.float32] | None = None
    progress: bool = False
    records: RowRecords | None = None

    def read(self, records: RowRecords) -> None:
        """Takes from a file what it holds of every row; nothing is read into memory."""
        self.records = records
        self.sketched, self.embeddings, self.inputs = records.sketched, records.embeddings, records.inputs
        self.norms, self.el2n, self.doubts = (records.column(name) for name in ("norm", "el2n", "doubt"))

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """[N], whether a row has a score."""
        return self.status == SCORED

    def sizes(self, balanced: bool) -> npt.NDArray[np.int64]:
        """[G] rows of each group that have a score; of all together where the groups do not count."""
        if not balanced:
            return np.array([np.count_nonzero(self.usable)])
        return counts_of(self.groups.codes, self.groups.count, self.usable)

    def candidates(
        self, balanced: bool, spectrum_power: float | None, needs: Set[str] = frozenset(SIGNALS)
    ) -> Candidates:
        """The rows that have a score, with what is needed of them; all in one group where the groups do not count."""
        rows = places_of(self.usable)
        return Candidates(
            rows,
            at(self.scores, rows),
            at(self.losses, rows),
            at(self.groups.codes, rows) if balanced else np.zeros(len(rows), dtype=np.uint8),
            norms=at(self.norms, rows) if self.norms is not None and "norms" in needs else None,
            sketched=None if self.sketched is None else PartOf(self.sketched, rows),
            spectrum=self.spectrum,
            embeddings=None if self.embeddings is None else PartOf(self.embeddings, rows),
            el2n=at(self.el2n, rows) if self.el2n is not None and "el2n" in needs else None,
            spectrum_power=spectrum_power,
            progress=self.progress,
        )

    def check(self, strategy: str, needs: Set[str]) -> None:
        """Refuses what a strategy cannot do without.

        Raises:
            ConfigError: Something that it needs is not there.
        """
        lacking = sorted(name for name in needs if getattr(self, name) is None)
        if lacking:
            raise ConfigError(
                f"The strategy {strategy!r} needs {', '.join(lacking)} of every row, which were not stored",
                where="strategy",
                fix=f"Select again with strategy={strategy!r}, and store the signals, as is done by default.",
            )


def at(column: npt.NDArray[Any], rows: npt.NDArray[np.integer[Any]]) -> npt.NDArray[Any]:
    """A column at distinct ascending rows: itself, where these are all."""
    return column if len(rows) == len(column) else picked(column, rows)
