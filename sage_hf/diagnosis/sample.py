"""Rows from all over a dataset, encoded: which are fine, how long they are, and what is wrong with the others."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from datasets import Dataset

from ..data.batches import readable
from ..data.encoding import Encoder, Row
from ..data.encoding.limits import Limits
from ..data.encoding.rows import Offence, named
from ..data.reading import read_rows
from ..errors import DatasetError, SageError
from .findings import Lengths, Problem

# Rows that are looked at: of tokens, and of what takes longer. Read in runs of so many.
_TOKENS, _MEDIA, _RUN = 4_096, 512, 64


@dataclass(frozen=True)
class Fault:
    """What is wrong with some rows.

    Attributes:
        error: The first one's error.
        column: Where; None where the row itself cannot be read.
        rows: Their numbers.
    """

    error: SageError
    column: str | None
    rows: list[int]


@dataclass
class Sample:
    """What was found of the rows that were looked at.

    Attributes:
        looked_at: Their number.
        good: Numbers of those that have been encoded and hold something.
        empty: Numbers of those without tokens.
        lengths: Tokens of the good ones, where they have a length.
        cut: Number of these that are longer than the model or `max_length` allows.
        faults: By kind, what is wrong with others.
    """

    looked_at: int = 0
    good: list[int] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    cut: int = 0
    faults: dict[tuple[type[SageError], str | None, str], Fault] = field(default_factory=dict)

    def token_lengths(self, max_length: int) -> Lengths | None:
        """The lengths in short."""
        if not self.lengths:
            return None
        middle = int(np.median(self.lengths))
        return Lengths(min(self.lengths), middle, max(self.lengths), self.cut, max_length)

    def problems(self, rows: int) -> Iterator[Problem]:
        """Every fault, with its rows counted and named; `rows` is how many the dataset has."""
        of = "" if self.looked_at == rows else f", of {self.looked_at:,} rows that were looked at"
        for fault in sorted(self.faults.values(), key=lambda fault: -len(fault.rows)):
            place = "dataset" if fault.column is None else f"column {fault.column!r}"
            yield Problem("error", fault.error.what, f"{place}, {named(fault.rows)}{of}", fault.error.fix)


def look_at(dataset: Dataset, encoder: Encoder, also: Iterable[int] = ()) -> Sample:
    """Encodes rows from all over a dataset, and goes on where some cannot be.

    Args:
        dataset: At least one row.
        encoder: Encoder of the dataset.
        also: Numbers of rows to look at besides.
    """
    sample, reader = Sample(), readable(dataset, encoder.columns)
    untruncated = None  # the same encoder without an end of rows
    if encoder.tokenizer is not None:
        untruncated = replace(encoder, model=replace(encoder.model, limits=Limits()))
        untruncated.max_length = sys.maxsize >> 33
    runs = _runs(len(dataset), _TOKENS if encoder.is_tokens else _MEDIA)
    seen = {number for run in runs for number in run}
    runs += [range(number, number + 1) for number in also if number not in seen]
    for run in sorted(runs, key=lambda run: run.start):
        sample.looked_at += len(run)
        for part, features in _encoded(sample, reader, encoder, run):
            for number, feature in zip(part, features, strict=True):
                length = encoder.length(feature)
                if length == 0:
                    sample.empty.append(number)
                    continue
                sample.good.append(number)
                if length is not None:
                    sample.lengths.append(length)
                    sample.cut += length >= encoder.max_length and _is_longer(untruncated, reader, number, length)
    return sample


def _encoded(sample: Sample, reader: Dataset, encoder: Encoder, run: range) -> Iterator[tuple[range, list[Row]]]:
    """The features of a run of rows at once; where that fails, of each row that can be encoded."""
    try:
        yield run, encoder.encode(read_rows(reader, run), first=run.start)
        return
    except Exception:  # told below, row by row
        pass
    for number in run:
        row = range(number, number + 1)
        try:
            features = encoder.encode(read_rows(reader, row), first=number)
        except Exception as error:
            what = f"The row cannot be encoded: {type(error).__name__}: {error}"
            other = DatasetError(what, where=f"row {number}", fix="Fix or filter such rows.")
            ours = error if isinstance(error, SageError) else other
            column = error.__cause__.column if isinstance(error.__cause__, Offence) else None
            # What is wrong names the row's value; what to do is the same for all of a kind.
            sample.faults.setdefault((type(ours), column, ours.fix), Fault(ours, column, [])).rows.append(number)
        else:
            yield row, features


def _runs(rows: int, most: int) -> list[range]:
    """All rows in runs; or runs that lie evenly over the dataset, of `most` rows in all."""
    if rows <= most:
        return [range(start, min(start + _RUN, rows)) for start in range(0, rows, _RUN)]
    starts = np.linspace(0, rows - _RUN, most // _RUN).round().astype(int).tolist()
    return [range(start, start + _RUN) for start in starts]


def _is_longer(untruncated: Encoder | None, reader: Dataset, number: int, length: int) -> bool:
    """Whether a row has more tokens than were taken of it."""
    if untruncated is None:
        return False
    try:
        (feature,) = untruncated.encode(read_rows(reader, range(number, number + 1)))
    except SageError:  # labels that only `encoder` knows
        return True
    return (untruncated.length(feature) or 0) > length
