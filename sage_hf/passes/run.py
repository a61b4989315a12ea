"""One pass over all rows: window by window, shard by shard, shared between processes.

Axes: M rows of a window, B rows of a batch, W numbers of a vector.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor

from ..data.batches import Numbered
from ..data.loader import load
from ..data.windows import Division, Unit, Window
from ..errors import DatasetError, GradientError, OutputError, SageError
from ..gradients.batch_axis import batch_rows, rows_of
from ..gradients.model.failures import ModelError, failing_rows, model_error, one_by_one
from ..utils.bars import Stage, stage
from ..utils.notices import OF_THIS_PROCESS
from ..utils.rng import isolated_rng
from .extractor import Extracted, Extractor, halved, restored, without_tokens
from .gradient_cache import GradientCache
from .job import Pass, PassSettings, Piece, Source
from .merge_tree import MergeTree, Partial
from .processes import Processes
from .resume import FinishedNodes

logger = logging.getLogger(__name__)


class Passes:
    """Runs passes over rows.

    Args:
        extractor: Takes a vector, a number and a status of every row.
        settings: Settings of all passes.
        cache: Where what is extracted is kept; None keeps none.

    Attributes:
        processes: Those that share the work.
        taken: Number of batches that went through the model.
        shards_run: Number of shards that this process has run.
        kept: How much of the last pass is kept on the disk, for people; empty where nothing is.
    """

    def __init__(self, extractor: Extractor, settings: PassSettings, cache: GradientCache | None = None) -> None:
        self.extractor = extractor
        self.settings = settings
        self.cache = cache
        self.processes = Processes(extractor.model)
        self.taken = self.shards_run = 0
        self.kept = ""
        self._computed: set[int] = set()
        self._most_rows = sys.maxsize

    def run(self, source: Source, job: Pass, each: Callable[[Piece], None]) -> Partial:
        """Goes through all windows.

        Args:
            source: The rows.
            job: What is done with them.
            each: Gets what was found in each window.

        Returns:
            What the shards gathered, merged, the same in every process; empty where there are no rows.

        Raises:
            SageError: A row cannot be read, encoded or grouped, or another process failed.
        """
        self.processes.stage = job.title
        run = self._begin(source, job)
        try:
            self._run_windows(run, each)
        finally:
            self.kept = run.about_kept()
        return self.processes.share(run.tree, job.new_partial) if run.rows else job.new_partial()

    def _run_windows(self, run: _Run, each: Callable[[Piece], None]) -> None:
        source, job = run.source, run.job
        windows = source.windows(Division(self.processes.count, self.processes.rank, run.nodes))
        with stage(job.title, job.rows, shown=self.settings.progress) as line:
            while True:
                with self.processes.agreed():
                    window = next(windows, None)
                self._check_alike(window)
                if window is None:
                    run.check_end()
                    break
                run.rows, run.shards = window.first + window.size, window.first_shard + len(window.digests)
                mine = len(window.parts[self.processes.rank])
                if not source.is_stream:
                    count = self.processes.count
                    line.at(f"the part of one of {count} processes" if count > 1 else "", mine)
                piece = self._run_window(run, window, line)
                for column in piece.columns.values():
                    self.processes.gather(column, window.parts)
                self.processes.join(run.tree, job.new_partial)
                if source.is_stream:
                    line.update(window.size - mine)  # what the others have read
                if run.finished is not None and source.is_stream:
                    with self.processes.agreed():
                        if self.processes.rank == 0 and not window.units[0].is_finished:
                            run.keep_new(run.finished, piece)
                each(piece)

    def run_whole(self, source: Source, job: Pass) -> tuple[Partial, Piece]:
        """As `run`, over a dataset, which is one window."""
        pieces: list[Piece] = []
        result = self.run(source, job, pieces.append)
        return result, pieces[0]

    def _begin(self, source: Source, job: Pass) -> _Run:
        """A pass, and what an earlier run has finished of it; what the main process finds, so that all go by it."""
        run = _Run(source, job)
        with self.processes.agreed(), isolated_rng(self.settings.seed):
            if self.settings.folder is not None:
                run.finished = FinishedNodes(self.settings.folder / job.name)
                # What is damaged is found by the main process alone, so that all make the same plan.
                run.nodes = run.finished.find_whole() if self.processes.rank == 0 else []
            if self.processes.together:
                run.spare = source.spare_batch()
        run.nodes = [(start, size) for start, size in self.processes.broadcast_object(run.nodes)]
        return run

    def _run_window(self, run: _Run, window: Window, line: Stage) -> Piece:
        """This process's shards of a window, those that are finished from their files."""
        missing = [unit for unit in window.units if not unit.is_finished]
        # Settled here: the batches that are made ahead are of these shards, whatever another run caches meanwhile.
        # A forward pass that needs all processes cannot be made up for later: what is damaged must be known by now.
        cache = self.cache
        holds = cache and (cache.is_whole if self.processes.together else cache.holds)
        self._computed = {unit.start for unit in missing if not (holds and holds(unit.start, _digest(window, unit)))}
        computed = [window.rows_of(unit) for unit in missing if unit.start in self._computed]
        own = sum(-(-len(rows) // run.source.batch_size) for rows in computed)
        with self.processes.agreed(), ForwardSync(self, own, run.spare):
            status = np.zeros(window.size, dtype=np.uint8)
            # Two arrays, not one: either may outlive the other.
            numbers, values = (np.full(window.size, np.nan, dtype=np.float32) for _ in range(2))
            piece = Piece(window, run.job.codes(window), status, numbers, values)
            batches = load(window.batches, computed, self.settings.workers, self.extractor.device)
            line.skip(sum(len(window.rows_of(unit)) for unit in window.units if unit.is_finished))
            for unit in window.units:
                if unit.is_finished:
                    run.restore(unit, piece)
                    continue
                run.tree.push(self.run_shard(run.job, unit.start, batches, piece, line), unit.start)
                if run.finished is not None and not run.source.is_stream:
                    digests = [] if run.job.settle is None else [run.job.settle(window.rows_of(unit))]
                    run.finished.write(run.tree.nodes[-1], piece.columns_of(unit), digests)
        return piece

    def run_shard(self, job: Pass, number: int, batches: Iterator[Numbered], piece: Piece, line: Stage) -> Partial:
        """One shard: what it gathers; and the rows' columns are filled.

        Args:
            job: What is done with the rows.
            number: The shard's, in the whole source: it seeds what is drawn.
            batches: Row numbers and batches, the shard's next.
            piece: Gets the columns.
            line: Gets the progress.
        """
        self.shards_run += 1
        partial, codes, seen = job.new_partial(), torch.from_numpy(piece.codes), []
        # The same draws in all passes, whoever runs the shard: a random crop must be the same crop.
        with isolated_rng(self.settings.seed + number):
            for rows, extracted in self._rows(number, batches, piece.window):
                seen.append(
                    (rows, extracted.status, extracted.numbers, job.add(partial, rows, codes[rows].long(), extracted))
                )
                line.update(len(rows))
                self.processes.worked()
        for rows, status, numbers, values in seen:  # once a shard, so that no batch waits for the device
            chosen = rows.numpy()
            piece.status[chosen] = status.cpu().numpy()
            piece.numbers[chosen] = numbers.float().cpu().numpy()
            if values is not None:
                piece.values[chosen] = values.cpu().numpy()
        return partial

    def _rows(self, number: int, batches: Iterator[Numbered], window: Window) -> Iterator[tuple[Tensor, Extracted]]:
        """Row numbers and what is extracted of a shard's batches: from the cache, or computed for it."""
        rows = window.rows_of(Unit(number))
        if self.cache is not None and number not in self._computed:
            read = self.cache.read(number, rows.start, self.extractor.device)
            if read is not None:
                return read
            if self.processes.together:  # it was whole when the plan was made
                raise OutputError(
                    "Gradient rows were damaged while the run read them",
                    where=str(self.cache.folder),
                    fix="Start again: they are computed again.",
                )
            # Damaged: computed for this pass, and kept by the next run, which knows what else it has to hold.
            return self._made(load(window.batches, [rows], 0, self.extractor.device), len(rows), window.first)
        made = self._made(batches, len(rows), window.first)
        return made if self.cache is None else self.cache.keep(number, rows, made, _digest(window, Unit(number)))

    def _made(self, batches: Iterator[Numbered], rows: int, first: int) -> Iterator[tuple[Tensor, Extracted]]:
        """What is extracted of the next `rows` rows; the batches of later shards stay where they are."""
        while rows:
            numbers, batch = next(batches)
            rows -= len(numbers)
            if batch is None:
                yield numbers, without_tokens(self.extractor, len(numbers))
                continue
            extracted = self._extract_or_name(numbers + first, batch)
            if not self.processes.together:  # a forward pass needs all processes, and not all make this one
                self.extractor.recheck(numbers + first, batch, extracted)
            yield numbers, self._rounded(extracted)

    def _extract_or_name(self, numbers: Tensor, batch: dict[str, Any]) -> Extracted:
        """As `_extract`; a row that the model fails on is named by its number in the source, `numbers` [B]."""
        try:
            return self._extract(batch)
        except ModelError as error:
            if error.__cause__ is None or self.processes.together:  # other processes take no part in looking
                raise
            failing = next(failing_rows(self.extractor.extract, one_by_one(batch)), None)
            if failing is None:
                raise
            raise model_error(self.extractor.model, error.__cause__, int(numbers[failing])) from error.__cause__

    def extract(self, batch: dict[str, Any]) -> Extracted:
        """A batch's rows as passes take them; in parts, from the first time on that there is no memory for more.

        Raises:
            GradientError: The device has no memory for one row.
        """
        return self._rounded(self._extract(batch))

    def _rounded(self, extracted: Extracted) -> Extracted:
        return replace(extracted, vectors=restored(*halved(extracted.vectors))) if self.settings.is_half else extracted

    def _extract(self, batch: dict[str, Any]) -> Extracted:
        size = batch_rows(batch)
        if size <= self._most_rows:
            try:
                self.taken += 1
                return self.extractor.extract(batch)
            except RuntimeError as error:
                if not isinstance(error, torch.OutOfMemoryError) and not should_reduce_batch_size(error):
                    raise
                if size == 1 or self.processes.together:
                    raise GradientError(
                        f"The device's memory is not enough for the gradients of {size} rows"
                        if size > 1
                        else "The device's memory is not enough for the gradients of one row",
                        where="batch_size, max_length",
                        fix="Shorten the rows, use a narrower projection or sketch, or a smaller type of weights.",
                    ) from error
            # Not in the handler: there, the traceback would keep the memory.
            self._most_rows = (size + 1) // 2
            logger.warning(
                "No memory for batches of %d rows: they are taken %d at a time, with the same result.",
                size,
                self._most_rows,
                extra=OF_THIS_PROCESS,
            )
            torch.cuda.empty_cache()
        most = self._most_rows  # it may fall again while the parts are taken
        parts = [self._extract(rows_of(batch, slice(start, start + most))) for start in range(0, size, most)]
        return Extracted.join(parts)

    def _check_alike(self, window: Window | None) -> None:
        """Processes that read different rows would wait for each other for ever."""
        mine = [window.first, window.size, *window.digests] if window is not None else [0, 0]
        main = self.processes.broadcast_object(mine)
        with self.processes.agreed():
            if main != mine:
                raise DatasetError(
                    f"The processes read different streams: here {mine[1]} rows from number {mine[0]} on, in the main "
                    f"process {main[1]} from number {main[0]} on",
                    where="dataset",
                    fix="Give every process the whole stream, not its part (split_dataset_by_node).",
                )


def _digest(window: Window, unit: Unit) -> int:
    """Of a shard of a stream; 0 of a dataset's."""
    return window.digests[unit.start - window.first_shard] if window.digests else 0


class ForwardSync:
    """Keeps processes in step whose every forward pass needs all of them (FSDP2), in a block that makes some.

    A process that has fewer batches than another makes the rest of the forward passes with rows that it throws away:
    no row counts twice, and nobody waits for ever. After a failure in a forward pass nothing can be made up for,
    because the others are in the middle of it.

    Args:
        passes: Makes the forward passes.
        own: Number of those that this process is to make.
        spare: What to repeat; None where processes need not be in step.
    """

    def __init__(self, passes: Passes, own: int, spare: dict[str, Any] | None) -> None:
        self._passes, self._spare = passes, spare
        self._last = passes.taken + (passes.processes.most(own) if passes.processes.together else 0)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._spare is not None and (error is None or isinstance(error, SageError)):
            while self._passes.taken < self._last:
                self._passes.taken += 1
                self._passes.extractor.extract(self._spare)


@dataclass
class _Run:
    """A pass that is running: its merge tree, and what an earlier run has finished of it."""

    source: Source
    job: Pass
    tree: MergeTree = field(default_factory=MergeTree)
    finished: FinishedNodes | None = None
    nodes: list[tuple[int, int]] = field(default_factory=list)
    spare: dict[str, Any] | None = None
    rows: int = 0
    shards: int = 0

    def about_kept(self) -> str:
        """How much of it is kept on the disk, for people; empty where nothing is."""
        if self.finished is None or not (nodes := self.finished.find()):
            return ""
        size, kept, place = self.source.shard_size, sum(count for _, count in nodes), self.finished.folder.parents[1]
        if self.source.is_stream:
            return f"{kept:,} shards are kept in {place} ({kept * size:,} rows)"
        rows = sum(min((start + count) * size, self.rows) - start * size for start, count in nodes)
        shards = -(-self.rows // size)
        return f"{kept:,} of {shards:,} shards are kept in {place} ({rows:,} of {self.rows:,} rows)"

    def check_end(self) -> None:
        """Refuses a stream that ends before what is finished of it."""
        if self.source.is_stream and self.nodes and sum(self.nodes[-1]) > self.shards:
            raise self._other_stream(self.shards * self.source.shard_size)

    def _other_stream(self, row: int) -> DatasetError:
        assert self.finished is not None
        return DatasetError(
            f"The stream is not the one of the unfinished run: it differs from row {row} on",
            where=str(self.finished.folder.parent),
            fix="Give the same stream again, or delete this folder to start anew.",
        )

    def restore(self, unit: Unit, piece: Piece) -> None:
        """Columns of some finished shards; and the result of the node that begins with them, if one does."""
        assert self.finished is not None
        start, size = next(node for node in self.nodes if node[0] <= unit.start < sum(node))
        window, rows = piece.window, piece.window.rows_of(unit)
        first = (unit.start - start) * window.shard_size
        columns = self.finished.columns(start, size, first, first + unit.size * window.shard_size)
        digests = self.finished.digests(start, size, unit.start - start, unit.start - start + unit.size)
        if len(rows) != len(columns["status"]) or (window.digests and digests != window.digests):
            raise self._other_stream(window.first)
        for name, column in piece.columns.items():
            column[rows.start : rows.stop] = columns[name]
        if unit.start == start:
            partial = self.job.new_partial()
            self.finished.read(start, size, partial)
            self.tree.push(partial, start, size)

    def keep_new(self, finished: FinishedNodes, piece: Piece) -> None:
        """Writes the nodes that the shards of a window have made, in the main process's tree."""
        window, there = piece.window, finished.find()
        for start, size, partial in self.tree.nodes:
            if (start, size) not in there:
                first = max(start, window.first_shard)
                own = Unit(first, max(0, start + size - first))
                digests = window.digests[first - window.first_shard :][: own.size]
                finished.write((start, size, partial), piece.columns_of(own), digests)
