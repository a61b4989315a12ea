"""Losses that live in a Trainer rather than in the model, as one loss a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..errors import LabelError
from ..gradients.losses.per_example import IGNORE_INDEX, Batch, LossFunction, separated


def from_compute_loss_func(compute_loss_func: Callable[..., Tensor]) -> LossFunction:
    """The loss of Trainer's `compute_loss_func`, which is called as in evaluation, with `num_items_in_batch=None`."""

    def batch_loss(outputs: Any, batch: Batch) -> Tensor:
        try:
            return compute_loss_func(outputs, batch.get("labels"), num_items_in_batch=None)
        except TypeError as error:
            raise LabelError(
                f"compute_loss_func failed without num_items_in_batch, as Trainer calls it in evaluation: {error}",
                where="compute_loss_func",
                fix="Take the mean over the batch where num_items_in_batch is None.",
            ) from error

    return separated(batch_loss, name="compute_loss_func")


def smoothed(epsilon: float, model: nn.Module) -> LossFunction:
    """Cross-entropy with label smoothing: what Trainer's `LabelSmoother` computes, for each row.

    Args:
        epsilon: Share of the probability that is spread over all classes.
        model: A causal language model's labels are shifted.
    """
    kinds = {kind.__name__ for kind in type(model).__mro__}
    is_shifted = bool(kinds & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()))

    def batch_loss(outputs: Any, batch: Batch) -> Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        if "labels" not in batch:
            raise LabelError(
                f"Label smoothing needs labels, and the batch holds {sorted(batch)}",
                where="data_collator",
                fix="Let the collator write labels, or set label_smoothing_factor=0.",
            )
        labels = batch["labels"]
        if is_shifted:
            logits, labels = logits[..., :-1, :], labels[..., 1:]
        return F.cross_entropy(logits.transpose(1, -1), labels, label_smoothing=epsilon, ignore_index=IGNORE_INDEX)

    return separated(batch_loss)
