"""What a pass takes of a batch: a vector, a number and a status for each row."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..data.status import NO_TOKENS, NOT_FINITE, SCORED, ZERO_GRADIENT
from ..errors import GradientError
from ..gradients import GradientCollector
from ..gradients.batch_axis import rows_of


@dataclass(frozen=True)
class Extracted:
    """B rows as they were taken.

    Attributes:
        vectors: [B, W], zeros for rows that are set aside.
        numbers: [B].
        status: [B] uint8, of `data.status`.
    """

    vectors: Tensor
    numbers: Tensor
    status: Tensor


class Extractor(Protocol):
    """Takes rows through a model; gradients and embeddings are two kinds.

    Attributes:
        model: Unwrapped.
        device: Where the model is.
        dtype: Type of the vectors.
        width: W.
    """

    model: nn.Module
    device: torch.device
    dtype: torch.dtype
    width: int

    def extract(self, batch: dict[str, Any]) -> Extracted:
        """The rows of a batch."""
        ...

    def recheck(self, numbers: Tensor, batch: dict[str, Any], extracted: Extracted) -> None:
        """Looks, now and then, whether rows are in a batch what they are alone; `numbers` [B] are the source's."""
        ...


def without_tokens(extractor: Extractor, rows: int) -> Extracted:
    """What `extract` would give for rows without tokens, of which the model sees nothing."""
    return Extracted(
        torch.zeros(rows, extractor.width, dtype=extractor.dtype, device=extractor.device),
        torch.full((rows,), torch.nan, device=extractor.device),
        torch.full((rows,), NO_TOKENS, dtype=torch.uint8, device=extractor.device),
    )


class Recheck:
    """While a pass runs, compares a row in every few thousand with itself alone.

    The check before a pass sees a few rows. A model that goes wrong later (a cache that fills, a branch that only some
    rows take, rows of another kind further down) is found here, and the run stops with the row named.

    Args:
        collector: Whose rows they are.
        every: One row of so many; 0 for none.

    Attributes:
        rows: Number of rows that were compared.
        seconds: How long that took.
    """

    def __init__(self, collector: GradientCollector, every: int) -> None:
        self._collector, self._every = collector, every
        self._longest = torch.zeros(())  # of the gradients until now, on their device: nobody waits for it
        self.rows = 0
        self.seconds = 0.0

    def look_at(self, numbers: Tensor, batch: dict[str, Any], extracted: Extracted) -> None:
        """Compares the rows of a batch that end a stretch of rows, and were scored.

        Args:
            numbers: [B] row numbers of the source.
            batch: The batch.
            extracted: Its rows, as taken.

        Raises:
            GradientError: A row is another one alone.
        """
        if not self._every or self._collector.one_at_a_time:
            return  # rows that are taken alone need no comparison with themselves
        gradients = extracted.vectors
        self._longest = torch.maximum(self._longest.to(gradients), gradients.norm(dim=1).max())
        for index, number in enumerate(numbers.tolist()):
            if number % self._every == self._every - 1 and int(extracted.status[index]) == SCORED:
                started = time.perf_counter()
                alone = rows_of(batch, slice(index, index + 1))
                if wrong := self._collector.compare(
                    alone, gradients[index], extracted.numbers[index], float(self._longest)
                ):
                    raise GradientError(
                        f"In its batch, row {number} is another one than alone: {wrong}. Earlier rows were right",
                        where=f"row {number}",
                        fix="Look at what its batch holds and at what the model keeps between batches; "
                        "batch_size=1 scores rows alone.",
                    )
                self.rows += 1
                self.seconds += time.perf_counter() - started


class GradientExtractor:
    """Gradient rows [B, D] and losses [B].

    Args:
        collector: Takes them.
        recheck_every: One row of so many is compared with itself alone; 0 compares none.

    Attributes:
        rechecked: What came of that.
    """

    def __init__(self, collector: GradientCollector, recheck_every: int = 0) -> None:
        self.collector, self.model, self.device = collector, collector.model, collector.device
        self.dtype, self.width = collector.dtype, collector.width
        self.rechecked = Recheck(collector, recheck_every)

    def extract(self, batch: dict[str, Any]) -> Extracted:
        """See `Extractor`."""
        gradients, losses = self.collector.collect(batch)
        squared = gradients.to(torch.float64).square().sum(1)
        finite = squared.isfinite() & losses.isfinite()
        status = torch.where(squared == 0, ZERO_GRADIENT, SCORED)
        status = torch.where(finite, status, NOT_FINITE).to(torch.uint8)
        return Extracted(torch.where(finite[:, None], gradients, 0.0), losses, status)

    def recheck(self, numbers: Tensor, batch: dict[str, Any], extracted: Extracted) -> None:
        """See `Extractor`."""
        self.rechecked.look_at(numbers, batch, extracted)
