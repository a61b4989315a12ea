"""A dataset as a stream of (row numbers, batch), cut into logical shards.

Row numbers travel with every batch, so that sorting by length, sharding and resuming can never misattribute a score.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from torch import Tensor

from .encoding import Row
from .errors import BatchAxisError, DatasetError
from .gradients.batch_axis import batch_rows
from .rng import drawing

# Rows of tokens of which the longest, the shortest and ordinary ones are checked before a pass.
_SAMPLE = 256


def check_dataset(dataset: Any) -> Dataset:
    """The dataset, if rows can be selected from it.

    Raises:
        DatasetError: It is empty, or no `datasets.Dataset`.
    """
    if isinstance(dataset, (DatasetDict, IterableDatasetDict)):
        raise DatasetError(
            f"The dataset has several splits, {list(dataset)}",
            where="dataset",
            fix='Pass one, such as dataset["train"].',
        )
    if isinstance(dataset, IterableDataset):
        raise DatasetError(
            "An IterableDataset has no row numbers to select by",
            where="dataset",
            fix="Use SageSelector, which takes streams; or load it without streaming=True.",
        )
    if not isinstance(dataset, Dataset):
        raise DatasetError(
            f"A {type(dataset).__name__} is no dataset", where="dataset", fix="Pass a datasets.Dataset."
        )
    if len(dataset) == 0:
        raise DatasetError(
            "The dataset has no rows", where="dataset", fix="Check the path, the split and the filters."
        )
    return dataset


def readable(dataset: Dataset) -> Dataset:
    """The dataset as its rows are to be read: all columns as plain Python, unless a transform makes them.

    A transform (an image pipeline, say) is part of the data; a tensor format or a choice of columns is not.
    """
    return dataset if dataset.format["type"] == "custom" else dataset.with_format(None)


def as_rows(columns: dict[str, Any]) -> list[Row]:
    """[{column: value}] from {column: [values]}, the form in which `datasets` hands out batches."""
    rows = zip(*columns.values(), strict=True)
    return [{name: _scalar(value) for name, value in zip(columns, row, strict=True)} for row in rows]


def _scalar(value: Any) -> Any:
    """A tensor or NumPy number of no axes as Python's."""
    return value.item() if getattr(value, "shape", None) == () else value


class Batcher(Protocol):
    """The way from rows to batches; `Encoder` is one."""

    @property
    def is_tokens(self) -> bool:
        """Whether rows are short lists of tokens, of which a shard fits into memory at once and sorts by length."""
        ...

    def encode(self, rows: list[Row], first: int = 0) -> list[Row]:
        """Features of each row; `first` is the number of the first in the dataset."""
        ...

    def length(self, feature: Row) -> int | None:
        """Tokens of an encoded row; None where rows have no length."""
        ...

    def collate(self, features: list[Row]) -> dict[str, Any]:
        """A batch of features."""
        ...


class Batches:
    """The way from numbered rows to batches; where rows come from is the subclass's.

    Attributes:
        encoder: Makes batches of rows.
        batch_size: Rows a batch.
        seed: Of what transforms and collators draw; with the row it is drawn for, so that every pass, process and
            worker draws the same.
    """

    encoder: Batcher
    batch_size: int
    seed: int

    def batches(self, shard: range) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """(row numbers [B] int64, batch) over a shard, every row once.

        Tokens are batched by length within the shard, so that little is padded; other rows in their order.
        """
        for unit in self.units(shard):
            yield from self.make(unit)

    def units(self, shard: range) -> list[range]:
        """The rows that are read together: a shard of tokens, or a batch of rows that are larger."""
        if self.encoder.is_tokens:
            return [shard]
        return [
            range(start, min(start + self.batch_size, shard.stop))
            for start in range(shard.start, shard.stop, self.batch_size)
        ]

    def make(self, unit: range) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """The batches of a unit."""
        with drawing(self.seed + unit.start):
            features = self._features(unit)
        order = list(range(len(features)))
        if self.encoder.is_tokens:
            order.sort(key=lambda index: (-(self.encoder.length(features[index]) or 0), index))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            with drawing(self.seed + unit[chosen[0]]):
                batch = collate_checked(self.encoder, [features[index] for index in chosen])
            yield torch.tensor([unit[index] for index in chosen]), batch

    def sample(self, most: int) -> tuple[dict[str, Any], dict[int, dict[str, Any]] | None]:
        """A batch of rows of unequal length from all over the dataset, the longest first, and each of them alone.

        Tokens: the longest and the shortest of some hundred rows, and ordinary ones. None in the place of the rows
        alone where the collator draws at random (masks, say): alone they would be other rows.

        Args:
            most: Rows of the batch, if there are as many.
        """
        chosen = self._sampled(most)
        batch = collate_checked(self.encoder, chosen)
        if not _equal(batch, collate_checked(self.encoder, chosen)):
            return batch, None
        return batch, {index: collate_checked(self.encoder, [feature]) for index, feature in enumerate(chosen)}

    def _sampled(self, most: int) -> list[Row]:
        """Encoded rows: the longest, the shortest and ordinary ones of a sample from all over the dataset."""
        count, wanted = self._count(), _SAMPLE if self.encoder.is_tokens else most
        numbers = sorted({round(place) for place in np.linspace(0, count - 1, min(count, wanted))})
        features = []
        for number in numbers:
            with drawing(self.seed + number):
                features += self._features(range(number, number + 1))
        if any(self.encoder.length(feature) for feature in features):
            features = [feature for feature in features if self.encoder.length(feature) != 0]
        features.sort(key=lambda feature: -(self.encoder.length(feature) or 0))
        places = {round(place) for place in np.linspace(0, len(features) - 1, min(most, len(features)))}
        return [features[place] for place in sorted(places)]

    def _count(self) -> int:
        """How many rows there are."""
        raise NotImplementedError

    def _features(self, rows: range) -> list[Row]:
        """The encoded rows of these numbers."""
        raise NotImplementedError


@dataclass
class RowSource(Batches):
    """A dataset and the way from its rows to batches.

    Attributes:
        dataset: What rows are read from.
        encoder: Makes batches of them.
        batch_size: Rows a batch.
        shard_size: Consecutive rows a logical shard.
        seed: See `Batches`.
    """

    dataset: Dataset
    encoder: Batcher
    batch_size: int
    shard_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        self._reader = readable(self.dataset)

    def shards(self) -> list[range]:
        """Runs of consecutive rows; the cut depends on the dataset's length and `shard_size` alone."""
        count = len(self.dataset)
        return [range(start, min(start + self.shard_size, count)) for start in range(0, count, self.shard_size)]

    def _count(self) -> int:
        return len(self.dataset)

    def _features(self, rows: range) -> list[Row]:
        return self.encoder.encode(as_rows(self._reader[rows.start : rows.stop]), first=rows.start)


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two batches of the same rows hold the same tensors."""
    return all(torch.equal(value, other[key]) for key, value in one.items() if isinstance(value, Tensor))


def collate_checked(encoder: Batcher, features: list[Row]) -> dict[str, Any]:
    """A batch that has one row for each feature.

    Raises:
        BatchAxisError: The collator packed them.
    """
    batch = encoder.collate([dict(feature) for feature in features])  # collators take columns out of what they get
    found = batch_rows(batch)
    if found != len(features):
        raise BatchAxisError(
            f"The collator made {found} rows of {len(features)}, so rows have no gradient of their own",
            where="data_collator",
            fix="Score unpacked rows: set padding_free=False and packing=False, or use a padding collator.",
        )
    return batch
