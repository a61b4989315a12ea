"""Which rows of a stream to keep, found while it passes by: a quantile for a fraction, a heap for a number.

Both give exactly the rows that `choose_rows` gives for a dataset of known length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..config import SageConfig
from ..strategies import STRATEGIES, Candidates
from ..strategies.base import take_highest
from ..strategies.quotas import resolve_budget
from .choice import quotas_for

# Parts of [-1, 1] that a histogram counts: 2^-13 wide each.
_BINS = 2**14
# Rows of a block of the score column.
_BLOCK = 2**16


class ScoreHistogram:
    """A streaming quantile of numbers in [-1, 1], for several groups: counts in 2^14 equal bins.

    The rank of a bin's edge is exact; a number between edges is known to 2 / 2^14 = 1.2e-4, whatever the length and
    the order of the stream. Memory is 128 KB a group. Counts of parts of a stream add up, in any order.
    """

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros((1, _BINS), dtype=np.int64)

    def update(self, values: npt.NDArray[np.floating], groups: npt.NDArray[np.integer]) -> None:
        """Counts values [M] in [-1, 1] of groups [M]."""
        most = int(groups.max(initial=0)) + 1
        if most > len(self.counts):
            more = np.zeros((most - len(self.counts), _BINS), dtype=np.int64)
            self.counts = np.concatenate([self.counts, more])
        np.add.at(self.counts, (groups, bins_of(values)), 1)

    def boundary(self, quotas: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where the highest `quotas[g]` values of each group end.

        Returns:
            [G] the bin that the last of them is in (2^14 where there is none): all values in higher bins are among
            them, and none in a lower one; and [G] how many of that bin's are.
        """
        bins, taken = np.full(len(quotas), _BINS, dtype=np.int64), np.zeros(len(quotas), dtype=np.int64)
        for group in np.flatnonzero(quotas):
            above = np.cumsum(self.counts[group, ::-1])
            index = int(np.searchsorted(above, quotas[group]))
            bins[group] = _BINS - 1 - index
            taken[group] = quotas[group] - (above[index - 1] if index else 0)
        return bins, taken


def bins_of(values: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """[M] bins of values in [-1, 1]; a higher value is never in a lower bin."""
    return np.clip((values.astype(np.float64) + 1.0) * (_BINS / 2), 0, _BINS - 1).astype(np.int64)


@dataclass(frozen=True)
class StreamRows:
    """Some rows of a stream.

    Attributes:
        rows: [M] int64, row numbers.
        scores: [M] float32.
        groups: [M] int64.
        shares: [M] int64, the groups that the quotas are for.
        merit: [M], what the strategy goes by.
    """

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int64]
    shares: npt.NDArray[np.int64]
    merit: npt.NDArray[np.floating]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        """All of them; `dataclasses.astuple` would copy every one."""
        return self.rows, self.scores, self.groups, self.shares, self.merit

    def where(self, mask: npt.NDArray[Any]) -> StreamRows:
        """Those under a mask, or at places."""
        return StreamRows(*(column[mask] for column in self.columns))

    def highest(self, quotas: npt.NDArray[np.int64]) -> StreamRows:
        """The `quotas[g]` of highest merit of every share, or all that it has; equal merit goes to the lower row."""
        candidates = Candidates(self.rows, self.scores, self.scores, self.shares)
        return self.where(np.isin(self.rows, take_highest(candidates, self.merit, quotas)))


def joined(parts: Sequence[StreamRows]) -> StreamRows:
    """The rows of all parts, ascending."""
    every = StreamRows(*(np.concatenate(columns) for columns in zip(*(part.columns for part in parts), strict=True)))
    return every.where(np.argsort(every.rows, kind="stable"))


class StreamChoice(Protocol):
    """Gets the rows of a stream in their order, and in the end says which to keep."""

    def add(self, scores: npt.NDArray[np.float32], groups: npt.NDArray[np.int64]) -> None:
        """The next rows: [M] scores, NaN for a row that cannot be chosen, and [M] groups."""
        ...

    def finish(self) -> StreamRows:
        """The rows to keep, ascending.

        Raises:
            BudgetError: More was asked for than there is.
        """
        ...


def choice_for(config: SageConfig) -> StreamChoice:
    """The way to choose under a configuration whose strategy judges rows by themselves.

    Raises:
        BudgetError: Neither a fraction nor a number was given.
    """
    resolve_budget(2**62, config.fraction, config.num_examples)
    return HighestShare(config) if config.fraction is not None else HighestRows(config)


class _Judge:
    """Gives the rows of a stream their numbers and merits, part by part; the draws are those of one call for all."""

    def __init__(self, config: SageConfig) -> None:
        merit = STRATEGIES[config.strategy].merit
        assert merit is not None
        self._merit = merit
        self._is_balanced = config.balance != "none"
        self._generator = np.random.default_rng(config.seed)
        self.count = 0

    def judge(self, scores: npt.NDArray[np.float32], groups: npt.NDArray[Any]) -> StreamRows:
        usable = np.flatnonzero(~np.isnan(scores))
        own = groups[usable].astype(np.int64)
        shares = own if self._is_balanced else np.zeros_like(own)
        merit = self._merit(scores[usable], self._generator)
        part = StreamRows(usable + self.count, scores[usable], own, shares, merit)
        self.count += len(scores)
        return part


class HighestShare:
    """A share of a stream whose length nobody knows: its score column, 4 bytes a row, and a histogram.

    The group of a row takes 1, 2 or 4 bytes more. The histogram tells which bin the last kept row of each group is in;
    only the rows of that bin are sorted. Until the end, when the kept rows are gathered, nothing but the column grows.

    Args:
        config: Fraction, strategy, balance and seed.
    """

    def __init__(self, config: SageConfig) -> None:
        self._config = config
        self._judge = _Judge(config)
        self._histogram = ScoreHistogram()
        self._columns: list[tuple[npt.NDArray[np.float32], npt.NDArray[Any]]] = []
        self._recent: list[tuple[npt.NDArray[np.float32], npt.NDArray[Any]]] = []

    def add(self, scores: npt.NDArray[np.float32], groups: npt.NDArray[np.int64]) -> None:
        """See `StreamChoice`."""
        part = self._judge.judge(scores, groups)
        self._histogram.update(part.merit, part.shares)
        self._recent.append((scores, groups.astype(np.min_scalar_type(int(groups.max(initial=0))))))
        if sum(len(part) for part, _ in self._recent) >= _BLOCK:
            self._gather()

    def _gather(self) -> None:
        """Moves the recent rows into a block of their own: many small arrays would scatter over the heap."""
        if self._recent:
            scores, groups = zip(*self._recent, strict=True)
            self._columns.append((np.concatenate(scores), np.concatenate(groups)))
            self._recent = []

    def finish(self) -> StreamRows:
        """See `StreamChoice`."""
        self._gather()
        budget = resolve_budget(self._judge.count, self._config.fraction, None)
        quotas = quotas_for(self._config, self._histogram.counts.sum(1), budget)
        bins, left = self._histogram.boundary(quotas)
        kept, last = [], []
        for part in self._again():
            places = bins_of(part.merit)
            kept.append(part.where(places > bins[part.shares]))
            last.append(part.where(places == bins[part.shares]))
        return joined([*kept, joined(last).highest(left)])

    def _again(self) -> Iterator[StreamRows]:
        judge = _Judge(self._config)
        return (judge.judge(scores, groups) for scores, groups in self._columns)


class HighestRows:
    """A number of rows of a stream, in a bounded heap a group: at most twice the number in each.

    Args:
        config: Number, strategy, balance and seed.
    """

    def __init__(self, config: SageConfig) -> None:
        assert config.num_examples is not None
        self._config = config
        self._most = config.num_examples
        self._judge = _Judge(config)
        self._sizes: npt.NDArray[np.int64] = np.zeros(1, dtype=np.int64)
        self._held: list[StreamRows] = []
        self._since = 0  # rows that came since the last time that the lowest were dropped
        self._kept = 0

    def add(self, scores: npt.NDArray[np.float32], groups: npt.NDArray[np.int64]) -> None:
        """See `StreamChoice`."""
        part = self._judge.judge(scores, groups)
        counts = np.bincount(part.shares, minlength=len(self._sizes))
        counts[: len(self._sizes)] += self._sizes
        self._sizes = counts
        self._held.append(part)
        self._since += len(part)
        if self._since > max(self._kept, self._most):
            self._held = [joined(self._held).highest(np.minimum(self._sizes, self._most))]
            self._since, self._kept = 0, len(self._held[0])

    def finish(self) -> StreamRows:
        """See `StreamChoice`."""
        budget = resolve_budget(self._judge.count, None, self._most)
        return joined(self._held).highest(quotas_for(self._config, self._sizes, budget))
