"""An IterableDataset as windows of logical shards: read in order, once a pass, without a length or row access."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from datasets import Dataset, Features, IterableDataset
from datasets.exceptions import DatasetGenerationError
from datasets.features.features import require_decoding
from datasets.fingerprint import Hasher

from ..errors import DatasetError, GroupError, OutputError, SageError
from ..utils.files import way_out
from ..utils.rng import drawing
from .batches import Batcher, BatchSource
from .encoding import Row
from .groups import Groups, check_values
from .reading import as_scalar
from .windows import Division, Unit, Window


@dataclass
class HeldRows(BatchSource):
    """Rows that are in memory, numbered from `start`.

    Attributes:
        encoder: Makes batches of them.
        batch_size: Rows a batch.
        rows: The rows.
        start: The number that the first of them goes by.
        first: Its number in the stream, for messages.
        seed: See `BatchSource`.
    """

    encoder: Batcher
    batch_size: int
    rows: Sequence[Row] = ()
    start: int = 0
    first: int = 0
    seed: int = 0

    def number(self, row: int) -> int:
        """Its number in the stream."""
        return self.first + row - self.start

    def _count(self) -> int:
        return len(self.rows)

    def _features(self, rows: range) -> list[Row]:
        held = list(self.rows[rows.start - self.start : rows.stop - self.start])
        return self.encoder.encode(held, first=self.first + rows.start - self.start)


@dataclass
class StreamSource:
    """A stream and the way from its rows to batches.

    Attributes:
        dataset: What rows are read from, from its beginning in every pass.
        encoder: Makes batches of them.
        batch_size: Rows a batch.
        shard_size: Consecutive rows a logical shard; so many are in memory at once.
        group_column: The column to group by; None for one group.
        class_names: The names of its whole numbers, where the stream's features know them.
        seed: Seed of what transforms of the stream draw: the same in every pass and process.
        example: The first row.
        features: Features of its columns, told from the first row where nothing else knows them.
        columns: Those that the encoder reads; None for all. Media of others are not decoded.
    """

    dataset: IterableDataset
    encoder: Batcher
    batch_size: int
    shard_size: int
    group_column: str | None = None
    class_names: list[str] | None = None
    seed: int = 0
    example: Row | None = None
    features: Features | None = None
    columns: frozenset[str] | None = None
    is_stream: ClassVar[bool] = True

    def beginning(self) -> HeldRows:
        """The first rows, a batch at most; the first batch of which any row has tokens.

        Raises:
            DatasetError: There are none any more.
        """
        reader, first = iter(plain(self.dataset, self.columns)), 0
        held = HeldRows(self.encoder, self.batch_size, seed=self.seed)
        while rows := read_on(reader, self.batch_size, first):
            held = HeldRows(self.encoder, self.batch_size, rows, first=first, seed=self.seed)
            if any(self.encoder.length(feature) != 0 for feature in self.encoder.encode(rows, first)):
                return held
            first += len(rows)
        if not held.rows:
            raise changed("it was empty when it was read again")
        return held

    def spare_batch(self) -> dict[str, Any] | None:
        """The first row that has tokens, as a batch; None where none of the first has."""
        return self.beginning().spare_batch()

    def windows(self, division: Division) -> Iterator[Window]:
        """The stream, a shard for each process at a time; every process reads all of it and holds its own rows.

        Shards that are finished are read, too, because nobody can skip in a stream, and held by none.

        Raises:
            DatasetError: The stream breaks off, or a row lacks the column to group by.
        """
        reader, number, first = iter(plain(self.dataset, self.columns)), 0, 0
        while True:
            start, size = next((node for node in division.finished if sum(node) > number), (sys.maxsize, 0))
            is_finished = start <= number
            count = min(division.processes, (start + size if is_finished else start) - number)
            values: list[Any] = []
            digests: list[int] = []
            parts: list[range] = []
            held = HeldRows(self.encoder, self.batch_size)
            for process in range(count):
                place = len(values)
                with drawing(self.seed + number + process):
                    rows = read_on(reader, self.shard_size, first + place)
                if rows:
                    digests.append(int(Hasher.hash(rows[0])[:15], 16))
                parts.append(range(place, place + len(rows)))
                values += [self._value(row, first + place + index) for index, row in enumerate(rows)]
                if process == division.rank and not is_finished:
                    seed = self.seed + first  # by numbers in the stream, whatever the window
                    held = HeldRows(self.encoder, self.batch_size, rows, place, first + place, seed)
            if not values:
                return
            units = [Unit(number + division.rank)] if held.rows else []
            if is_finished:  # the main process has their columns
                units = [Unit(number, len(digests), True)] if division.rank == 0 else []
                parts = [range(len(values))]
            parts += [range(0)] * (division.processes - len(parts))
            yield Window(first, number, self.shard_size, len(values), parts, units, held, values, digests)
            number, first = number + count, first + len(values)

    def _value(self, row: Mapping[str, Any], number: int) -> Any:
        if self.group_column is None:
            return None
        if self.group_column not in row:
            raise DatasetError(
                f"Row {number} has no column {self.group_column!r}, only {sorted(row)}",
                where="group_by",
                fix="Fill the column in every row, or pass group_by=None.",
            )
        return row[self.group_column]


class GrowingGroups:
    """Groups that are met on the way, numbered in the order in which they come.

    Args:
        column: The column that they come from; None for one group.
        class_names: As for `Groups.from_values`.
    """

    def __init__(self, column: str | None, class_names: Sequence[str] | None = None) -> None:
        self.column = column
        self.class_names = class_names
        self.code_of: dict[Any, int] = {}

    @property
    def count(self) -> int:
        """How many groups there are so far, at least 1."""
        return max(1, len(self.code_of))

    def codes(self, values: Sequence[Any], first: int) -> npt.NDArray[np.int64]:
        """[B] codes; `first` is the number of the first value's row.

        Raises:
            GroupError: A value is null, or no boolean, integer or string.
        """
        if self.column is None:
            return np.zeros(len(values), dtype=np.int64)
        check_values(self.column, values, first)
        codes = (self.code_of.setdefault(value, len(self.code_of)) for value in values)
        return np.fromiter(codes, dtype=np.int64, count=len(values))

    def settle(self) -> tuple[Groups, list[int]]:
        """The groups ordered by value, without rows; and the number that each of them had until now."""
        if self.column is None:
            return Groups.single(0), [0]
        ordered = Groups.from_values(self.column, list(self.code_of), self.class_names)
        groups = Groups(self.column, np.zeros(0, dtype=np.int32), ordered.names, ordered.code_of)
        return groups, [self.code_of[value] for value in ordered.code_of]


def plain(stream: IterableDataset, columns: Collection[str] | None = None) -> IterableDataset:
    """The stream with its columns as plain Python; media are left out where they are not of the given columns."""
    stream = stream.with_format(None)
    if columns is not None and stream.features is not None:
        left = {name for name, value in stream.features.items() if require_decoding(value)} - set(columns)
        if left:  # not remove_columns, which reads them first
            stream = stream.select_columns([name for name in stream.features if name not in left])
    return stream


def first_row(stream: IterableDataset) -> Row:
    """The first row.

    Raises:
        DatasetError: There is none, or it cannot be read.
    """
    rows = read_on(iter(plain(stream)), 1, 0)
    if not rows:
        raise DatasetError("The stream has no rows", where="dataset", fix="Check the path, the split and the filters.")
    return rows[0]


def read_on(reader: Iterator[Row], count: int, first: int) -> list[Row]:
    """The next rows of a stream, so many if there are as many; `first` is the number of the first.

    Raises:
        DatasetError: The stream breaks off: names the row.
    """
    rows: list[Row] = []
    try:
        rows.extend(plain_row(row) for row in islice(reader, count))  # keeps those before the one that fails
    except SageError:
        raise
    except Exception as error:  # a lost connection, or a map or generator of the user's
        raise DatasetError(
            f"The stream cannot be read on: {type(error).__name__}: {error}",
            where=f"dataset, row {first + len(rows)}",
            fix="Fix the cause, and start again: with resume_dir, finished shards are not scored again.",
        ) from error
    return rows


def plain_row(row: Mapping[str, Any]) -> Row:
    """A row with NumPy's and torch's single numbers as Python's: a generator's rows come as it made them."""
    return {name: as_scalar(value) for name, value in row.items()}


def known_codes(groups: Groups, values: Sequence[Any]) -> npt.NDArray[np.int64]:
    """[B] codes of values that a first pass has met.

    Raises:
        DatasetError: A value is new: the stream is another one now.
    """
    if groups.column is None:
        return np.zeros(len(values), dtype=np.int64)
    try:
        return groups.codes_for(values).astype(np.int64)
    except GroupError as error:
        raise DatasetError(
            f"The second pass failed where the first did not: {error.what}",
            where="dataset",
            fix="Give a stream that gives the same rows each time that it is read.",
        ) from error


def changed(how: str) -> DatasetError:
    """The error of a stream that is another one when it is read again, and how that was seen."""
    return DatasetError(
        f"The stream does not give the same rows each time: {how}",
        where="dataset",
        fix="Give a stream that can be read twice: from files, the Hub, or a generator function; "
        "shuffled with a fixed seed, without set_epoch between.",
    )


def to_disk(stream: IterableDataset, folder: Path) -> Dataset:
    """Reads a stream to its end, in constant memory.

    Args:
        stream: The rows.
        folder: Where they are written to; the dataset reads from there.

    Raises:
        OutputError: The disk is full, or cannot be written to.
        SageError: What the stream raises.
    """
    rows = stream.with_format(None)

    def read() -> Iterator[Row]:
        reader, first = iter(rows), 0
        while row := read_on(reader, 1, first):
            yield from row
            first += 1

    try:
        # The fingerprint is given, because the hash of a stream would be a pickle of it.
        return Dataset.from_generator(
            read, features=rows.features, cache_dir=str(folder), fingerprint=uuid.uuid4().hex[:16]
        )
    except (OSError, DatasetGenerationError) as error:
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) else error
        if isinstance(cause, SageError):
            raise cause from None
        if isinstance(cause, OSError):
            fix = way_out(cause, "Free some space there, or set TMPDIR to a larger disk.")
            raise OutputError(f"The rows could not be written: {cause}", where=str(folder), fix=fix) from error
        raise
