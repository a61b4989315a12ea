"""A selection from a stream: what passes count of it, and the second pass, which hands rows to the choice.

Axes: M rows of a window, G groups so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..config import SageConfig
from ..data.columns import class_column
from ..data.encoding import LABEL_COLUMNS
from ..data.meaning import MeaningTally
from ..data.stats import FitStats, GateStats, GroupStats, SelectionStats
from ..data.status import REASONS, SCORED, STATUSES
from ..data.stream import StreamSource, changed, known_codes
from ..passes.fit import Fit
from ..passes.job import Pass, Piece
from ..passes.run import Passes
from ..selection.choice import lost_groups
from ..selection.resolve import compares_rows
from ..selection.stream_choice import StreamRows, choice_for
from ..selection.stream_selection import StreamSelection
from .gather import score_pass
from .stream_windows import WindowedChoice

# Rows that are named when they were set aside.
_NAMED_ROWS = 1000


@dataclass
class StreamTally:
    """What a pass over a stream counts, in a few numbers a group.

    Attributes:
        names: [G] of the groups, where they are known.
        rows: Number of rows.
        group_rows: [G] number of rows of each group.
        group_aside: [G] number of those without a score.
        group_scores: [G] sums of scores.
        losses: Sum of the scored rows' losses.
        set_aside: Row number to reason, of the first 1,000 rows that have no score.
        statuses: Number of rows of each status.
        digests: Digests of the shards.
        meaning: Of the scores.
    """

    names: list[str] = field(default_factory=list)
    rows: int = 0
    group_rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    group_aside: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    group_scores: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    losses: float = 0.0
    set_aside: dict[int, str] = field(default_factory=dict)
    statuses: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(STATUSES, dtype=np.int64))
    digests: list[int] = field(default_factory=list)
    meaning: MeaningTally = field(default_factory=MeaningTally)

    def add(self, piece: Piece) -> None:
        """Counts a window."""
        scored = piece.status == SCORED
        self.rows += len(scored)
        self.statuses += np.bincount(piece.status, minlength=STATUSES)
        self.losses += float(piece.numbers[scored].sum(dtype=np.float64))
        self.digests += piece.window.digests
        self.meaning.add(np.where(scored, piece.values, np.nan), piece.numbers, None, None)
        for name, chosen, weights in (
            ("group_rows", np.ones_like(scored), None),
            ("group_aside", ~scored, None),
            ("group_scores", scored, piece.values.astype(np.float64)),
        ):
            before = getattr(self, name)
            counts = np.bincount(
                piece.codes[chosen], None if weights is None else weights[chosen], minlength=len(before)
            ).astype(before.dtype)  # of no rows at all, NumPy counts in whole numbers
            counts[: len(before)] += before
            setattr(self, name, counts)
        for row in np.flatnonzero(~scored)[: max(0, _NAMED_ROWS - len(self.set_aside))]:
            self.set_aside[int(row) + piece.window.first] = REASONS[int(piece.status[row])]

    def scored_rows(self, count: int) -> npt.NDArray[np.int64]:
        """[count] rows of each group that have a score."""
        rows, aside = (np.pad(each, (0, count - len(each))) for each in (self.group_rows, self.group_aside))
        return rows - aside

    def table(self, kept: StreamRows) -> list[GroupStats]:
        """One entry a group, after the choice."""
        count = len(self.names)
        rows, aside, scores = (
            np.pad(column, (0, count - len(column)))
            for column in (self.group_rows, self.group_aside, self.group_scores)
        )
        chosen = np.bincount(kept.groups, minlength=count)
        kept_scores = np.bincount(kept.groups, kept.scores.astype(np.float64), minlength=count)
        return [
            GroupStats(
                name,
                int(rows[code]),
                int(chosen[code]),
                int(aside[code]),
                float(scores[code] / (rows[code] - aside[code])) if rows[code] > aside[code] else None,
                float(kept_scores[code] / chosen[code]) if chosen[code] else None,
            )
            for code, name in enumerate(self.names)
        ]


def score_stream(
    passes: Passes, source: StreamSource, fit: Fit, job: Pass, take: Callable[[Piece], None]
) -> StreamTally:
    """Pass 2: every row's agreement.

    Args:
        passes: Runs it.
        source: The stream.
        fit: What the first pass found.
        job: What is done with the rows: they are scored.
        take: Gets the rows in their order.

    Returns:
        What was counted.

    Raises:
        DatasetError: The stream does not give the rows of the first pass.
    """
    tally = StreamTally(fit.groups.names)

    def each(piece: Piece) -> None:
        shards = len(tally.digests)
        tally.add(piece)
        if tally.digests[shards:] != fit.digests[shards : len(tally.digests)]:
            raise changed(f"the rows from number {piece.window.first} on are others in the second pass")
        take(piece)

    passes.run(source, job, each)
    if tally.rows != fit.rows:
        raise changed(f"it gave {fit.rows} rows in the first pass and {tally.rows} in the second")
    return tally


def choose_from_stream(
    passes: Passes, source: StreamSource, fit: Fit, config: SageConfig
) -> tuple[StreamTally, StreamRows, GateStats | None]:
    """Pass 2, and the choice: row by row where the strategy judges each by itself, else window by window.

    Args:
        passes: Those of the first pass.
        source: The stream.
        fit: What the first pass found.
        config: The settings.

    Returns:
        What was counted, the rows to keep, and what the gate did.

    Raises:
        DatasetError: The stream does not give the rows of the first pass.
        BudgetError: More was asked for than there is.
    """
    features, model = source.features, passes.extractor.model
    has_classes = features is not None and class_column(features, model) is not None
    if compares_rows(config):
        # No file of finished shards, which would have to hold vectors: a killed run reads the gradient rows again.
        own = Passes(passes.extractor, replace(passes.settings, folder=None), passes.cache)
        windows = WindowedChoice(own, fit, config, has_classes, source.shard_size)
        tally = score_stream(own, source, fit, windows.job, windows.add)
        rows = windows.finish()
        if windows.meaning.judged:  # by its own labels
            tally.meaning = windows.meaning
        else:
            _count_classes(tally, fit, has_classes)
        return tally, rows, windows.gate
    choice = choice_for(config)

    def take(piece: Piece) -> None:
        choice.add(np.where(piece.status == SCORED, piece.values, np.nan), piece.codes.astype(np.int64))

    job = score_pass(fit, lambda window: known_codes(fit.groups, window.values))
    tally = score_stream(passes, source, fit, job, take)
    _count_classes(tally, fit, has_classes)
    return tally, choice.finish(), None


def _count_classes(tally: StreamTally, fit: Fit, has_classes: bool) -> None:
    """How many rows of each class there are, where these are the groups: of others nobody has read the classes."""
    if has_classes and fit.groups.column in LABEL_COLUMNS:
        tally.meaning.classes = tally.scored_rows(fit.groups.count)


def stream_selection(
    passes: Passes,
    source: StreamSource,
    config: SageConfig,
    stats: FitStats,
    chosen: tuple[StreamTally, StreamRows, GateStats | None],
) -> StreamSelection:
    """The selection of what `choose_from_stream` returned.

    Args:
        passes: Those of the selection; their main process says which groups lose every row.
        source: The stream.
        config: The settings.
        stats: What the passes measured.
        chosen: What was counted, the rows to keep, and what the gate did.
    """
    tally, kept, gate = chosen
    table = tally.table(kept)
    scores = int(tally.statuses[SCORED])
    return StreamSelection(
        indices=kept.rows,
        kept_scores=kept.scores,
        kept_groups=kept.groups.astype(np.int32),
        group_names=tally.names,
        set_aside=tally.set_aside,
        stats=SelectionStats(
            **vars(stats),
            strategy=config.strategy,
            rows=tally.rows,
            kept=len(kept),
            set_aside=tally.rows - scores,
            groups=table,
            lost_groups=lost_groups(table, config, say=passes.processes.rank == 0),
            mean_score=float(tally.group_scores.sum() / scores),
            mean_score_kept=float(kept.scores.mean(dtype=np.float64)),
            mean_loss=tally.losses / scores,
            gate=gate,
        ),
        config=config,
        source=source.dataset,
    )
