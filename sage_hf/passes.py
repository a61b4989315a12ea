"""One pass over a dataset: every row's gradient, once, shard by shard.

Axes: N rows of the dataset, B rows of a batch, D row width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import tqdm
from torch import Tensor

from .data import RowSource
from .gradient_cache import GradientCache
from .gradients import GradientCollector
from .processes import Processes
from .rng import isolated_rng
from .selection import NOT_FINITE, SCORED, ZERO_GRADIENT
from .shards import MergeTree, Partial

# A progress bar appears after this many seconds.
_BAR_DELAY = 2.0


class GradientPasses:
    """Runs passes over one dataset, and keeps what every pass learns of its rows.

    Args:
        collector: Takes the gradients.
        seed: Of what the model or a transform of the dataset draws.
        num_rows: N.
        progress: Whether passes show a progress bar.
        cache: Where gradient rows are kept; None keeps none.

    Attributes:
        status: [N] uint8, whether each row is scored or why it is set aside.
        losses: [N] float32, each row's own loss.
    """

    def __init__(
        self,
        collector: GradientCollector,
        seed: int,
        num_rows: int,
        progress: bool = True,
        cache: GradientCache | None = None,
    ) -> None:
        self.collector = collector
        self.seed = seed
        self.progress = progress
        self.cache = cache
        self.processes = Processes()
        self.status: npt.NDArray[np.uint8] = np.zeros(num_rows, dtype=np.uint8)
        self.losses: npt.NDArray[np.float32] = np.full(num_rows, np.nan, dtype=np.float32)

    def run(
        self,
        source: RowSource,
        title: str,
        new_partial: Callable[[], Partial],
        add: Callable[[Partial, Tensor, Tensor], Tensor | None],
    ) -> tuple[Partial, npt.NDArray[np.float32]]:
        """Runs over all shards and merges what they gather; of several processes each over its share of them.

        Args:
            source: The dataset.
            title: Of the progress bar.
            new_partial: Makes what a shard gathers into.
            add: Gets each batch's row numbers [B] and gradients [B, D], those of unusable rows as zeros.

        Returns:
            What the shards gathered, merged; and what `add` returned for the rows, if anything, as [N]. The same in
            every process.

        Raises:
            SageError: Another process failed.
        """
        shards = source.shards()
        parts = self.parts(shards)
        values = np.full(len(self.status), np.nan, dtype=np.float32)
        tree, failure = MergeTree(), None
        try:
            hidden = None if self.progress else True  # None leaves it to accelerate: on the main process
            own = len(parts[self.processes.rank])
            with tqdm(total=own, desc=title, unit="row", delay=_BAR_DELAY, leave=False, disable=hidden) as bar:
                for number in self.processes.share(len(shards)):
                    tree.push(self._run_shard(source, number, shards[number], new_partial(), add, values, bar), number)
        except Exception as error:
            failure = error
        self.processes.agree(failure)
        for column in (self.status, self.losses, values):
            self.processes.gather(column, parts)
        return self.processes.merge(tree, new_partial), values

    def parts(self, shards: list[range]) -> list[range]:
        """The rows of every process."""
        return [_rows(shards, self.processes.share(len(shards), owner)) for owner in range(self.processes.count)]

    def _run_shard(
        self,
        source: RowSource,
        number: int,
        shard: range,
        partial: Partial,
        add: Callable[[Partial, Tensor, Tensor], Tensor | None],
        values: npt.NDArray[np.float32],
        bar: Any,
    ) -> Partial:
        """One shard: `partial` gathers, and the rows' columns are filled."""
        seen: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = []
        # The same draws in both passes, whoever runs the shard: a random crop must be the same crop.
        with isolated_rng(self.seed + number):
            for rows, gradients, losses, status in self._batches(source, number, shard):
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
        self, source: RowSource, number: int, shard: range
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Row numbers, gradients, losses and status of a shard's batches: from the cache, or computed for it."""
        cache = self.cache
        if cache is not None and cache.holds(number):
            yield from cache.read(number, self.collector.device)
            return
        writer = cache.start(number, len(shard), self.collector.width) if cache is not None else None
        try:
            for rows, batch in source.batches(shard):
                gradients, losses, status = self.gradients(batch)
                if writer is not None:
                    gradients = writer.add(rows, gradients, losses, status)
                yield rows, gradients, losses, status
        except BaseException:
            if writer is not None:
                writer.drop()
            raise
        if writer is not None:
            writer.finish()

    def gradients(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients [B, D] with zeros for rows that are set aside, losses [B], status [B] uint8."""
        gradients, losses = self.collector.collect(batch)
        squared = gradients.to(torch.float64).square().sum(1)
        finite = squared.isfinite() & losses.isfinite()
        status = torch.where(squared == 0, ZERO_GRADIENT, SCORED)
        status = torch.where(finite, status, NOT_FINITE).to(torch.uint8)
        return torch.where(finite[:, None], gradients, 0.0), losses, status


def _rows(shards: list[range], numbers: range) -> range:
    """The rows of consecutive shards."""
    return range(shards[numbers.start].start, shards[numbers.stop - 1].stop) if len(numbers) else range(0)
