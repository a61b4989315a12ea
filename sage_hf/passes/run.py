"""One pass over a dataset: every row's gradient, once, shard by shard.

Axes: N rows of the dataset, B rows of a batch, D row width.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import tqdm
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor

from ..data.batches import BatchSource, Numbered, RowSource
from ..data.loader import load
from ..data.status import NO_TOKENS, NOT_FINITE, SCORED, ZERO_GRADIENT
from ..errors import GradientError, SageError
from ..gradients import GradientCollector
from ..gradients.batch_axis import batch_rows, rows_of
from ..utils.rng import isolated_rng
from .gradient_cache import GradientCache
from .merge_tree import MergeTree, Partial
from .processes import Processes
from .recheck import Recheck
from .resume import FinishedNodes, Unit, divide

logger = logging.getLogger(__name__)

# A progress bar appears after this many seconds.
BAR_DELAY = 2.0


class GradientPasses:
    """Runs passes over one dataset, and keeps what every pass learns of its rows.

    Args:
        collector: Takes the gradients.
        seed: Of what the model or a transform of the dataset draws.
        num_rows: N.
        progress: Whether passes show a progress bar.
        cache: Where gradient rows are kept; None keeps none.
        checkpoint: Folder for what is finished, of these passes alone; None keeps nothing.
        workers: Processes that make batches ahead.
        recheck_every: Of so many rows one is compared with itself alone while a pass runs; 0 compares none.

    Attributes:
        status: [N] uint8, whether each row is scored or why it is set aside.
        losses: [N] float32, each row's own loss.
        last_parts: The rows of every process in the last pass.
        taken: BatchSource that went through the model.
        recheck: Compares a row now and then with itself alone.
    """

    def __init__(
        self,
        collector: GradientCollector,
        seed: int,
        num_rows: int,
        progress: bool = True,
        cache: GradientCache | None = None,
        checkpoint: Path | None = None,
        workers: int = 0,
        recheck_every: int = 0,
    ) -> None:
        self.collector = collector
        self.seed = seed
        self.progress = progress
        self.cache = cache
        self.checkpoint = checkpoint
        self.workers = workers
        self.last_parts: list[range] = []
        self.taken = 0
        self._computed: set[int] = set()
        self._most_rows = sys.maxsize
        self.recheck = Recheck(collector, recheck_every)
        self.processes = Processes(collector.model)
        self.status: npt.NDArray[np.uint8] = np.zeros(num_rows, dtype=np.uint8)
        self.losses: npt.NDArray[np.float32] = np.full(num_rows, np.nan, dtype=np.float32)

    def run(
        self,
        source: RowSource,
        title: str,
        new_partial: Callable[[], Partial],
        add: Callable[[Partial, Tensor, Tensor], Tensor | None],
        settle: Callable[[], None] | None = None,
    ) -> tuple[Partial, npt.NDArray[np.float32]]:
        """Runs over all shards and merges what they gather; of several processes each over its share of them.

        Args:
            source: The dataset.
            title: Of the progress bar.
            new_partial: Makes what a shard gathers into.
            add: Gets each batch's row numbers [B] and gradients [B, D], those of unusable rows as zeros.
            settle: Puts what `add` wrote elsewhere onto the disk, before a shard counts as finished.

        Returns:
            What the shards gathered, merged; and what `add` returned for the rows, if anything, as [N]. The same in
            every process.

        Raises:
            SageError: Another process failed.
        """
        shards = source.shards()
        finished = FinishedNodes(self.checkpoint / title.replace(" ", "-")) if self.checkpoint is not None else None
        shares = divide(len(shards), self._find(finished), self.processes.count)
        missing = [unit.start for unit in shares[self.processes.rank] if not unit.is_finished]
        # Settled here: the batches that are made ahead are of these shards, whatever another run caches meanwhile.
        self._computed = {number for number in missing if not (self.cache and self.cache.holds(number))}
        computed = [shards[number] for number in sorted(self._computed)]
        loaded = load(source, computed, self.workers, self.collector.device)
        turns = self.turns(sum(-(-len(shard) // source.batch_size) for shard in computed), source, shards)
        parts = [_rows(shards, units) for units in shares]
        values = np.full(len(self.status), np.nan, dtype=np.float32)
        columns: dict[str, npt.NDArray[Any]] = {"status": self.status, "losses": self.losses, "values": values}
        tree, failure = MergeTree(), None
        try:
            hidden = None if self.progress else True  # None leaves it to accelerate: on the main process
            own = len(parts[self.processes.rank])
            with tqdm(total=own, desc=title, unit="row", delay=BAR_DELAY, leave=False, disable=hidden) as bar:
                for unit in shares[self.processes.rank]:
                    partial = new_partial()
                    if unit.is_finished:
                        assert finished is not None
                        part = _rows(shards, [unit])
                        for name, found in finished.read(unit.start, unit.size, partial).items():
                            columns[name][part.start : part.stop] = found
                        bar.update(len(part))
                    else:
                        self.run_shard(loaded, unit.start, shards[unit.start], partial, add, values, bar)
                    tree.push(partial, unit.start, unit.size)
                    if finished is not None and not unit.is_finished:
                        if settle is not None:
                            settle()
                        start, size, node = tree.nodes[-1]
                        part = _rows(shards, [Unit(start, size, True)])
                        kept = {name: column[part.start : part.stop] for name, column in columns.items()}
                        finished.write(start, size, node, kept)
        except Exception as error:
            failure = error
        turns.finish(failure)
        self.processes.agree(failure)
        for column in columns.values():
            self.processes.gather(column, parts)
        self.last_parts = parts
        return self.processes.merge(tree, new_partial), values

    def turns(self, own: int, source: BatchSource, parts: Sequence[range]) -> ForwardSync:
        """The forward passes of all processes, where each needs all of them.

        Args:
            own: How many this process is to make.
            source: Makes a batch of the first of `parts` that has tokens for a process that has no more of its own.
            parts: Rows that are there in every process.
        """
        if not self.processes.together:
            return ForwardSync(self, 0, {})
        most = self.processes.most(own)
        with isolated_rng(self.seed):
            made = (batch for part in parts for _, batch in source.batches(part) if batch is not None)
            return ForwardSync(self, most if (batch := next(made, None)) else 0, batch or {})

    def _find(self, finished: FinishedNodes | None) -> list[tuple[int, int]]:
        """The nodes that are finished; what the main process finds, so that all go by the same."""
        if finished is None:
            return []
        return [(start, size) for start, size in self.processes.from_main(finished.find())]

    def run_shard(
        self,
        batches: Iterator[Numbered],
        number: int,
        shard: range,
        partial: Partial,
        add: Callable[[Partial, Tensor, Tensor], Tensor | None],
        values: npt.NDArray[np.float32],
        bar: Any,
    ) -> Partial:
        """One shard: `partial` gathers, and the rows' columns are filled.

        Args:
            batches: Row numbers and batches, the shard's next.
            number: The shard's, in the whole dataset: it seeds what is drawn.
            shard: The rows, by the numbers that columns go by.
            partial: Gathers.
            add: As for `run`.
            values: [N], gets what `add` returns.
            bar: Gets the progress.
        """
        seen: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = []
        # The same draws in both passes, whoever runs the shard: a random crop must be the same crop.
        with isolated_rng(self.seed + number):
            for rows, gradients, losses, status in self._batches(batches, number, shard):
                seen.append((rows, losses, status, add(partial, rows, gradients)))
                bar.update(len(rows))
        for rows, losses, status, value in seen:  # once a shard, so that no batch waits for the device
            chosen = rows.numpy()
            self.status[chosen] = np.maximum(self.status[chosen], status.cpu().numpy())
            self.losses[chosen] = losses.float().cpu().numpy()
            if value is not None:
                values[chosen] = value.cpu().numpy()
        return partial

    def _batches(
        self, batches: Iterator[Numbered], number: int, shard: range
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Row numbers, gradients, losses and status of a shard's batches: from the cache, or computed for it."""
        cache = self.cache
        if cache is not None and number not in self._computed:
            yield from cache.read(number, self.collector.device)
            return
        writer = cache.start(number, len(shard), self.collector.width) if cache is not None else None
        try:
            for rows, batch in _of_shard(batches, shard):
                if batch is None:
                    gradients, losses, status = self.nothing(len(rows))
                else:
                    gradients, losses, status = self.gradients(batch)
                    if not self.processes.together:  # a forward pass needs all processes, and not all make this one
                        self.recheck.look_at(rows, batch, gradients, losses, status)
                if writer is not None:
                    gradients = writer.add(rows, gradients, losses, status)
                yield rows, gradients, losses, status
        except BaseException:
            if writer is not None:
                writer.drop()
            raise
        if writer is not None:
            writer.finish()

    def nothing(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """What `gradients` is for rows without tokens, of which the model sees nothing."""
        device = self.collector.device
        gradients = torch.zeros(rows, self.collector.width, dtype=self.collector.dtype, device=device)
        status = torch.full((rows,), NO_TOKENS, dtype=torch.uint8, device=device)
        return gradients, torch.full((rows,), torch.nan, device=device), status

    def take(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """What a pass takes of a batch: a vector and a number for each row, here gradients [B, D] and losses [B]."""
        return self.collector.collect(batch)

    def _collect(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """A batch's rows and losses; in parts, from the first time on that the device has no memory for more."""
        size = batch_rows(batch)
        if size <= self._most_rows:
            try:
                self.taken += 1
                return self.take(batch)
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
            )
            torch.cuda.empty_cache()
        most = self._most_rows  # it may fall again while the parts are taken
        parts = [self._collect(rows_of(batch, slice(start, start + most))) for start in range(0, size, most)]
        return torch.cat([rows for rows, _ in parts]), torch.cat([losses for _, losses in parts])

    def gradients(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients [B, D] with zeros for rows that are set aside, losses [B], status [B] uint8."""
        gradients, losses = self._collect(batch)
        squared = gradients.to(torch.float64).square().sum(1)
        finite = squared.isfinite() & losses.isfinite()
        status = torch.where(squared == 0, ZERO_GRADIENT, SCORED)
        status = torch.where(finite, status, NOT_FINITE).to(torch.uint8)
        return torch.where(finite[:, None], gradients, 0.0), losses, status


class ForwardSync:
    """Keeps processes in step whose every forward pass needs all of them (FSDP2).

    A process that has fewer batches than another makes the rest of the forward passes with rows that it throws away:
    no row counts twice, and nobody waits for ever.

    Args:
        passes: Makes the forward passes.
        count: How many the process with the most batches makes.
        batch: What to repeat.
    """

    def __init__(self, passes: GradientPasses, count: int, batch: dict[str, Any]) -> None:
        self._passes, self._last, self._batch = passes, passes.taken + count, batch

    def finish(self, failure: Exception | None) -> None:
        """Makes the forward passes that are left.

        Args:
            failure: Why this process has stopped, if it has. After a failure in a forward pass nothing can be made up
                for, because the others are in the middle of it.
        """
        if failure is None or isinstance(failure, SageError):
            while self._passes.taken < self._last:
                self._passes.taken += 1
                self._passes.take(self._batch)


def _rows(shards: list[range], units: Sequence[Unit]) -> range:
    """The rows of consecutive units."""
    if not units:
        return range(0)
    return range(shards[units[0].start].start, shards[units[-1].start + units[-1].size - 1].stop)


def _of_shard(batches: Iterator[Numbered], shard: range) -> Iterator[Numbered]:
    """As many batches as hold the shard's rows; the next shard's stay where they are."""
    left = len(shard)
    while left:
        rows, batch = next(batches)
        left -= len(rows)
        yield rows, batch


def check_any_scored(statuses: npt.NDArray[np.int64]) -> None:
    """Refuses a dataset of which no row has a usable gradient; counts of rows by status.

    Raises:
        GradientError: There is none.
    """
    if not statuses[SCORED]:
        raise GradientError(
            f"No row has a usable gradient: {statuses[NOT_FINITE]} are not finite, {statuses[ZERO_GRADIENT]} are "
            f"exactly zero, {statuses[NO_TOKENS]} have no tokens",
            where="dataset",
            fix="Check the labels (are all of them masked?), the model's weights, and that the loss of one row "
            "alone is not constant (a contrastive loss is).",
        )
