"""What a pass takes of a batch: a vector, a number and a status for each row, and its embedding if it is wanted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..data.status import NO_TOKENS, NOT_FINITE, SCORED, ZERO_GRADIENT
from ..errors import GradientError
from ..gradients import GradientCollector
from ..gradients.adam import AdamUpdates
from ..gradients.batch_axis import batch_rows, rows_of
from ..gradients.model.failures import one_by_one
from .embeddings import Embedded, EmbeddingReader

# Length from which on a gradient counts as not finite: a sketch of many such rows would overflow float32.
_MOST_NORM = 1e30


@dataclass(frozen=True)
class Extracted:
    """B rows as they were taken.

    Attributes:
        vectors: [B, W], zeros for rows that are set aside.
        numbers: [B].
        status: [B] uint8, of `data.status`.
        embedded: Embeddings of the rows; None where nobody wants them.
    """

    vectors: Tensor
    numbers: Tensor
    status: Tensor
    embedded: Embedded | None = None

    @classmethod
    def join(cls, parts: Sequence[Extracted]) -> Extracted:
        """The rows of all parts, in order."""
        embedded = [part.embedded for part in parts if part.embedded is not None]
        return cls(
            torch.cat([part.vectors for part in parts]),
            torch.cat([part.numbers for part in parts]),
            torch.cat([part.status for part in parts]),
            Embedded.join(embedded) if embedded else None,
        )


def halved(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors [B, W] in half precision, and a factor [B] float32 for each, so that none overflows or vanishes.

    The largest number of a vector is stored as 1: a number loses at most 2^-11 of it.
    """
    largest = vectors.abs().amax(1).float() if vectors.shape[1] else vectors.new_zeros(len(vectors))
    factor = torch.where(largest > 0, largest, 1.0).float()
    return (vectors / factor[:, None]).to(torch.float16), factor


def restored(stored: Tensor, factor: Tensor) -> Tensor:
    """What `halved` came from, as float32; halved again, it is the same to the bit."""
    return stored.float() * factor[:, None]


class Extractor(Protocol):
    """Takes rows through a model; gradients and embeddings are two kinds.

    Attributes:
        model: Unwrapped.
        device: Where the model is.
        dtype: Type of the vectors.
        width: W.
        embedding_width: E; 0 where there are no embeddings.
        input_width: I, of the inputs beside them; 0 where there are none.
    """

    model: nn.Module
    device: torch.device
    dtype: torch.dtype
    width: int
    embedding_width: int
    input_width: int

    def extract(self, batch: dict[str, Any]) -> Extracted:
        """The rows of a batch."""
        ...

    def recheck(self, numbers: Tensor, batch: dict[str, Any], extracted: Extracted) -> None:
        """Looks, now and then, whether rows are in a batch what they are alone; `numbers` [B] are the source's."""
        ...

    def for_target(self) -> Extractor:
        """What takes the rows of a target: plain gradients, where those of the dataset are Adam's updates."""
        ...


def without_tokens(extractor: Extractor, rows: int) -> Extracted:
    """What `extract` would give for rows without tokens, of which the model sees nothing."""
    embedded, device = None, extractor.device
    if extractor.embedding_width:
        embedded = Embedded.nothing(rows, extractor.embedding_width, extractor.input_width, device)
    return Extracted(
        torch.zeros(rows, extractor.width, dtype=extractor.dtype, device=device),
        torch.full((rows,), torch.nan, device=device),
        torch.full((rows,), NO_TOKENS, dtype=torch.uint8, device=device),
        embedded,
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

    def is_due(self, numbers: Tensor) -> bool:
        """Whether one of these rows is to be compared."""
        return bool(self._every) and bool((numbers % self._every == self._every - 1).any())

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
                        f"Row {number} gives another result in its batch than alone: {wrong}. Earlier rows were right",
                        where=f"row {number}",
                        fix="Look at what its batch holds and at what the model keeps between batches; "
                        "batch_size=1 scores rows alone.",
                    )
                self.rows += 1
                self.seconds += time.perf_counter() - started


class GradientExtractor:
    """Gradient rows [B, D] and losses [B]; and embeddings, out of the same forward pass.

    Args:
        collector: Takes them.
        recheck_every: One row of so many is compared with itself alone; 0 compares none.
        reader: Reads embeddings; None where nobody wants them.
        updates: Makes Adam's updates of gradients, which are then taken in their place; None leaves them plain.

    Attributes:
        rechecked: What came of that.
    """

    def __init__(
        self,
        collector: GradientCollector,
        recheck_every: int = 0,
        reader: EmbeddingReader | None = None,
        updates: AdamUpdates | None = None,
    ) -> None:
        self.model, self.device = collector.model, collector.device
        self.dtype, self.width = collector.dtype, collector.width
        self.embedding_width, self.input_width = (reader.width, reader.input_width) if reader else (0, 0)
        self.collector = collector if updates is None else updates.collector
        self.rechecked = Recheck(self.collector, recheck_every)
        self._reader, self._updates, self._plain = reader, updates, collector

    def extract(self, batch: dict[str, Any]) -> Extracted:
        """See `Extractor`."""
        parts = self._parts(batch)
        if len(parts) > 1:
            return Extracted.join([self.extract(rows_of(batch, part)) for part in parts])
        if self._reader is None:
            (gradients, losses), embedded = self.collector.collect(batch), None
        else:
            size = batch_rows(batch)
            if size > 1 and not self.collector.knows_axes:  # which takes forward passes of other rows
                self.collector.collect(rows_of(batch, slice(2)))
            with self._reader.watching() as seen:
                gradients, losses = self.collector.collect(batch)
            if self.collector.one_at_a_time and size > 1:  # only the first row was seen
                embedded = Embedded.join([self._reader.forward(row) for row in one_by_one(batch)])
            else:
                embedded = self._reader.read(seen, batch)
        squared = gradients.to(torch.float64).square().sum(1)
        finite = (squared <= _MOST_NORM**2) & losses.isfinite()  # of NaN, this is False
        status = torch.where(squared == 0, ZERO_GRADIENT, SCORED)
        status = torch.where(finite, status, NOT_FINITE).to(torch.uint8)
        vectors = torch.where(finite[:, None], gradients, 0.0)
        if self._updates is not None:  # a row without a gradient has an update, too: that of the rows before
            vectors = torch.where((status == SCORED)[:, None], self._updates(vectors), 0.0)
        return Extracted(vectors, losses, status, embedded)

    def recheck(self, numbers: Tensor, batch: dict[str, Any], extracted: Extracted) -> None:
        """See `Extractor`; of updates, the gradients that they were made of are taken once more."""
        if self._updates is None:
            return self.rechecked.look_at(numbers, batch, extracted)
        for part in self._parts(batch):
            if self.rechecked.is_due(numbers[part]):
                rows = rows_of(batch, part)
                gradients = self.collector.collect(rows)[0]
                taken = Extracted(gradients, extracted.numbers[part], extracted.status[part])
                self.rechecked.look_at(numbers[part], rows, taken)

    def for_target(self) -> Extractor:
        """See `Extractor`."""
        return self if self._updates is None else GradientExtractor(self._plain)

    def _parts(self, batch: dict[str, Any]) -> list[slice]:
        """Rows of a batch that are taken at a time."""
        size = batch_rows(batch)
        most = size if self._updates is None else self._updates.rows
        return [slice(start, min(start + most, size)) for start in range(0, size, most)]


class EmbeddingExtractor:
    """Embeddings alone, by a forward pass without gradients: vectors are empty, and numbers zeros.

    A row whose embedding is not finite, which is then zeros, and whose classes are not known is not scored.

    Args:
        reader: Reads them.
    """

    dtype, width = torch.float32, 0

    def __init__(self, reader: EmbeddingReader) -> None:
        self.model, self.device, self._reader = reader.model, reader.device, reader
        self.embedding_width, self.input_width = reader.width, reader.input_width

    def extract(self, batch: dict[str, Any]) -> Extracted:
        """See `Extractor`."""
        embedded = self._reader.forward(batch)
        numbers = torch.zeros_like(embedded.el2n)
        is_known = embedded.embeddings.any(1) | embedded.el2n.isfinite()
        status = torch.where(is_known, SCORED, NOT_FINITE).to(torch.uint8)
        return Extracted(numbers[:, None][:, :0], numbers, status, embedded)

    def recheck(self, numbers: Tensor, batch: dict[str, Any], extracted: Extracted) -> None:
        """Nothing is compared: no row shares anything with another in a forward pass."""

    def for_target(self) -> Extractor:
        """See `Extractor`."""
        return self
