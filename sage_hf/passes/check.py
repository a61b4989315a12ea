"""The checks before the first pass, on a sample of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..data.batches import CHECKED_ROWS, BatchSource, Sample
from ..gradients import GradientCollector
from ..gradients.model.failures import ModelError, failing_rows, model_error, one_by_one
from .embeddings import EmbeddingReader


def check_gradients(collector: GradientCollector, source: BatchSource) -> None:
    """Compares some rows in a batch with the same rows alone, and settles how rows are taken from then on.

    Args:
        collector: Takes them; see `GradientCollector.check`.
        source: Where the rows are from.

    Raises:
        GradientError: Rows are wrong even alone, or the model fails on a row, which is named.
    """
    sample = source.sample(CHECKED_ROWS)
    with _naming_rows(collector.model, sample, collector.truth):
        collector.check(sample.batch, sample.alone)


def reader_of(model: nn.Module, device: torch.device, source: BatchSource, seed: int) -> EmbeddingReader:
    """A reader of embeddings, of the width that some rows have.

    Raises:
        ConfigError: The model gives no embedding of a row.
        GradientError: It fails on a row, which is named.
    """
    sample = source.sample(CHECKED_ROWS)
    with _naming_rows(model, sample, lambda row: EmbeddingReader(model, device, row, seed)):
        return EmbeddingReader(model, device, sample.batch, seed)


@contextmanager
def _naming_rows(model: nn.Module, sample: Sample, take: Callable[[dict[str, Any]], Any]) -> Iterator[None]:
    """Where the model fails inside, and `take` of some rows of the sample fails and of others does not: says which."""
    try:
        yield
    except ModelError as error:
        rows = list(sample.alone.values()) if sample.alone else one_by_one(sample.batch)
        failing = failing_rows(take, rows)
        if error.__cause__ is None or not 0 < len(failing) < len(rows):
            raise
        raise model_error(model, error.__cause__, sample.numbers[failing[0]]) from error.__cause__
