"""The two passes over a stream: window by window, a shard a process, with what they gather merged on the way.

Axes: B rows of a batch, D row width, l sketch size, G groups so far.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import tqdm
from torch import Tensor

from ..config import SageConfig
from ..data.columns import find_text_classes
from ..data.groups import Groups, say_if_many
from ..data.status import REASONS, SCORED, STATUSES
from ..data.stream import GrowingGroups, HeldRows, StreamSource, Window, changed, known_codes
from ..errors import ConfigError, DatasetError
from ..gradients import GradientCollector
from ..passes.memory import sums_fit
from ..passes.merge_tree import MergeTree, Partial
from ..passes.processes import Processes
from ..passes.run import BAR_DELAY, GradientPasses
from ..passes.stream_resume import StreamCheckpoint, find_stream_checkpoint
from ..scoring.agreement import Consensus
from ..scoring.sketch import FrequentDirections
from ..selection.choice import lost_groups
from ..selection.stream_choice import StreamChoice, StreamRows
from ..selection.stream_selection import StreamSelection

logger = logging.getLogger(__name__)

# Rows that are named when they were set aside.
_NAMED_ROWS = 1000


@dataclass
class StreamTally:
    """What a pass over a stream counts, in a few numbers a group.

    Attributes:
        rows: How many there were.
        group_rows: [G] of each group.
        group_aside: [G] of each group that have no score.
        group_scores: [G] sums of scores.
        losses: Sum of the scored rows' losses.
        set_aside: Row number to reason, of the first 1,000 rows that have no score.
        statuses: How many rows are of each status.
    """

    rows: int = 0
    group_rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    group_aside: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    group_scores: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    losses: float = 0.0
    set_aside: dict[int, str] = field(default_factory=dict)
    statuses: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(STATUSES, dtype=np.int64))

    def add(self, piece: Piece, groups: int) -> None:
        """Counts a window; `groups` is how many groups there are now."""
        scored = piece.status == SCORED
        self.rows += len(scored)
        self.statuses += np.bincount(piece.status, minlength=STATUSES)
        self.losses += float(piece.losses[scored].sum(dtype=np.float64))
        for name, chosen, weights in (
            ("group_rows", np.ones_like(scored), None),
            ("group_aside", ~scored, None),
            ("group_scores", scored, piece.values.astype(np.float64)),
        ):
            counts = np.bincount(piece.codes[chosen], None if weights is None else weights[chosen], minlength=groups)
            before = getattr(self, name)
            counts = counts.astype(before.dtype)  # of no rows at all, NumPy counts in whole numbers
            counts[: len(before)] += before
            setattr(self, name, counts)
        for row in np.flatnonzero(~scored)[: max(0, _NAMED_ROWS - len(self.set_aside))]:
            self.set_aside[int(row) + piece.first] = REASONS[int(piece.status[row])]

    def stats(self, kept: StreamRows, names: list[str]) -> dict[str, Any]:
        """The counts as a selection's `stats` has them, after the choice."""
        chosen = np.bincount(kept.groups, minlength=len(names))
        kept_scores = np.bincount(kept.groups, kept.scores.astype(np.float64), minlength=len(names))
        scored = self.group_rows - self.group_aside
        table = [
            {
                "name": name,
                "rows": int(self.group_rows[code]),
                "kept": int(chosen[code]),
                "set_aside": int(self.group_aside[code]),
                "mean_score": float(self.group_scores[code] / scored[code]) if scored[code] else None,
                "mean_score_kept": float(kept_scores[code] / chosen[code]) if chosen[code] else None,
            }
            for code, name in enumerate(names)
        ]
        return {
            "rows": self.rows,
            "kept": len(kept),
            "set_aside": int(self.group_aside.sum()),
            "mean_score": float(self.group_scores.sum() / scored.sum()),
            "mean_score_kept": float(kept.scores.mean(dtype=np.float64)),
            "mean_loss": self.losses / int(scored.sum()),
            "groups": table,
        }


@dataclass(frozen=True)
class Piece:
    """What a pass found in a window of M rows, the same in every process.

    Attributes:
        first: The number of its first row.
        codes: [M] int64 groups.
        status: [M] uint8.
        losses: [M] float32.
        values: [M] float32, what the pass's `add` returned; NaN where nothing.
        digests: Of what was read, a number a shard.
    """

    first: int
    codes: npt.NDArray[np.int64]
    status: npt.NDArray[np.uint8]
    losses: npt.NDArray[np.float32]
    values: npt.NDArray[np.float32]
    digests: list[int]


class StreamPasses:
    """Passes over one stream; with several processes, each reads all rows and takes the gradients of its shards.

    Args:
        collector: Takes the gradients.
        config: The settings.
        source: The stream.
        progress: Whether passes show a progress bar.
        checkpoint_dir: Folder for what is finished; None keeps nothing.
        outside: What else the user gave, of which what is finished depends.

    Attributes:
        tally: Of the last pass.
        shards_run: Shards that this process has taken the gradients of.
    """

    def __init__(
        self,
        collector: GradientCollector,
        config: SageConfig,
        source: StreamSource,
        progress: bool,
        checkpoint_dir: Path | None,
        outside: Sequence[Any],
    ) -> None:
        self.collector = collector
        self.config = config
        self.source = source
        self.processes = Processes(collector.model)
        self.tally = StreamTally()
        self._growing = GrowingGroups(source.group_column, source.class_names)
        self._progress = progress
        self._passes = GradientPasses(
            collector,
            config.seed,
            self.processes.count * source.shard_size,
            progress,
            recheck_every=config.recheck_every if config.check_gradients else 0,
        )
        self.shards_run = 0
        self._checkpoint = find_stream_checkpoint(checkpoint_dir, config, collector, source.example, outside)
        self._digests: list[int] = []  # of the first pass, a number a shard

    def fit(self) -> tuple[Partial, Groups]:
        """Pass 1: sketch and sums of directions, and the groups that were met, ordered by value.

        Raises:
            SageError: A row cannot be encoded or grouped, or another process failed.
        """
        width, device = self.collector.width, self.collector.device
        growing = self._growing

        def new_partial() -> Partial:
            sketch = FrequentDirections(self.config.sketch_size, width, device=device)
            return Partial(sketch, Consensus(growing.count, width, device=device))

        def add(partial: Partial, gradients: Tensor, codes: Tensor) -> None:
            assert partial.sketch is not None and partial.consensus is not None
            partial.sketch.update(gradients)
            partial.consensus.grow(growing.count)
            partial.consensus.update(gradients, codes)

        def codes_of(window: Window) -> npt.NDArray[np.int64]:
            before = growing.count
            codes = growing.codes(window.values, window.first)
            if growing.count > before and not sums_fit(growing.count, width):
                raise ConfigError(
                    f"The stream has {growing.count} groups or more, whose directions do not fit into the memory",
                    where="group_by",
                    fix="Group by a column with fewer values, use a narrower projection, or pass group_by=None.",
                )
            return codes

        self.tally = StreamTally()
        results: list[Partial] = []
        for piece in self._pieces("sketching gradients", codes_of, new_partial, add, results):
            self._digests += piece.digests
            self.tally.add(piece, growing.count)
        if not self.tally.rows:
            raise changed("it was empty when it was read again")
        (result,) = results
        groups, order = growing.settle()
        say_if_many(logger, self.collector.model, groups.column, groups.count, self.tally.rows)
        assert result.consensus is not None
        result.consensus.grow(growing.count)
        result.consensus.sums = result.consensus.sums[order]
        return result, groups

    def score(
        self, groups: Groups, agree: Callable[[Tensor, Tensor], Tensor], choice: StreamChoice
    ) -> StreamSelection:
        """Pass 2: every row's agreement, and the choice.

        Args:
            groups: Those of the first pass.
            agree: (gradients [B, D], codes [B]) -> [B] scores.
            choice: Gets them in the order of the stream.

        Returns:
            The selection; its `stats` lack what is known of the fit.

        Raises:
            DatasetError: The stream does not give the rows of the first pass.
        """
        before, self.tally = self.tally, StreamTally()
        pieces = self._pieces(
            "scoring agreement",
            lambda window: known_codes(groups, window.values),
            Partial,
            lambda _, gradients, codes: agree(gradients, codes),
            [],
        )
        shards = 0
        for piece in pieces:
            if piece.digests != self._digests[shards : shards + len(piece.digests)]:
                raise changed(f"the rows from number {piece.first} on are others in the second pass")
            shards += len(piece.digests)
            self.tally.add(piece, groups.count)
            choice.add(np.where(piece.status == SCORED, piece.values, np.nan), piece.codes)
        if self.tally.rows != before.rows:
            raise changed(f"it gave {before.rows} rows in the first pass and {self.tally.rows} in the second")
        kept = choice.finish()
        stats = self.tally.stats(kept, groups.names)
        stats["lost_groups"] = lost_groups(stats["groups"], self.config, say=self.processes.rank == 0)
        about = (self.collector.model, self.source.features, self.source.encoder)
        stats["classes"] = find_text_classes(*about, lambda name: groups.code_of if groups.column == name else ())
        return StreamSelection(
            indices=kept.rows,
            scores=kept.scores,
            groups=kept.groups.astype(np.int32),
            group_names=groups.names,
            set_aside=self.tally.set_aside,
            stats=stats,
            config=self.config.to_dict(),
            source=self.source.dataset,
        )

    def _pieces(
        self,
        title: str,
        codes_of: Callable[[Window], npt.NDArray[np.int64]],
        new_partial: Callable[[], Partial],
        add: Callable[[Partial, Tensor, Tensor], Tensor | None],
        results: list[Partial],
    ) -> Iterator[Piece]:
        """Goes through the stream; the whole result is in `results` afterwards, the same in every process."""
        rank, passes, tree = self.processes.rank, self._passes, MergeTree()
        kept, done = self._finished(title, tree, new_partial)
        windows = self.source.windows(self.processes.count, rank, done)
        values = np.full(len(passes.status), np.nan, dtype=np.float32)
        first = self.source.beginning() if self.processes.together else HeldRows(self.source.encoder, 1)
        alone = [range(row, row + 1) for row in range(len(first.rows))]
        hidden = None if self._progress else True
        with tqdm(desc=title, unit="row", delay=BAR_DELAY, leave=False, disable=hidden) as bar:
            while True:
                window, failure, turns = None, None, None
                passes.status[:], passes.losses[:], values[:] = SCORED, np.nan, np.nan
                try:
                    window = next(windows)
                    passes.recheck.first = window.first
                    if window.is_finished:
                        assert kept is not None
                        self._restore(kept, window, done, values)
                    elif window.size:
                        turns = passes.turns(-(-len(window.parts[rank]) // self.source.batch_size), first, alone)
                    codes = codes_of(window)
                    if not window.is_finished and (own := window.parts[rank]):
                        lookup, partial = torch.from_numpy(codes), new_partial()
                        passes.run_shard(
                            window.held.batches(own),
                            window.number,
                            own,
                            partial,
                            lambda partial, rows, gradients, lookup=lookup: add(partial, gradients, lookup[rows]),  # type: ignore[misc]
                            values,
                            bar,
                        )
                        tree.push(partial, window.number)
                        self.shards_run += 1
                except Exception as error:
                    failure = error
                if turns is not None:
                    turns.finish(failure)
                self.processes.agree(failure)
                assert window is not None
                self._check_alike(window)
                if not window.size:
                    break
                columns: dict[str, npt.NDArray[Any]] = {
                    "status": passes.status,
                    "losses": passes.losses,
                    "values": values,
                }
                if not window.is_finished:
                    for column in columns.values():
                        self.processes.gather(column, window.parts)
                    self.processes.join(tree, new_partial)
                found = {name: column[: window.size].copy() for name, column in columns.items()}
                if kept is not None and not window.is_finished:
                    shards = window.number - rank + len(window.digests)
                    self._keep(kept, tree, found, window.digests, shards)
                yield Piece(window.first, codes, **found, digests=window.digests)
        if window.first:
            results.append(self.processes.share(tree, new_partial))

    def _finished(
        self, title: str, tree: MergeTree, new_partial: Callable[[], Partial]
    ) -> tuple[StreamCheckpoint | None, int]:
        """What an earlier run has kept of a pass, and how many shards; the main process's tree holds their nodes."""
        kept, failure = None, None
        try:
            if self._checkpoint is not None:
                kept = StreamCheckpoint(self._checkpoint / title.replace(" ", "-"))
                if self.processes.rank == 0:
                    kept.load(tree, new_partial)
        except Exception as error:
            failure = error
        self.processes.agree(failure)
        # What the main process finds, so that all go by the same.
        ((shards, _),) = self.processes.from_main([kept.done if kept is not None else (0, 0)])
        return kept, shards

    def _restore(self, kept: StreamCheckpoint, window: Window, done: int, values: npt.NDArray[np.float32]) -> None:
        """The columns of a window that an earlier run has finished."""
        number = window.number - self.processes.rank
        if not window.size or window.digests != kept.digests(number, min(self.processes.count, done - number)):
            raise DatasetError(
                f"The stream is not that of the run that was not finished: rows from number {window.first} on differ",
                where=str(kept.folder),
                fix="Give the same stream again, or delete this folder to start anew.",
            )
        columns = kept.columns(window.first, window.size)
        self._passes.status[: window.size] = columns["status"]
        self._passes.losses[: window.size] = columns["losses"]
        values[: window.size] = columns["values"]

    def _keep(
        self,
        kept: StreamCheckpoint,
        tree: MergeTree,
        columns: dict[str, npt.NDArray[Any]],
        digests: list[int],
        shards: int,
    ) -> None:
        """The main process writes; where it fails, all do."""
        failure = None
        if self.processes.rank == 0:
            try:
                kept.append(tree, columns, digests, shards)
            except Exception as error:
                failure = error
        self.processes.agree(failure)

    def _check_alike(self, window: Window) -> None:
        """Processes that read different rows would wait for each other for ever."""
        mine = [(window.first, window.size), *((digest, 0) for digest in window.digests)]
        main = self.processes.from_main(mine)
        self.processes.agree(
            None
            if main == mine
            else DatasetError(
                f"The processes read different streams: here {window.size} rows from number {window.first} on, in the "
                f"main process {main[0][1]} from number {main[0][0]} on",
                where="dataset",
                fix="Give every process the whole stream, not its part (split_dataset_by_node).",
            )
        )
