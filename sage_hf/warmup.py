"""A short training before the selection: the gradients of a fresh head say nothing about the rows."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from torch import nn
from transformers import Trainer, TrainingArguments

from .config import SageConfig
from .data import check_dataset, readable
from .encoding import Collator
from .errors import ConfigError
from .gradients.padding import padding_shown
from .gradients.state import unchanged_config, unwrap
from .opening import open_source
from .rng import isolated_rng
from .training_batches import TrainingBatches


@dataclass(frozen=True)
class WarmUp:
    """What a warm-up did.

    Attributes:
        steps: Optimizer steps taken.
        loss: Mean training loss over them.
    """

    steps: int
    loss: float


def warm_up(
    model: nn.Module,
    dataset: Dataset,
    *,
    steps: int | None = None,
    fraction: float | None = None,
    learning_rate: float = 5e-5,
    batch_size: int = 16,
    processing_class: Any = None,
    data_collator: Collator | None = None,
    config: SageConfig | None = None,
) -> WarmUp:
    """Trains a model in place on random rows, through `transformers.Trainer`.

    Its weights change, and nothing else: training modes and random states come back.

    Args:
        model: As for `SageSelector`; it trains where it is.
        dataset: Raw or prepared rows.
        steps: Optimizer steps to take, on random rows of the whole dataset.
        fraction: Instead of steps: the share of the rows, in (0, 1], to see once.
        learning_rate: At the start; it falls linearly to 0. Trainer's default suits a pretrained model; a model from a
            config learns faster with 1e-3.
        batch_size: Rows a step.
        processing_class: As for `SageSelector`.
        data_collator: As for `SageSelector`.
        config: Gives the seed and how rows are encoded.

    Raises:
        ConfigError: Both or neither of steps and fraction are given, or one is out of range.
        DatasetError: As for `SageSelector.fit`.
        LabelError: As for `SageSelector.fit`.
    """
    if (steps is None) == (fraction is None):
        raise ConfigError(
            f"{'Neither' if steps is None else 'Both'} of steps and fraction was given",
            where="steps, fraction",
            fix="Give exactly one of them.",
        )
    if steps is not None and steps < 1:
        raise ConfigError(f"steps is {steps}", where="steps", fix="Take at least one step.")
    if fraction is not None and not 0.0 < fraction <= 1.0:
        raise ConfigError(f"fraction is {fraction}", where="fraction", fix="Give a share above 0 and at most 1.")
    config = config or SageConfig()
    source = open_source(unwrap(model), check_dataset(dataset), config, processing_class, data_collator)
    rows = readable(dataset, source.columns)
    if fraction is not None:
        rows = rows.shuffle(seed=config.seed).select(range(max(1, round(fraction * len(dataset)))))
    training = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    with (
        isolated_rng(config.seed),
        unchanged_config(model),
        padding_shown(unwrap(model)),
        tempfile.TemporaryDirectory(prefix="sage_hf-warmup-") as folder,
    ):
        arguments = TrainingArguments(
            folder,
            max_steps=steps if steps is not None else -1,
            num_train_epochs=1,
            learning_rate=learning_rate,
            per_device_train_batch_size=batch_size,
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            seed=config.seed,
            use_cpu=device.type == "cpu",
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            data_collator=TrainingBatches(source),
        )
        try:
            result = trainer.train()
        finally:
            for module, mode in training.items():
                module.training = mode
    return WarmUp(int(result.global_step), float(result.training_loss))
