"""What a pass takes of a batch: a vector, a number and a status for each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..data.status import NO_TOKENS, NOT_FINITE, SCORED, ZERO_GRADIENT
from ..gradients import GradientCollector
from .recheck import Recheck


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

    @property
    def device(self) -> torch.device: ...  # noqa: D102
    @property
    def dtype(self) -> torch.dtype: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102

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


class GradientExtractor:
    """Gradient rows [B, D] and losses [B].

    Args:
        collector: Takes them.
        recheck_every: One row of so many is compared with itself alone; 0 compares none.

    Attributes:
        rechecked: What came of that.
    """

    def __init__(self, collector: GradientCollector, recheck_every: int = 0) -> None:
        self.collector, self.model = collector, collector.model
        self.rechecked = Recheck(collector, recheck_every)

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.collector.device

    @property
    def dtype(self) -> torch.dtype:
        """The collector's."""
        return self.collector.dtype

    @property
    def width(self) -> int:
        """D."""
        return self.collector.width

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
        self.rechecked.look_at(numbers, batch, extracted.vectors, extracted.numbers, extracted.status)
