"""One training on some rows with transformers.Trainer, and what the trained model reaches on the test rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
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
from ..data.batches import RowSource, read_rows, readable
from ..data.columns import open_source
from ..data.encoding import Collator
from ..data.training_batches import TrainingBatches
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
class Trial:
    """How every training of a comparison goes, and how it is judged.

    Attributes:
        build_model: seed -> a fresh model.
        train: All rows.
        test: The rows to judge by.
        training: Keywords of TrainingArguments, complete.
        metric: Judges predictions; None judges by the mean loss.
        config: How rows are encoded.
        processing_class: As for `SageSelector`.
        data_collator: As for `SageSelector`.
    """

    build_model: Callable[[int], nn.Module]
    train: Dataset
    test: Dataset
    training: Mapping[str, Any]
    metric: Metric | None
    config: SageConfig
    processing_class: Any = None
    data_collator: Collator | None = None

    def fresh(self, seed: int) -> nn.Module:
        """The untrained model of a seed; the seed is set, too, for a head that is drawn at random.

        Raises:
            ConfigError: What was built is no model.
        """
        with isolated_rng(seed), quiet():
            model = self.build_model(seed)
        if not isinstance(model, nn.Module):
            raise ConfigError(
                f"build_model returned {type(model).__name__}",
                where="build_model",
                fix="Return a torch.nn.Module, a new one at every call.",
            )
        return model

    def check(self, model: nn.Module) -> None:
        """Judges a model by two test rows, for what would otherwise fail after the first training.

        Raises:
            LabelError: The test rows have no labels, or the model gives no loss.
            DatasetError: The test rows cannot be encoded.
        """
        with isolated_rng(self.config.seed), as_scored(model), torch.no_grad():
            for rows in (self.train, self.test):
                source = self._open(model, rows)
                head = read_rows(readable(rows, source.columns), range(min(_CHECKED_ROWS, len(rows))))
                features = source.encoder.encode(head)
                batch = send_to_device(source.encoder.collate(features), next(model.parameters()).device)
                inner = unwrap(model)
                if output_field(inner(**accepted(inner, batch)), LOSS) is None:
                    raise LabelError(
                        f"{type(model).__name__} returns no loss to train by for columns {sorted(batch)}",
                        where="build_model, train_dataset, test_dataset",
                        fix="Give the rows labels, or return a loss from the model's forward.",
                    )
                judged(inner, batch, by_loss=self.metric is None)

    def run(self, rows: npt.NDArray[np.int64], seed: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        """Trains a fresh model on some rows and lets it predict the test rows; every process must call it.

        Args:
            rows: [K] row numbers.
            seed: Of the weights and the order of the rows.

        Returns:
            What `judge` takes: predictions and references of all test rows, or each one's loss and None.
        """
        model = self.fresh(seed)
        source = self._open(model, self.train)
        with (
            isolated_rng(seed),
            quiet(),
            padding_shown(unwrap(model)),
            tempfile.TemporaryDirectory(prefix="sage_hf-compare-") as folder,
        ):
            trainer = JudgedTrainer(
                model=model,
                args=training_arguments(folder, self.training, seed),
                train_dataset=readable(self.train, source.columns).select(rows),
                data_collator=TrainingBatches(source),
            )
            trainer.by_loss = self.metric is None
            trainer.remove_callback(PrinterCallback)  # prints where there is no progress bar
            trainer.train()
            test = self._open(model, self.test)  # its columns may be others
            trainer.data_collator = lambda batch: test.encoder.collate(test.encoder.encode(batch))
            found = trainer.predict(readable(self.test, test.columns))
            # Trainer holds the model in a circle: not collected, models of finished trainings would fill the device.
            del trainer, model
            clear_device_cache(garbage_collection=True)
        return found.predictions, found.label_ids

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

    def _open(self, model: nn.Module, rows: Dataset) -> RowSource:
        with silent():  # the model that scores the rows has been opened before
            return open_source(unwrap(model), rows, self.config, self.processing_class, self.data_collator)


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
    """What a model makes of a batch: predictions and references, or each row's loss [B] and None.

    Classes are the largest logit's, at every position where there are several; numbers are as the model gives them.

    Args:
        model: In the mode to be judged in.
        batch: On the model's device, with labels.
        by_loss: Which of the two.

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
            where="test_dataset, metric",
            fix="Give the test rows labels, or leave out the metric to judge by the loss.",
        )
    if logits.ndim == labels.ndim + 1:
        is_number = logits.shape[-1] == 1 or labels.is_floating_point()
        return (logits.squeeze(-1).float() if is_number else logits.argmax(-1)), labels
    return logits.float(), labels


def training_arguments(folder: str, training: Mapping[str, Any], seed: int = 0) -> TrainingArguments:
    """The arguments of one training.

    Raises:
        ConfigError: A keyword is unknown or has an impossible value.
    """
    try:
        return TrainingArguments(folder, **{**training, **_FIXED, "seed": seed})
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"transformers refuses the training: {str(error).splitlines()[0]}",
            where="training",
            fix="Give keywords of transformers.TrainingArguments.",
        ) from error


def complete(training: Mapping[str, Any] | None, eval_batch_size: int, on_cpu: bool) -> dict[str, Any]:
    """Keywords of TrainingArguments with the defaults, checked before anything is computed.

    Args:
        training: The user's.
        eval_batch_size: Rows a batch of test rows, where the user says nothing.
        on_cpu: Whether the model that scores is on the CPU, where trainings stay, then, too.

    Raises:
        ConfigError: A keyword is not the user's to give, unknown, or impossible.
    """
    given = dict(training or {})
    taken = [name for name in given if name in (*_FIXED, "seed", "output_dir")]
    if taken:
        raise ConfigError(
            f"A comparison sets {', '.join(taken)} itself",
            where="training",
            fix="Leave it out; seeds, strategies and output are arguments of compare.",
        )
    if "num_train_epochs" in given:
        raise ConfigError(
            "Epochs over few rows are fewer steps than over many, which would compare step counts",
            where="training",
            fix="Give max_steps instead of num_train_epochs: every training takes as many.",
        )
    steps = given.get("max_steps", DEFAULTS["max_steps"])
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ConfigError(f"max_steps is {steps!r}", where="training", fix="Take at least one step.")
    known = {**DEFAULTS, "per_device_eval_batch_size": eval_batch_size, "use_cpu": on_cpu, **given}
    with quiet(), tempfile.TemporaryDirectory(prefix="sage_hf-compare-") as folder:
        training_arguments(folder, known)
    return known


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without bars and warnings; a hundred trainings would repeat each a hundred times."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with ExitStack() as after:
        after.callback(logging.set_verbosity, level)
        logging.set_verbosity_error()
        if bars:
            after.callback(logging.enable_progress_bar)
            logging.disable_progress_bar()
        yield
