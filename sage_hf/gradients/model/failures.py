"""What models raise, and which rows they raise it on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import nn

from ...errors import GradientError, SageError
from ..batch_axis import Batch, batch_rows, rows_of

# What a model raises that takes one row only, that cannot take this row, or whose loss is no vector.
MODEL_ERRORS = (RuntimeError, ValueError, AssertionError, IndexError, TypeError)
# What a device raises, often later than the rows that made it fail; torch has a name for it from 2.8 on.
_DEVICE_ERRORS = (torch.OutOfMemoryError, *([torch.AcceleratorError] if hasattr(torch, "AcceleratorError") else []))


class ModelError(GradientError):
    """The model raises an error of its own on a row alone."""


def model_error(model: nn.Module, error: BaseException, row: int | None = None) -> ModelError:
    """What to raise in the place of a model's own error.

    Args:
        model: The model.
        error: What it raised on a row alone.
        row: Number of that row in the dataset, where it is known and the model takes other rows.
    """
    if row is None:
        return ModelError(
            f"{type(model).__name__} fails on one row in eval mode: {first_line(error)}",
            where="model.forward",
            fix="Use a model that can be differentiated in eval mode, and batches that it accepts.",
        )
    return ModelError(
        f"{type(model).__name__} fails on row {row}, and not on others: {first_line(error)}",
        where=f"row {row}",
        fix="Mend the row, or leave it out of the dataset; or make the model's forward accept it.",
    )


def failing_rows(take: Callable[[dict[str, Any]], Any], rows: Iterable[dict[str, Any]]) -> Iterator[int]:
    """Places of the rows, each a batch of one, that make `take` end in a `ModelError`; tried as they are asked for."""
    for place, row in enumerate(rows):
        try:
            take(row)
        except ModelError:
            yield place


def one_by_one(batch: Batch) -> list[dict[str, Any]]:
    """The rows of a batch, each a batch of one."""
    return [rows_of(batch, slice(row, row + 1)) for row in range(batch_rows(batch))]


def is_ours(error: BaseException) -> bool:
    """Whether an error is no failure of the model: one of sage_hf's, or of the device, or full memory."""
    if isinstance(error, (SageError, *_DEVICE_ERRORS)):
        return True
    return isinstance(error, Exception) and should_reduce_batch_size(error)


def first_line(error: BaseException) -> str:
    """What an error says, shortly."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
