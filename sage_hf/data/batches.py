"""A dataset as a stream of (row numbers, batch), cut into logical shards.

Row numbers travel with every batch, so that sorting by length, sharding and resuming can never misattribute a score.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from datasets import Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict
from datasets.features.features import require_decoding
from torch import Tensor

from ..errors import BatchAxisError, DatasetError, SageError
from ..gradients.batch_axis import batch_rows, rows_of
from ..gradients.losses.per_example import IGNORE_INDEX
from ..utils.rng import drawing
from .encoding import Row
from .encoding.rows import Offence
from .reading import as_rows, read_rows
from .windows import Division, Window, divide

_TEXT_TYPES = ("string", "large_string", "string_view")
# Rows that are looked at where columns hold media.
_SAMPLED = 16
# Rows of tokens of which the longest, the shortest and ordinary ones are checked before a pass.
_CHECKED_AMONG = 256
# Rows in which more are looked for that cannot be used, once one is known: of tokens, and of what takes longer.
_LOOKED_AT, _DECODED = 20_000, 2_000


def check_dataset(dataset: Any, where: str = "dataset") -> Dataset:
    """The dataset, if rows can be selected from it; `where` is the argument that it came by.

    Raises:
        DatasetError: It is empty, or no `datasets.Dataset`.
    """
    if isinstance(dataset, (DatasetDict, IterableDatasetDict)):
        raise DatasetError(
            f"The dataset has several splits, {list(dataset)}",
            where=where,
            fix='Pass one, such as dataset["train"].',
        )
    if isinstance(dataset, IterableDataset):
        raise DatasetError(
            "An IterableDataset has no row numbers to select by",
            where=where,
            fix="Use SageSelector, which takes streams; or load it without streaming=True.",
        )
    if not isinstance(dataset, Dataset):
        raise DatasetError(f"A {type(dataset).__name__} is not a dataset", where=where, fix="Pass a datasets.Dataset.")
    if len(dataset) == 0:
        raise DatasetError("The dataset has no rows", where=where, fix="Check the path, the split and the filters.")
    return dataset


def readable(dataset: Dataset, columns: Collection[str] | None = None) -> Dataset:
    """The dataset as its rows are to be read: columns as plain Python, unless a transform makes them.

    A transform (an image pipeline, say) is part of the data; a tensor format or a choice of columns is not.

    Args:
        dataset: What to read.
        columns: Those to read, of which media are decoded; all by default.
    """
    if dataset.format["type"] == "custom":
        return dataset
    if columns is None:
        return dataset.with_format(None)
    return dataset.with_format(None, columns=[name for name in dataset.column_names if name in columns])


def sampled(dataset: Dataset) -> list[Row]:
    """A few rows that tell of a dataset's columns, the first one first: with media as they are stored.

    Nothing is decoded, because an audio or an image that nobody needs may not be there.
    """
    if dataset.format["type"] == "custom":
        return read_rows(dataset, range(1))
    rows, media = dataset.with_format(None), False
    for name, feature in dataset.features.items():
        if require_decoding(feature):
            if hasattr(feature, "decode"):
                rows, media = rows.cast_column(name, replace(feature, decode=False)), True
            else:
                rows = rows.remove_columns(name)
    numbers = sorted({round(number) for number in np.linspace(0, len(rows) - 1, _SAMPLED if media else 1)})
    nothing = dict.fromkeys(dataset.column_names)
    read = as_rows(rows[numbers]) if rows.column_names else [{} for _ in numbers]
    return [with_texts({**nothing, **row}, dataset.features) for row in read]


def with_texts(row: Row, features: Features | None) -> Row:
    """A row that tells of a dataset's columns, with empty texts where its own are null."""
    is_text = {name for name, value in (features or {}).items() if getattr(value, "dtype", None) in _TEXT_TYPES}
    return {name: "" if value is None and name in is_text else value for name, value in row.items()}


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


# Rows of the batch that is compared with rows alone before the first pass.
CHECKED_ROWS = 4

# Row numbers and their batch; None where the model is to see nothing of them.
Numbered: TypeAlias = tuple[Tensor, dict[str, Any] | None]


class Sample(NamedTuple):
    """A few rows of a dataset."""

    batch: dict[str, Any]
    # By place in the batch; None where the collator draws at random (masks, say): alone they would be other rows.
    alone: dict[int, dict[str, Any]] | None
    # In the dataset.
    numbers: list[int]
    # Whether the collator leaves rows where they are: one that sorts them would pass a check of rows in that order.
    keeps_order: bool


class BatchSource:
    """The way from numbered rows to batches; where rows come from is the subclass's.

    Attributes:
        encoder: Makes batches of rows.
        batch_size: Rows a batch.
        seed: Seed of what transforms and collators draw; with the row it is drawn for, so that every pass, process and
            worker draws the same.
    """

    encoder: Batcher
    batch_size: int
    seed: int

    def batches(self, shard: range) -> Iterator[Numbered]:
        """(row numbers [B] int64, batch) over a shard, every row once; None in the place of rows without tokens.

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

    def make(self, unit: range) -> Iterator[Numbered]:
        """The batches of a unit, then its rows without tokens with None: models fail on them, or make up a loss."""
        with drawing(self.seed + unit.start):
            features = self._features(unit)
        lengths = [self.encoder.length(feature) for feature in features]
        empty = [unit[index] for index, length in enumerate(lengths) if length == 0]
        order = [index for index, length in enumerate(lengths) if length != 0]
        if self.encoder.is_tokens:
            order.sort(key=lambda index: (-(lengths[index] or 0), index))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            with drawing(self.seed + unit[chosen[0]]):
                numbers = [self.number(unit[index]) for index in chosen]
                batch = collate_checked(self.encoder, [features[index] for index in chosen], numbers)
            rows = torch.tensor([unit[index] for index in chosen])
            seen = has_tokens(batch)
            if seen is not None:  # a collator's own tokens
                empty += rows[~seen].tolist()
                rows, batch = rows[seen], picked(batch, seen)
            if len(rows):
                yield rows, batch
        for start in range(0, len(empty), self.batch_size):
            yield torch.tensor(empty[start : start + self.batch_size]), None

    def sample(self, most: int) -> Sample:
        """A batch of rows of unequal length from all over the dataset, in no order, and each of them alone.

        Tokens: the longest and the shortest of some hundred rows, and ordinary ones.

        Args:
            most: Rows of the batch, if there are as many.
        """
        numbers, chosen = zip(*self._sampled(most), strict=True)
        batch = collate_checked(self.encoder, list(chosen), [self.number(row) for row in numbers])
        if not _equal(batch, collate_checked(self.encoder, list(chosen))):
            return Sample(batch, None, list(numbers), True)
        alone = {index: collate_checked(self.encoder, [feature]) for index, feature in enumerate(chosen)}
        turned = collate_checked(self.encoder, list(reversed(chosen)))
        return Sample(batch, alone, list(numbers), _is_turned(batch, turned))

    def _sampled(self, most: int) -> list[tuple[int, Row]]:
        """Numbers and features: the longest, the shortest and ordinary ones of a sample from all over the dataset."""
        count, wanted = self._count(), _CHECKED_AMONG if self.encoder.is_tokens else most
        numbers = sorted({round(place) for place in np.linspace(0, count - 1, min(count, wanted))})
        features = []
        for number in numbers:
            try:
                with drawing(self.seed + number):
                    features += [(number, feature) for feature in self._features(range(number, number + 1))]
            except SageError:
                self._features(range(min(count, self.batch_size)))  # names more rows, if others fail, too
                raise
        features = [each for each in features if self._has_tokens(*each) and is_labelled(each[1])] or self._telling()
        features.sort(key=lambda each: -(self.encoder.length(each[1]) or 0))
        places = {round(place) for place in np.linspace(0, len(features) - 1, min(most, len(features)))}
        chosen = [features[place] for place in sorted(places)]
        # In no order of length: a model that sorts its rows would be right by chance.
        return [*chosen[1:2], *chosen[:1], *chosen[:1:-1]]

    def telling(self) -> list[Row]:
        """The encoded rows of the first batch that has any with tokens and labels: those that tell of the model.

        Raises:
            DatasetError: No row has tokens.
        """
        return [feature for _, feature in self._telling()]

    def _telling(self) -> list[tuple[int, Row]]:
        unlabelled: list[tuple[int, Row]] = []
        for start in range(0, self._count(), self.batch_size):
            features = self._features(range(start, min(start + self.batch_size, self._count())))
            seen = [each for each in enumerate(features, start) if self._has_tokens(*each)]
            if labelled := [each for each in seen if is_labelled(each[1])]:
                return labelled
            unlabelled = unlabelled or seen
        if unlabelled:
            return unlabelled
        raise DatasetError(
            f"None of {self._count()} rows has a token",
            where="dataset",
            fix="Check the text column and the tokenizer.",
        )

    def spare_batch(self) -> dict[str, Any] | None:
        """The first row that has tokens, as a batch; None where none has."""
        made = (batch for row in range(self._count()) for _, batch in self.batches(range(row, row + 1)))
        return next((batch for batch in made if batch is not None), None)

    def _has_tokens(self, row: int, feature: Row) -> bool:
        length = self.encoder.length(feature)
        if length is None:  # a collator may make the tokens
            return has_tokens(collate_checked(self.encoder, [feature], [self.number(row)])) is None
        return length > 0

    def number(self, row: int) -> int:
        """What a row is called in messages."""
        return row

    def _count(self) -> int:
        """How many rows there are."""
        raise NotImplementedError

    def _features(self, rows: range) -> list[Row]:
        """The encoded rows of these numbers."""
        raise NotImplementedError


@dataclass
class RowSource(BatchSource):
    """A dataset and the way from its rows to batches.

    Attributes:
        dataset: What rows are read from.
        encoder: Makes batches of them.
        batch_size: Rows a batch.
        shard_size: Consecutive rows a logical shard.
        seed: See `BatchSource`.
        columns: Those that the encoder reads; None for all.
    """

    dataset: Dataset
    encoder: Batcher
    batch_size: int
    shard_size: int
    seed: int = 0
    columns: frozenset[str] | None = None
    is_stream: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._reader = readable(self.dataset, self.columns)

    def windows(self, division: Division) -> Iterator[Window]:
        """All rows in one window, in which every process has consecutive shards."""
        shards, parts = self.shards(), []
        shares = divide(len(shards), division.finished, division.processes)
        for units in shares:
            runs = [shards[number] for unit in units for number in range(unit.start, unit.start + unit.size)]
            parts.append(range(runs[0].start, runs[-1].stop) if runs else range(0))
        yield Window(0, 0, self.shard_size, len(self.dataset), parts, shares[division.rank], self)

    def shards(self) -> list[range]:
        """Runs of consecutive rows; the cut depends on the dataset's length and `shard_size` alone."""
        count = len(self.dataset)
        return [range(start, min(start + self.shard_size, count)) for start in range(0, count, self.shard_size)]

    def _count(self) -> int:
        return len(self.dataset)

    def _features(self, rows: range) -> list[Row]:
        try:
            return self.encoder.encode(read_rows(self._reader, rows), first=rows.start)
        except SageError as error:
            if isinstance(error.__cause__, Offence):
                raise self.counted(error.__cause__, error.__cause__.rows) from error
            raise

    def counted(self, offence: Offence, known: list[int]) -> SageError:
        """The error of all rows that offend alike, as far as it is quick to look.

        Args:
            offence: Offence of some of them.
            known: Their numbers in the dataset; none where the offence numbers them otherwise.
        """
        rows = set(known)
        most = _LOOKED_AT if self.encoder.is_tokens else _DECODED
        looked = range(min(len(self.dataset), max(most, *known, 0) + 1))
        for start in range(0, looked.stop, self.shard_size):
            part = range(start, min(start + self.shard_size, looked.stop))
            try:
                self.encoder.encode(read_rows(self._reader, part), first=start)
            except SageError as error:
                other = error.__cause__
                if isinstance(other, Offence) and (other.kind, other.column) == (offence.kind, offence.column):
                    rows.update(other.rows)
        if not rows:
            return offence.error()
        whole = Offence(offence.kind, offence.why, offence.column, sorted(rows))
        return whole.error(looked if looked.stop < len(self.dataset) else None)


def is_labelled(feature: Row) -> bool:
    """Whether any of a row's labels counts for the loss."""
    labels = feature.get("labels")
    return not isinstance(labels, list) or any(label != IGNORE_INDEX for label in labels)


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two batches of the same rows hold the same tensors."""
    return all(torch.equal(value, other[key]) for key, value in one.items() if isinstance(value, Tensor))


def _is_turned(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a batch holds the rows of another in the opposite order; also where rows cannot be told apart."""
    try:
        size = batch_rows(one)
        return all(_equal(rows_of(one, [row]), rows_of(other, [size - 1 - row])) for row in range(size))
    except BatchAxisError:
        return True


def has_tokens(batch: Mapping[str, Any]) -> Tensor | None:
    """[B] whether the model is to see any token of each row; None where it is of every row, or rows have none."""
    mask, ids = batch.get("attention_mask"), batch.get("input_ids")
    if isinstance(ids, Tensor) and ids.ndim > 1 and not ids.numel():
        return torch.zeros(len(ids), dtype=torch.bool)
    if not isinstance(mask, Tensor) or mask.ndim < 2 or mask.device.type != "cpu":
        return None
    seen = mask.flatten(1).bool().any(1)
    return None if bool(seen.all()) else seen


def picked(batch: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """Some rows of a batch, by a mask [B]; what has no row axis stays as it is."""
    return {
        key: value[rows] if isinstance(value, Tensor) and value.shape[:1] == rows.shape else value
        for key, value in batch.items()
    }


def collate_checked(encoder: Batcher, features: list[Row], numbers: Sequence[int] = ()) -> dict[str, Any]:
    """A batch that has one row for each feature; their numbers are for messages.

    Raises:
        BatchAxisError: The collator packed them.
    """
    try:
        batch = encoder.collate([dict(feature) for feature in features])  # collators take columns out of what they get
    except DatasetError as error:
        if isinstance(offence := error.__cause__, Offence) and numbers:
            offence.rows = [numbers[place] for place in offence.rows]
            raise offence.error() from offence
        raise
    rows = batch_rows(batch)
    if rows != len(features):
        raise BatchAxisError(
            f"The collator turned {len(features)} rows into {rows}, so a row has no gradient of its own",
            where="data_collator",
            fix="Score unpacked rows: set padding_free=False and packing=False, or use a padding collator.",
        )
    return batch
