"""The checks before the first pass, on a sample of the rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from datasets import Dataset
from torch import nn

from ..data.batches import CHECKED_ROWS, BatchSource, Sample
from ..errors import ConfigError
from ..gradients import GradientCollector
from ..gradients.model.failures import ModelError, failing_rows, model_error, one_by_one
from ..gradients.model.state import has_half_weights
from ..utils.bars import is_main
from ..utils.fingerprint import dataset_digest, model_fingerprint
from ..utils.rng import isolated_rng
from .embeddings import Embedded, EmbeddingReader
from .processes import Processes

logger = logging.getLogger(__name__)

# How far an embedding may be from that of the row alone, as a share of its length, and a doubt: rounding, and in half
# precision; rows that a model mixes are off by more.
_CLOSE, _HALF = 1e-2, 5e-2
_MOVED = "the collator does not leave the rows of a batch in their order"


def check_gradients(collectors: Sequence[GradientCollector], source: BatchSource) -> None:
    """Compares some rows in a batch with the same rows alone, and settles how rows are taken from then on.

    Args:
        collectors: Take them; see `GradientCollector.check`.
        source: Where the rows are from.

    Raises:
        GradientError: Rows are wrong even alone, or the model fails on a row, which is named.
    """
    for collector in collectors:
        with isolated_rng(source.seed):
            sample = source.sample(CHECKED_ROWS)
            with _naming_rows(collector.model, sample, collector.truth):
                collector.check(sample.batch, sample.alone)
        if not (sample.keeps_order or collector.one_at_a_time):
            collector.take_one_at_a_time(_MOVED)


def sample_of(source: BatchSource) -> Sample:
    """The rows that are looked at first; the random states are as before."""
    with isolated_rng(source.seed):
        return source.sample(CHECKED_ROWS)


def reader_of(model: nn.Module, device: torch.device, sample: Sample, seed: int) -> EmbeddingReader:
    """A reader of embeddings, of the width that the rows of a sample have.

    Raises:
        ConfigError: The model gives no embedding of a row.
        GradientError: It fails on a row, which is named.
    """
    with _naming_rows(model, sample, lambda row: EmbeddingReader(model, device, row, seed)):
        return EmbeddingReader(model, device, sample.batch, seed)


def check_embeddings(reader: EmbeddingReader, source: BatchSource, sample: Sample) -> None:
    """Compares what a reader gives of some rows in a batch and alone; where it differs, batches are of one row.

    Args:
        reader: The reader.
        source: Where the rows are from; its `batch_size` becomes 1, which a warning tells.
        sample: Some of these.
    """
    if source.batch_size == 1 or sample.alone is None:  # where the collator draws at random
        return
    whole = reader.forward(sample.batch)
    alone = Embedded.join([reader.forward(row) for row in sample.alone.values()])
    reason = "" if sample.keeps_order else _MOVED
    if not reason and not whole.is_close(alone, _HALF if has_half_weights(reader.model) else _CLOSE):
        reason = "the model gives other embeddings of rows in a batch than of rows alone"
    if reason:
        source.batch_size = 1
        if is_main():
            logger.warning("Rows are read one at a time, which is right but slow: %s.", reason)


def check_alike(
    processes: Processes, model: nn.Module, dataset: Dataset | None, settings: Mapping[str, object]
) -> None:
    """Refuses processes that were given different things: the result would be of neither, or they would wait in vain.

    Buffers may differ: each process of a training has batch statistics of its own.

    Args:
        processes: All of them call it.
        model: Its parameters count.
        dataset: Some of its rows count, see `dataset_digest`; None of a stream, whose rows are compared as they come.
        settings: What else must be the same.

    Raises:
        ConfigError: Names what is another than in the main process.
        SageError: The same, in the other processes.
    """
    if processes.count == 1:
        return
    with processes.agreed():
        own = {name: repr(value) for name, value in settings.items()}
        own["model"] = model_fingerprint(model, buffers=False)
        own["dataset"] = "" if dataset is None else dataset_digest(dataset)
    main = processes.broadcast_object(own)
    with processes.agreed():
        if other := [name for name in own if own[name] != main[name]]:
            raise ConfigError(
                f"Process {processes.rank} of {processes.count} was given other values than the main process: "
                f"{', '.join(other)}",
                where=", ".join(other),
                fix="Give every process the same settings, rows and weights: draw new weights from one seed.",
            )


@contextmanager
def _naming_rows(model: nn.Module, sample: Sample, take: Callable[[dict[str, Any]], Any]) -> Iterator[None]:
    """Where the model fails inside, and `take` of some rows of the sample fails and of others does not: says which."""
    try:
        yield
    except ModelError as error:
        rows = list(sample.alone.values()) if sample.alone else one_by_one(sample.batch)
        failing = [*failing_rows(take, rows)]
        if error.__cause__ is None or not 0 < len(failing) < len(rows):
            raise
        raise model_error(model, error.__cause__, sample.numbers[failing[0]]) from error.__cause__
