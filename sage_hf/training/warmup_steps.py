"""The steps of a warm-up: AdamW at a rate that falls linearly to 0, as `transformers.Trainer` takes them by default.

Not by Trainer, which shares a training between the processes of a launch and the GPUs of a machine: other batches, or
the same ones rounded otherwise, would be other weights. Every process takes the same steps here.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, islice, repeat
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from accelerate.utils import send_to_device, tqdm
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import get_scheduler

from ..data.encoding import Row
from ..data.training_batches import training_loss
from ..errors import ConfigError, GradientError

# Trainer's.
_LARGEST_NORM = 1.0
# A progress bar appears after this many seconds.
_BAR_DELAY = 2.0


def take_steps(
    model: nn.Module,
    rows: Dataset,
    collate: Callable[[list[Row]], dict[str, Any]],
    *,
    steps: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> float:
    """Trains a model in place, where it is, and returns the mean loss; it is in train mode afterwards.

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
    total = torch.zeros((), dtype=torch.float64, device=device)
    model.train()
    with tqdm(total=steps, desc="warm-up", unit="step", delay=_BAR_DELAY, leave=False) as bar:
        for batch in islice(chain.from_iterable(repeat(loader)), steps):
            loss = training_loss(model, send_to_device(batch, device), "model, dataset")
            loss.backward()
            nn.utils.clip_grad_norm_(weights, _LARGEST_NORM)
            optimizer.step()
            schedule.step()
            model.zero_grad()
            total += loss.detach()
            bar.update()
    mean = float(total) / steps
    if not torch.isfinite(total):
        raise GradientError(
            f"The loss of the warm-up is {mean}, and so its weights are of no use",
            where="learning_rate, dataset",
            fix="Lower the learning rate, or look for rows with values that are not finite.",
        )
    return mean
