"""Each example's own loss, out of a model's own labelled forward pass.

Hugging Face losses are means over the tokens of the *batch*, from which no example's loss can be told. Here the loss
functions that the forward calls are intercepted and asked for their unreduced form, folded to [B, .] and averaged (or
summed) within each row, so that `outputs.loss` becomes the vector [B] of the losses that each example would have had
alone.

Axes: B rows of the batch, T positions, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.loss.loss_utils import ForCausalLMLoss

from ..errors import BatchAxisError, LabelError
from .cross_entropy import token_cross_entropy

Batch = Mapping[str, Any]
LossFunction = Callable[[Any, Batch], Tensor]

IGNORE_INDEX = -100
# Batch keys that only collators which glue rows together write, and the options that ask for them.
_PACKING_KEYS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "seq_idx", "cu_seqlens")


class NotSeparable(Exception):
    """The model's loss of a batch cannot be told apart into its rows' losses; one row at a time can."""


def batch_rows(batch: Batch) -> int:
    """B, the first dimension that the batch's tensors share.

    Raises:
        BatchAxisError: They share none, or the batch was packed into one long row.
    """
    packed = [key for key in _PACKING_KEYS if key in batch]
    if packed:
        raise BatchAxisError(
            f"The collator packed the rows into one sequence (it wrote {packed}), so a row has no gradient of its own",
            where="data_collator",
            fix="Score unpacked rows: set padding_free=False and packing=False, or use a padding collator.",
        )
    sizes = {key: value.shape[0] for key, value in batch.items() if isinstance(value, Tensor) and value.ndim > 0}
    if len(set(sizes.values())) != 1:
        raise BatchAxisError(
            f"The batch's tensors do not share a first axis: {sizes}" if sizes else "The batch holds no tensor",
            where="data_collator",
            fix="Return tensors whose first axis is the row (no packing, no padding_free).",
        )
    return next(iter(sizes.values()))


def rows_of(batch: Batch, part: slice) -> dict[str, Any]:
    """Some rows of a batch as a batch of their own; what has no row axis stays as it is."""
    size = batch_rows(batch)
    return {
        key: value[part] if isinstance(value, Tensor) and value.ndim and value.shape[0] == size else value
        for key, value in batch.items()
    }


def per_example_loss(
    model: nn.Module,
    batch: Batch,
    *,
    reduction: str = "mean",
    loss_function: LossFunction | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """The loss of every row of a batch as if it were alone, [B], with its autograd graph.

    Args:
        model: Takes the batch's entries as keyword arguments; returns a loss or logits, as attributes or keys.
        batch: Tensors with a common first axis B, labels included.
        reduction: How the positions of a row are joined: "mean" (as the model does it) or "sum".
        loss_function: (outputs, batch) -> [B], instead of the model's own loss.
        device: Where the model is; the batch's own device when omitted.

    Raises:
        LabelError: No labels, so no loss.
        NotSeparable: The model does not compute its loss with an elementwise-reducible torch function.
    """
    rows = batch_rows(batch)
    device = device or next(value.device for value in batch.values() if isinstance(value, Tensor))
    if loss_function is not None:
        batch = send_to_device(dict(batch), device, non_blocking=True)
        losses = loss_function(model(**accepted(model, batch, labels=False)), batch)
        if losses.shape != (rows,):
            raise LabelError(
                f"The loss function returned shape {list(losses.shape)} for {rows} rows",
                where="loss_function",
                fix="Return one loss a row, without averaging over the batch.",
            )
        return losses
    if _is_causal_lm(model) and _is_token_labels(batch, rows):
        return _causal_lm_loss(model, batch, reduction, device)

    batch = send_to_device(dict(batch), device, non_blocking=True)
    with _RowwiseLosses(rows, reduction) as intercepted:
        outputs = model(**accepted(model, batch))
    loss = output_field(outputs, "loss")
    if loss is None:
        loss = _loss_from_logits(_logits(outputs), batch, reduction)
        return loss
    if intercepted.inseparable or (rows > 1 and (loss.shape != (rows,) or not intercepted.count)):
        raise NotSeparable(f"the loss of {type(model).__name__} has shape {list(loss.shape)}")
    return loss.reshape(rows) if loss.numel() == rows else loss.sum().reshape(1)


def own_loss(
    model: nn.Module,
    batch: Batch,
    *,
    reduction: str = "mean",
    loss_function: LossFunction | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """The scalar loss of a batch of one as the model gives it, without interception; arguments as above."""
    if loss_function is None and reduction == "mean":
        moved = send_to_device(dict(batch), device) if device is not None else batch
        loss = output_field(model(**accepted(model, moved)), "loss")
        if loss is not None:
            return loss.sum()
    return per_example_loss(model, batch, reduction=reduction, loss_function=loss_function, device=device).sum()


def separated(batch_loss: LossFunction, reduction: str = "mean") -> LossFunction:
    """One loss a row from a function that gives one loss a batch, as a Trainer's `compute_loss_func` does.

    Args:
        batch_loss: (outputs, batch) -> scalar. One built on torch's loss functions is told apart into rows in one
            call; any other makes the collector take its rows one at a time.
        reduction: "mean" or "sum" of what `batch_loss` averages within a row.
    """

    def loss_function(outputs: Any, batch: Batch) -> Tensor:
        rows = batch_rows(batch)
        if rows == 1 and reduction == "mean":
            return batch_loss(outputs, batch).reshape(1)
        with _RowwiseLosses(rows, reduction) as intercepted:
            loss = batch_loss(outputs, batch)
        if intercepted.inseparable or loss.numel() != rows or not intercepted.count:
            raise NotSeparable(f"the loss function gives shape {list(loss.shape)} for {rows} rows")
        return loss.reshape(rows)

    return loss_function


def accepted(model: nn.Module, batch: Batch, labels: bool = True) -> dict[str, Any]:
    """The entries of the batch that the model's forward takes, with `use_cache=False` where it knows the word."""
    parameters = inspect.signature(model.forward).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    kept = {key: value for key, value in batch.items() if takes_any or key in parameters}
    if not labels:
        kept = {key: value for key, value in kept.items() if key != "labels"}
    if "use_cache" in parameters:
        kept["use_cache"] = False  # a cache of keys and values would only cost memory
    return kept


class _RowwiseLosses(TorchFunctionMode):
    """Turns the loss functions called inside into one value a row."""

    def __init__(self, rows: int, reduction: str) -> None:
        super().__init__()
        self.rows, self.reduction = rows, reduction
        self.count = 0
        self.inseparable = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _ELEMENTWISE_LOSSES:
            return func(*args, **kwargs)
        bound = _ELEMENTWISE_LOSSES[func].bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        if given["reduction"] == "none":
            return func(*args, **kwargs)  # the model reduces it by a rule of its own
        values = func(**{**given, "reduction": "none", "size_average": None, "reduce": None})
        if values.numel() % self.rows or values.numel() == 0:
            self.inseparable = True
            return func(*args, **kwargs)
        weights = _element_weights(func, given, values)
        self.count += 1
        return _row_reduce(values, weights, self.rows, self.reduction if given["reduction"] == "mean" else "sum")


# The loss functions that the heads of transformers call, with their signatures.
_ELEMENTWISE_LOSSES = {
    func: inspect.signature(func)
    for func in (
        F.cross_entropy,
        F.nll_loss,
        F.mse_loss,
        F.l1_loss,
        F.smooth_l1_loss,
        F.binary_cross_entropy_with_logits,
    )
}


def _element_weights(func: Callable[..., Any], given: Mapping[str, Any], values: Tensor) -> Tensor:
    """What each value counts in the mean: 0 where ignored, the class weight where there are class weights."""
    if func not in (F.cross_entropy, F.nll_loss) or given["target"].is_floating_point():
        return torch.ones_like(values)
    target, weight = given["target"], given["weight"]
    counted = target != given["ignore_index"]
    if weight is None:
        return counted.to(values.dtype)
    return torch.where(counted, weight[torch.where(counted, target, 0)], 0.0).to(values.dtype)


def _row_reduce(values: Tensor, weights: Tensor, rows: int, reduction: str) -> Tensor:
    """[rows] sums or means of values [rows * T] (any shape with the row first); 0 for a row that counts nothing."""
    # Class-weighted values come weighted already; ignored ones come as 0.
    total = values.reshape(rows, -1).sum(1)
    if reduction == "sum":
        return total
    weight = weights.reshape(rows, -1).sum(1)
    return total / torch.where(weight > 0, weight, 1.0)


def _is_causal_lm(model: nn.Module) -> bool:
    """Whether the model's loss is the plain shifted cross-entropy and its head can skip positions."""
    forward = inspect.signature(model.forward).parameters
    if getattr(getattr(model, "config", None), "output_router_logits", False):
        return False  # the loss has a part for the routing of experts
    return "logits_to_keep" in forward and getattr(model, "loss_function", None) is ForCausalLMLoss


def _is_token_labels(batch: Batch, rows: int) -> bool:
    labels, ids = batch.get("labels"), batch.get("input_ids")
    return isinstance(labels, Tensor) and isinstance(ids, Tensor) and labels.shape == ids.shape and labels.ndim == 2


def _causal_lm_loss(model: nn.Module, batch: Batch, reduction: str, device: torch.device) -> Tensor:
    """Shifted cross-entropy with logits only at positions that some row has a label for.

    Equal to the model's own loss of each row; the vocabulary-sized product, often a third of the work, is skipped for
    prompts and padding.
    """
    labels = batch["labels"]
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)
    # Found before the batch moves: of labels on the CPU, without waiting for the device.
    positions = (targets != IGNORE_INDEX).any(0).nonzero().squeeze(1)
    if positions.numel() == 0:
        positions = positions.new_zeros(1)
    targets = targets[:, positions].to(device, non_blocking=True)
    inputs = send_to_device(accepted(model, batch, labels=False), device, non_blocking=True)
    logits = _logits(model(**inputs, logits_to_keep=positions.to(device, non_blocking=True)))
    logits = logits.float() if logits.element_size() < 4 else logits
    values = token_cross_entropy(logits.flatten(0, 1), targets.flatten(), IGNORE_INDEX)
    return _row_reduce(values, (targets != IGNORE_INDEX).to(values.dtype), labels.shape[0], reduction)


def _loss_from_logits(logits: Tensor, batch: Batch, reduction: str) -> Tensor:
    """Loss of a model that returns logits only: cross-entropy of integer labels, squared error of equal-shaped floats.

    Raises:
        LabelError: There are no labels, or they fit neither.
    """
    labels = batch.get("labels")
    if not isinstance(labels, Tensor):
        raise LabelError(
            f"The model returned no loss and the batch has no labels, only {sorted(batch)}",
            where="column 'labels'",
            fix="Add a 'labels' (or 'label') column, or pass loss_function.",
        )
    rows, labels = labels.shape[0], labels.to(logits.device)
    if labels.is_floating_point() and labels.numel() == logits.numel():
        values = F.mse_loss(logits.reshape(labels.shape), labels.to(logits.dtype), reduction="none")
        return _row_reduce(values, torch.ones_like(values), rows, reduction)
    if not labels.is_floating_point():
        if logits.ndim == 3 and labels.shape == logits.shape[:2]:
            logits = logits.transpose(1, 2)
        if logits.shape[:1] + logits.shape[2:] == labels.shape:
            values = F.cross_entropy(logits, labels.long(), ignore_index=IGNORE_INDEX, reduction="none")
            return _row_reduce(values, (labels != IGNORE_INDEX).to(values.dtype), rows, reduction)
    raise LabelError(
        f"Labels of shape {list(labels.shape)} ({labels.dtype}) fit no loss for logits of shape {list(logits.shape)}",
        where="column 'labels'",
        fix="Pass loss_function=(outputs, batch) -> one loss a row.",
    )


def output_field(outputs: Any, name: str) -> Any:
    """A part of a model's output, by attribute, key or place; None where it has none."""
    if isinstance(outputs, Mapping):
        return outputs.get(name)
    if isinstance(outputs, Tensor):
        return outputs if (name == "loss") == (outputs.ndim == 0) else None
    if isinstance(outputs, tuple) and not hasattr(outputs, name):
        is_loss = isinstance(outputs[0], Tensor) and outputs[0].ndim == 0
        position = {"loss": 0, "logits": 1 if is_loss else 0}[name]
        return outputs[position] if name == "logits" or is_loss else None
    return getattr(outputs, name, None)


def _logits(outputs: Any) -> Tensor:
    logits = output_field(outputs, "logits")
    if not isinstance(logits, Tensor):
        raise LabelError(
            f"The model returned neither a loss nor logits but {type(outputs).__name__}",
            where="model.forward",
            fix="Give the batch labels, use a model with a task head, or pass loss_function.",
        )
    return logits
