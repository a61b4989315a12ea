"""One training on some rows with transformers.Trainer, and what the trained model reaches on the test rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import send_to_device
from accelerate.utils.memory import clear_device_cache
from datasets import Dataset
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging

from ..config import SageConfig
from ..data.batches import RowSource, readable
from ..data.columns import open_source
from ..data.encoding import Collator
from ..data.reading import read_rows
from ..data.training_batches import TrainingBatches, training_loss
from ..errors import ConfigError, LabelError
from ..gradients.losses.per_example import (
    Batch,
    NotSeparable,
    accepted,
    batch_rows,
    output_field,
    own_loss,
    per_example_loss,
    rows_of,
)
from ..gradients.model.padding import padding_shown
from ..gradients.model.state import as_scored, unwrap
from ..utils.notices import silent
from ..utils.rng import isolated_rng
from .metrics import LOSS, Metric, numbers_of

DEFAULTS: Mapping[str, Any] = {"max_steps": 300, "learning_rate": 5e-5, "per_device_train_batch_size": 32}
# What a comparison depends on being so.
_FIXED: Mapping[str, Any] = {
    "remove_unused_columns": False,
    "save_strategy": "no",
    "logging_strategy": "no",
    "eval_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "log_level": "error",
}
_CHECKED_ROWS = 2


@dataclass(frozen=True)
class Experiment:
    """How every training of a comparison goes, and how it is judged.

    Attributes:
        model_init: seed -> a fresh model.
        train_dataset: All rows.
        eval_dataset: The rows to judge by.
        training_args: Keywords of TrainingArguments, complete.
        metric: Judges predictions; None judges by the mean loss.
        config: How rows are encoded.
        processing_class: As for `SageSelector`.
        data_collator: As for `SageSelector`.
    """

    model_init: Callable[[int], nn.Module]
    train_dataset: Dataset
    eval_dataset: Dataset
    training_args: Mapping[str, Any]
    metric: Metric | None
    config: SageConfig
    processing_class: Any = None
    data_collator: Collator | None = None

    def open(self, model: nn.Module, rows: Dataset) -> RowSource:
        """Rows as batches for a model, as `open_source`."""
        return open_source(unwrap(model), rows, self.config, self.processing_class, self.data_collator)

    def fresh(self, seed: int) -> nn.Module:
        """The untrained model of a seed; the seed is set, too, for a head that is drawn at random.

        Raises:
            ConfigError: What was built is no model.
        """
        with isolated_rng(seed), quiet():
            model = self.model_init(seed)
        if not isinstance(model, nn.Module):
            raise ConfigError(
                f"model_init returned {type(model).__name__}", where="model_init", fix="Return a new torch.nn.Module."
            )
        return model

    def check(self, model: nn.Module) -> None:
        """Judges a model by two test rows, for what would otherwise fail after the first training.

        Raises:
            LabelError: The test rows have no labels, or the model gives no loss.
            DatasetError: The test rows cannot be encoded.
        """
        inner = unwrap(model)
        with silent(), isolated_rng(self.config.seed), as_scored(model), torch.no_grad():
            for rows in (self.train_dataset, self.eval_dataset):
                source = self.open(model, rows)
                head = read_rows(readable(rows, source.columns), range(min(_CHECKED_ROWS, len(rows))))
                batch = source.encoder.collate(source.encoder.encode(head))
                batch = send_to_device(batch, next(model.parameters()).device)
                training_loss(inner, batch, "model_init, train_dataset, eval_dataset")
                judged(inner, batch, by_loss=self.metric is None)

    def run(self, rows: npt.NDArray[np.int64], seed: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        """Trains a fresh model on some rows [K] and lets it predict the test rows; every process must call it.

        The seed is of the weights and of the order of the rows. Returns what `judge` takes: predictions and references
        of all test rows, or each one's loss and None.
        """
        model = self.fresh(seed)
        with (
            silent(),  # of this model's kind and these rows the user was warned when they were opened to be scored
            isolated_rng(seed),
            quiet(),
            padding_shown(unwrap(model)),
            tempfile.TemporaryDirectory(prefix="sage_hf-compare-") as folder,
        ):
            source = self.open(model, self.train_dataset)
            trainer = JudgedTrainer(
                model=model,
                args=training_arguments(folder, self.training_args, seed),
                train_dataset=readable(self.train_dataset, source.columns).select(rows),
                data_collator=TrainingBatches(source),
            )
            trainer.by_loss = self.metric is None
            trainer.remove_callback(PrinterCallback)  # prints where there is no progress bar
            trainer.train()
            test = self.open(model, self.eval_dataset)  # its columns may be others
            trainer.data_collator = lambda batch: test.encoder.collate(test.encoder.encode(batch))
            output = trainer.predict(readable(self.eval_dataset, test.columns))
            # Trainer holds the model in a circle: not collected, models of finished trainings would fill the device.
            del trainer, model
            clear_device_cache(garbage_collection=True)
        return output.predictions, output.label_ids

    def judge(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any] | None) -> dict[str, float]:
        """{name: number} of what `run` returned; the first is the one that counts.

        Raises:
            ConfigError: The metric fails, or computes no number.
        """
        if self.metric is None:
            return {LOSS: float(np.mean(predictions, dtype=np.float64))}
        try:
            return numbers_of(self.metric.compute(predictions=predictions, references=references))
        except (ValueError, TypeError, KeyError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"The metric cannot judge predictions of shape {list(predictions.shape)}: {error}",
                where="metric",
                fix="Give an object whose compute takes predictions and references of this task.",
            ) from error


class JudgedTrainer(Trainer):
    """Trainer whose predictions are what a metric takes, or each row's loss; never the logits of a vocabulary.

    Attributes:
        by_loss: Which of the two.
    """

    by_loss = False

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[None, Tensor, Tensor | None]:
        """No loss, predictions [B, ...], references [B, ...] or None."""
        with torch.no_grad(), self.compute_loss_context_manager():
            return None, *judged(unwrap(model), self._prepare_inputs(inputs), self.by_loss)


def judged(model: nn.Module, batch: Batch, by_loss: bool) -> tuple[Tensor, Tensor | None]:
    """What a model makes of a batch on its device: predictions and references, or each row's loss [B] and None.

    Classes are the largest logit's, at every position where there are several; numbers are as the model gives them.

    Raises:
        LabelError: There are no labels.
    """
    if by_loss:
        try:
            return per_example_loss(model, batch).float(), None
        except NotSeparable:
            alone = [own_loss(model, rows_of(batch, slice(row, row + 1))) for row in range(batch_rows(batch))]
            return torch.stack(alone).float(), None
    labels = batch.get("labels")
    logits = output_field(model(**accepted(model, batch)), "logits")
    if not isinstance(labels, Tensor) or not isinstance(logits, Tensor):
        raise LabelError(
            f"A metric needs labels and logits, and there are the columns {sorted(batch)}",
            where="eval_dataset, metric",
            fix="Give the test rows labels, or leave out the metric to judge by the loss.",
        )
    if logits.ndim == labels.ndim + 1:
        is_number = logits.shape[-1] == 1 or labels.is_floating_point()
        return (logits.squeeze(-1).float() if is_number else logits.argmax(-1)), labels
    return logits.float(), labels


def training_arguments(folder: str, training_args: Mapping[str, Any], seed: int = 0) -> TrainingArguments:
    """The arguments of one training.

    Raises:
        ConfigError: A keyword is unknown or has an impossible value.
    """
    try:
        return TrainingArguments(folder, **{**training_args, **_FIXED, "seed": seed})
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"transformers refuses the training: {str(error).splitlines()[0]}",
            where="training_args",
            fix="Give keywords of transformers.TrainingArguments.",
        ) from error


def complete(training_args: Mapping[str, Any] | None, eval_batch_size: int, on_cpu: bool) -> dict[str, Any]:
    """The user's keywords of TrainingArguments with defaults for the rest, checked before anything is computed.

    Where the model that scores is on the CPU, trainings stay there, too.

    Raises:
        ConfigError: A keyword is not the user's to give, unknown, or impossible.
    """
    known = {**DEFAULTS, "per_device_eval_batch_size": eval_batch_size, "use_cpu": on_cpu, **(training_args or {})}
    taken = [name for name in known if name in (*_FIXED, "seed", "output_dir")]
    if taken:
        raise ConfigError(
            f"A comparison sets {', '.join(taken)} itself", where="training_args", fix="See compare's own arguments."
        )
    if "num_train_epochs" in known:
        raise ConfigError(
            "With epochs, few rows get fewer steps than many, so the comparison would be of step counts",
            where="training_args",
            fix="Give max_steps instead of num_train_epochs: every training takes as many.",
        )
    steps = known["max_steps"]
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ConfigError(f"max_steps is {steps!r}", where="training_args", fix="Take at least one step.")
    with quiet(), tempfile.TemporaryDirectory(prefix="sage_hf-compare-") as folder:
        training_arguments(folder, known)
    return known


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without bars and warnings; a hundred trainings would repeat each a hundred times."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
