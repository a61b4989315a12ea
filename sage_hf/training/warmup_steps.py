"""The steps of a warm-up: AdamW at a rate that falls linearly to 0, as `transformers.Trainer` takes them by default.

Not by Trainer, which shares a training between the processes of a launch and the GPUs of a machine: other batches, or
the same ones rounded otherwise, would be other weights. Every process takes the same steps here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from accelerate.utils import send_to_device
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import get_scheduler

from ..data.encoding import Row
from ..data.meaning import BEYOND_CHANCE
from ..data.training_batches import training_loss
from ..errors import ConfigError, GradientError
from ..utils.bars import advance

# Trainer's.
_LARGEST_NORM = 1.0
# The first and the last part of so many are held against each other.
_PARTS = 5
# With fewer steps in a part, one odd batch decides.
_LEAST_STEPS = 3


@dataclass(frozen=True)
class Course:
    """How the loss went.

    Attributes:
        mean: Mean over all steps.
        first: Mean over the first fifth of the steps; None of a warm-up of fewer than 15.
        last: Mean over the last fifth; None as above.
        error: Standard error of the difference of the two; None as above.
    """

    mean: float
    first: float | None = None
    last: float | None = None
    error: float | None = None

    @classmethod
    def of(cls, losses: Tensor) -> Course:
        """Of the losses [S] of all steps."""
        losses = losses.double().cpu()
        mean, count = float(losses.mean()), len(losses) // _PARTS
        if count < _LEAST_STEPS:
            return cls(mean)
        first, last = losses[:count], losses[-count:]
        error = math.sqrt(float(first.var() + last.var()) / count)
        return cls(mean, float(first.mean()), float(last.mean()), error)

    @property
    def rose(self) -> bool:
        """Whether it is higher at the end, by more than chance."""
        return self.first is not None and self.last - self.first > BEYOND_CHANCE * self.error  # type: ignore[operator]

    @property
    def fell(self) -> bool:
        """Whether it is lower at the end, by more than chance; as good as so where there are too few steps to tell."""
        return self.first is None or self.first - self.last > BEYOND_CHANCE * self.error  # type: ignore[operator]


def take_steps(
    model: nn.Module,
    rows: Dataset,
    collate: Callable[[list[Row]], dict[str, Any]],
    *,
    steps: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> Course:
    """Trains a model in place, where it is, and returns how the loss went; it is in train mode afterwards.

    The rows come in a new order every epoch, whose last batch may be smaller. The seed is of this order alone: what
    the model draws is the caller's to seed.

    Raises:
        ConfigError: No weight is trainable.
        LabelError: The model gives no loss.
        GradientError: The loss is not finite.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not weights:
        raise ConfigError(
            f"{type(model).__name__} has no trainable weight to warm up",
            where="model",
            fix="Load an adapter with is_trainable=True, or set requires_grad on what is to be trained.",
        )
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0, fused=True)
    schedule = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=steps)
    sampler = SeedableRandomSampler(rows, data_seed=seed)
    loader: DataLoader[Any] = DataLoader(rows, batch_size, sampler=sampler, collate_fn=collate)
    losses = torch.zeros(steps, device=device)
    model.train()
    for number, batch in enumerate(islice(chain.from_iterable(repeat(loader)), steps)):
        loss = training_loss(model, send_to_device(batch, device), "model, dataset")
        loss.backward()
        nn.utils.clip_grad_norm_(weights, _LARGEST_NORM)
        optimizer.step()
        schedule.step()
        model.zero_grad()
        losses[number] = loss.detach()
        advance()
    course = Course.of(losses)
    if not math.isfinite(course.mean):
        raise GradientError(
            f"The loss of the warm-up is {course.mean}, and so its weights are of no use",
            where="learning_rate, dataset",
            fix="Lower the learning rate, or look for rows with values that are not finite.",
        )
    return course
