"""A choice from a stream window by window, for strategies that compare rows with each other.

After the first reading the size of every group is known, and so is its quota. The second reading keeps what strategies
need of some tens of thousands of rows at a time; from each window a group gets the part of its quota that falls to its
rows there. Memory does not grow with the stream, and nothing but the stream decides where a window ends.

Axes: M rows of a window, G groups.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..config import SageConfig
from ..data.meaning import MeaningTally
from ..data.stats import GateStats
from ..data.status import SCORED
from ..data.stream import known_codes
from ..passes.extractor import Extracted
from ..passes.fit import Fit
from ..passes.job import Pass, Piece
from ..passes.kept_rows import KeptRows, Widths
from ..passes.merge_tree import Partial
from ..passes.run import Passes
from ..scoring.agreement import agreement, sketched
from ..selection.choice import Settled, choose_within, quotas_for
from ..selection.signals import RowSignals
from ..selection.stream_choice import StreamRows, joined
from ..strategies.base import PartOf
from ..strategies.quotas import resolve_budget
from ..utils.bars import stage
from .gather import chosen_together
from .stages import KEEPING

logger = logging.getLogger(__name__)

# Rows of a window: 60 MB in a temporary file.
WINDOW_ROWS = 2**15
# What a piece tells of its rows.
_COLUMNS = ("codes", "status", "numbers", "values")


class WindowedChoice:
    """Chooses from a stream that passes by, a window at a time.

    Args:
        passes: Runs the second pass.
        fit: What the first pass found, the sizes of groups among it.
        config: The settings.
        has_classes: Whether rows have a class each.
        shard_size: Rows that each process hands over at most.

    Attributes:
        gate: What the gate took out; None where there is none.
        meaning: Of the scores of the rows that were chosen from.

    Raises:
        BudgetError: More is asked than there is.
    """

    def __init__(self, passes: Passes, fit: Fit, config: SageConfig, has_classes: bool, shard_size: int) -> None:
        self.gate: GateStats | None = None
        self._is_warned = False
        self.meaning = MeaningTally()
        self._passes, self._fit, self._config, self._has_classes = passes, fit, config, has_classes
        most = WINDOW_ROWS + passes.processes.count * shard_size
        extractor = passes.extractor
        widths = Widths(int(config.sketch_size), extractor.embedding_width, extractor.input_width)
        self._kept = KeptRows(most, widths)
        self._is_balanced = config.balance != "none"
        self._sizes = fit.group_rows if self._is_balanced else fit.group_rows.sum(keepdims=True)
        budget = resolve_budget(fit.rows, config.fraction, config.num_examples)
        self._quotas = quotas_for(config, self._sizes, budget, say=passes.processes.rank == 0)
        self._seen = np.zeros_like(self._sizes)
        self._held: dict[str, npt.NDArray[Any]] = {}
        self._first = 0  # the number of the first row that is held
        self._chosen: list[StreamRows] = []

    @property
    def job(self) -> Pass:
        """What the second pass does."""
        groups = self._fit.groups
        return Pass(KEEPING, self._write, codes=lambda window: known_codes(groups, window.values), rows=self._fit.rows)

    def _write(self, partial: Partial, rows: Tensor, codes: Tensor, extracted: Extracted) -> Tensor:
        z = sketched(extracted.vectors, self._fit.matrix)
        self._kept.write(rows + self._count, extracted, z)
        return agreement(z, self._fit.directions, codes)

    @property
    def _count(self) -> int:
        """Number of rows that are held."""
        return len(self._held["status"]) if self._held else 0

    def add(self, piece: Piece) -> None:
        """The next rows of the stream, of which this process has written the records of its own."""
        records = self._kept.bytes[self._count : self._count + piece.window.size]
        self._passes.processes.gather(records, piece.window.parts)
        held = [self._held] if self._held else []
        self._held = {
            name: np.concatenate([*(each[name] for each in held), getattr(piece, name)]) for name in _COLUMNS
        }
        while self._count >= WINDOW_ROWS:
            self._choose(WINDOW_ROWS)

    def finish(self) -> StreamRows:
        """The rows to keep, ascending."""
        if self._count:
            self._choose(self._count)
        return joined(self._chosen)

    def _choose(self, count: int) -> None:
        """Chooses from the first rows that are held, and lets them go."""
        signals, before, processes = self._signals(count), self._seen, self._passes.processes
        self.meaning.add(signals.scores, signals.losses, signals.labels, signals.doubts)
        self._seen = before + signals.sizes(self._is_balanced)
        quotas = parts_of_quotas(self._quotas, self._sizes, before, self._seen)
        # Of a window in which a probe could tell nothing, the default was taken for the time being.
        settled = Settled(self._quotas, self.gate.recipe if self.gate and self.gate.tried else None)
        with stage("choosing rows of a window", unit="parts", shown=self._passes.settings.progress):
            choice = chosen_together(
                processes, lambda runner: choose_within(self._config, signals, quotas, runner, settled)
            )
        rows, gate = choice.indices, choice.gate
        groups, scores = signals.groups.codes[rows].astype(np.int64), signals.scores[rows]
        self._chosen.append(StreamRows(rows + self._first, scores, groups, groups, scores))
        if gate is not None:
            self._say_untold(gate)
            self.gate = gate if self.gate is None else self.gate.plus(gate)
        self._kept.array[: self._count - count] = self._kept.array[count : self._count]
        self._held = {name: column[count:] for name, column in self._held.items()}
        self._first += count

    def _say_untold(self, gate: GateStats) -> None:
        """Warns, once, of a window in which no wrong label can be found."""
        if gate.method != "cross-fold" or gate.wrong_share is not None or self._is_warned:
            return
        self._is_warned = True
        if self._passes.processes.rank == 0 and np.count_nonzero(self._sizes) > 1:
            logger.warning(
                "Wrong labels cannot be found in rows %d to %d of the stream: these rows are of one class, or too few "
                "of each. Shuffle the stream (stream.shuffle(buffer_size=...)), or select from a dataset.",
                self._first,
                self._first + gate.judged - 1,
            )

    def _signals(self, count: int) -> RowSignals:
        codes, status, losses, scores = (self._held[name][:count] for name in _COLUMNS)
        rows, kept = np.arange(count), self._kept
        labels = kept.numbers("label", count)
        if labels is None:  # strategies that read no embedding need no label, but whether there are any
            labels = np.zeros(count, dtype=np.int32)
        return RowSignals(
            groups=replace(self._fit.groups, codes=codes.astype(np.int32)),
            status=status,
            scores=np.where(status == SCORED, scores, np.nan),
            losses=np.where(status == SCORED, losses, np.nan),
            labels=labels if self._has_classes else None,
            norms=kept.numbers("norm", count),
            sketched=PartOf(kept.sketched, rows),
            spectrum=self._fit.spectrum,
            embeddings=None if kept.embeddings is None else PartOf(kept.embeddings, rows),
            inputs=None if kept.inputs is None else PartOf(kept.inputs, rows),
            el2n=kept.numbers("el2n", count),
            doubts=kept.numbers("doubt", count),
        )


def parts_of_quotas(
    quotas: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    before: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """[G] how many rows groups give from number `before` to number `after` of their rows.

    The parts of all windows add up to the quota, and none is larger than its window.

    Args:
        quotas: [G], at most the sizes.
        sizes: [G] rows of the groups.
        before: [G] rows that were seen before the window.
        after: [G] rows that were seen after it.
    """
    sizes = np.maximum(sizes, 1)
    first, last = ((2 * quotas * seen + sizes) // (2 * sizes) for seen in (before, after))
    return np.asarray(last - first)
