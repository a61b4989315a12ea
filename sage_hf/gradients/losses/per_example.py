"""Each example's own loss, out of a model's own labelled forward pass.

Hugging Face losses are means over the tokens of the *batch*, from which no example's loss can be told. Here the loss
functions that the forward calls are asked for one value a row (`rowwise`), so that `outputs.loss` becomes the vector
[B] of the losses that each example would have had alone. The plain loss of a causal language model has a faster way.

Axes: B rows of the batch, T positions, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from torch import Tensor, nn
from transformers.loss.loss_utils import ForCausalLMLoss

from ...errors import LabelError
from ..batch_axis import Batch, batch_rows, rows_of
from ..model.failures import MODEL_ERRORS, first_line, is_ours
from ..model.state import has_half_weights
from .cross_entropy import token_cross_entropy
from .rowwise import RowwiseLosses, row_reduce

LossFunction = Callable[[Any, Batch], Tensor]

IGNORE_INDEX = -100
# How far a loss may be from another way to compute it, as a share of it: rounding, in float32 and in half precision.
LOSS_TOLERANCE = 1e-3
HALF_LOSS_TOLERANCE = 5e-2


class NotSeparable(Exception):
    """The model's loss of a batch cannot be told apart into its rows' losses; one row at a time can."""


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
        model: Takes the batch's entries as keyword arguments; returns a loss or logits, as attributes, keys or a
            tuple whose first entry is the loss.
        batch: Tensors with a common first axis B, or lists with one entry a row; labels included.
        reduction: How the positions of a row are joined: "mean" (as the model does it) or "sum".
        loss_function: (outputs, batch) -> [B], instead of the model's own loss.
        device: Where the model is; the batch's own device when omitted.

    Raises:
        LabelError: No labels, so no loss.
        NotSeparable: The model's loss is of the whole batch, or is computed in a way that hides its rows.
    """
    rows = batch_rows(batch)
    device = device or next(value.device for value in batch.values() if isinstance(value, Tensor))
    if loss_function is not None:
        return _given_loss(model, batch, loss_function, device)
    if _is_plain_causal(model, batch, device):
        return _causal_lm_loss(model, batch, reduction, device)
    batch = send_to_device(dict(batch), device, non_blocking=True)
    if rows == 1 and reduction == "mean":
        return _whole_loss(model, batch).reshape(1)
    inputs = accepted(model, batch)
    with RowwiseLosses(inputs, rows, reduction) as intercepted:
        try:
            outputs = model(**inputs)
        except MODEL_ERRORS as error:
            if rows == 1 or is_ours(error):
                raise
            # Such as `total += loss` into a tensor of no axes, or a model that takes one row only. What is wrong with
            # the model itself comes up again when its rows are taken one at a time.
            raise NotSeparable(f"{type(model).__name__} fails on several rows: {first_line(error)}") from error
    # The losses of the rows may come alone or in a tuple, where nothing calls them the loss.
    parts = outputs if isinstance(outputs, (tuple, list)) else [outputs]
    tensors = [each for each in parts if isinstance(each, Tensor)]
    loss = _loss_among(tensors, [each for each in tensors if intercepted.is_rowwise(each)])
    if loss is None:
        loss = output_field(outputs, "loss")
        if loss is None:
            return _loss_from_logits(_logits(outputs), batch, reduction)
    if rows == 1:
        return loss.sum().reshape(1)
    if intercepted.inseparable:
        raise NotSeparable(f"in the loss of {type(model).__name__}, {intercepted.inseparable}")
    if not intercepted.is_rowwise(loss):
        raise NotSeparable(f"the loss of {type(model).__name__} has shape {list(loss.shape)}")
    return loss.reshape(rows)


def own_loss(
    model: nn.Module,
    batch: Batch,
    *,
    reduction: str = "mean",
    loss_function: LossFunction | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """The scalar loss of a batch as the model gives it, without interception; arguments as above."""
    if loss_function is None and reduction == "mean":
        return _whole_loss(model, send_to_device(dict(batch), device) if device is not None else batch)
    return per_example_loss(model, batch, reduction=reduction, loss_function=loss_function, device=device).sum()


def _whole_loss(model: nn.Module, batch: Batch) -> Tensor:
    outputs = model(**accepted(model, batch))
    loss = output_field(outputs, "loss")
    return _loss_from_logits(_logits(outputs), batch, "mean").sum() if loss is None else loss.sum()


def separated(batch_loss: LossFunction, reduction: str = "mean", name: str = "loss_function") -> LossFunction:
    """One loss a row from a function that gives one loss a batch, as a Trainer's `compute_loss_func` does.

    Args:
        batch_loss: (outputs, batch) -> scalar. One built on torch's loss functions is told apart into rows in one
            call; any other makes the collector take its rows one at a time.
        reduction: "mean" or "sum" of what `batch_loss` averages within a row.
        name: What a user calls it, for messages.
    """

    def loss_function(outputs: Any, batch: Batch) -> Tensor:
        rows = batch_rows(batch)
        if rows == 1 and reduction == "mean":
            return called(batch_loss, outputs, batch, name).reshape(1)
        with RowwiseLosses(batch, rows, reduction) as intercepted:
            loss = called(batch_loss, outputs, batch, name)
        if rows > 1 and (intercepted.inseparable or not intercepted.is_rowwise(loss)):
            why = intercepted.inseparable or f"it gives shape {list(loss.shape)} for {rows} rows"
            raise NotSeparable(f"in the loss function, {why}")
        return loss.reshape(rows)

    return loss_function


def called(loss_function: LossFunction, outputs: Any, batch: Batch, name: str) -> Tensor:
    """What a user's loss function returns.

    Raises:
        LabelError: It is no tensor, or the function looks for what is not there; `name` is the function's.
    """
    try:
        loss: Any = loss_function(outputs, batch)
    except (KeyError, AttributeError) as error:
        raise LabelError(
            f"{name} fails: {type(error).__name__}: {error}",
            where=name,
            fix=f"The batch holds {sorted(batch)}, and the model returned a {type(outputs).__name__}.",
        ) from error
    if isinstance(loss, Tensor):
        return loss
    what = "None" if loss is None else f"a {type(loss).__name__}"
    raise LabelError(
        f"{name} returned {what} where a tensor is needed",
        where=name,
        fix="Return the loss as a torch tensor that it is computed in: no number of Python's, and no list.",
    )


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


def _given_loss(model: nn.Module, batch: Batch, loss_function: LossFunction, device: torch.device) -> Tensor:
    rows = batch_rows(batch)
    batch = send_to_device(dict(batch), device, non_blocking=True)
    outputs = model(**accepted(model, batch, labels=False))
    losses = called(loss_function, outputs, batch, "loss_function")
    if losses.shape != (rows,) and not (rows == 1 and losses.ndim == 0):
        raise LabelError(
            f"The loss function returned shape {list(losses.shape)} for {rows} rows",
            where="loss_function",
            fix="Return one loss a row, without averaging over the batch.",
        )
    return losses.reshape(rows)


# ----------------------------------------------------------- causal language models
# Whether a model's loss is the plain shifted cross-entropy; found out once, by computing both.
_PLAIN_CAUSAL: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def _is_plain_causal(model: nn.Module, batch: Batch, device: torch.device) -> bool:
    """Whether the model's loss is the shifted cross-entropy over its tokens, and its head can skip positions.

    `loss_function` does not tell: many decoders carry the same one and compute their loss otherwise (without a shift,
    with another part). So two rows are computed both ways.
    """
    labels, ids = batch.get("labels"), batch.get("input_ids")
    if not (isinstance(labels, Tensor) and isinstance(ids, Tensor) and labels.shape == ids.shape and labels.ndim == 2):
        return False
    if getattr(model, "loss_function", None) is not ForCausalLMLoss:
        return False
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return False
    if model not in _PLAIN_CAUSAL:
        labelled = (labels[:, 1:] != IGNORE_INDEX).any(1).nonzero().flatten().tolist()
        if not labelled:
            return False  # rows without a label tell nothing; the next batch may
        _PLAIN_CAUSAL[model] = _losses_agree(model, rows_of(batch, labelled[:2]), device)
    return _PLAIN_CAUSAL[model]


def _losses_agree(model: nn.Module, batch: Batch, device: torch.device) -> bool:
    with torch.no_grad():
        fast = _causal_lm_loss(model, batch, "mean", device)
        own = []
        for index in range(batch_rows(batch)):
            row = send_to_device(rows_of(batch, slice(index, index + 1)), device)
            loss = output_field(model(**accepted(model, row)), "loss")
            if loss is None or loss.numel() != 1:
                return False
            own.append(loss.reshape(1))
    wanted = torch.cat(own).to(fast)
    if not bool((wanted.isfinite() & fast.isfinite()).all()):
        return bool((wanted.isnan() == fast.isnan()).all())
    tolerance = HALF_LOSS_TOLERANCE if has_half_weights(model) else LOSS_TOLERANCE
    return bool(((fast - wanted).abs() <= tolerance * wanted.abs()).all())


def _causal_lm_loss(model: nn.Module, batch: Batch, reduction: str, device: torch.device) -> Tensor:
    """Shifted cross-entropy with logits only at positions that some row has a label for.

    Equal to the model's own loss of each row; the vocabulary-sized product, often a third of the work, is skipped for
    prompts and padding.
    """
    labels = batch["labels"]
    next_tokens = F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)
    # Found before the batch moves: of labels on the CPU, without waiting for the device.
    positions = (next_tokens != IGNORE_INDEX).any(0).nonzero().squeeze(1)
    if positions.numel() == 0:
        positions = positions.new_zeros(1)
    next_tokens = next_tokens[:, positions].to(device, non_blocking=True)
    inputs = send_to_device(accepted(model, batch, labels=False), device, non_blocking=True)
    logits = _logits(model(**inputs, logits_to_keep=positions.to(device, non_blocking=True)))
    logits = logits.float() if logits.element_size() < 4 else logits
    values = token_cross_entropy(logits.flatten(0, 1), next_tokens.flatten(), IGNORE_INDEX)
    weights = (next_tokens != IGNORE_INDEX).to(values.dtype) if reduction == "mean" else None
    return row_reduce(values, weights, labels.shape[0])


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
        return row_reduce(values, torch.ones_like(values) if reduction == "mean" else None, rows)
    if not labels.is_floating_point():
        if logits.ndim == 3 and labels.shape == logits.shape[:2]:
            logits = logits.transpose(1, 2)
        if logits.shape[:1] + logits.shape[2:] == labels.shape:
            values = F.cross_entropy(logits, labels.long(), ignore_index=IGNORE_INDEX, reduction="none")
            weights = (labels != IGNORE_INDEX).to(values.dtype) if reduction == "mean" else None
            return row_reduce(values, weights, rows)
    raise LabelError(
        f"Labels of shape {list(labels.shape)} ({labels.dtype}) fit no loss for logits of shape {list(logits.shape)}",
        where="column 'labels'",
        fix="Pass loss_function=(outputs, batch) -> one loss a row.",
    )


def output_field(outputs: Any, name: str) -> Any:
    """A part of a model's output ("loss" or "logits"), by attribute, key or place; None where it has none.

    In a tuple the loss is the first entry, if that is a number, else the only number that can be differentiated; the
    logits are the first tensor that is no number.

    Raises:
        LabelError: What is called the loss is none, or a loss has another name.
    """
    if isinstance(outputs, Tensor):
        return outputs if (name == "loss") == (outputs.ndim == 0) else None
    if isinstance(outputs, (tuple, list)) and not hasattr(outputs, name):
        tensors = [each for each in outputs if isinstance(each, Tensor)]
        if name == "loss":
            return _loss_among(tensors, [each for each in tensors if each.ndim == 0])
        return next((each for each in tensors if each.ndim), None)
    part = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
    if name != "loss" or isinstance(part, Tensor):
        return part
    names = list(outputs) if isinstance(outputs, Mapping) else list(getattr(outputs, "__dict__", ()))
    others = [str(each) for each in names if "loss" in str(each) and each != "loss"]
    if part is None and not others:
        return None
    raise LabelError(
        f"The model returns {others} and no 'loss'"
        if part is None
        else f"The model's loss is a {type(part).__name__}",
        where="model.forward",
        fix="Return one tensor under the name 'loss', or pass loss_function=(outputs, batch) -> one loss a row.",
    )


def _loss_among(tensors: list[Tensor], candidates: list[Tensor]) -> Tensor | None:
    """The one of several tensors in a tuple that is the loss."""
    if not candidates or tensors[0] is candidates[0]:
        return candidates[0] if candidates else None
    losses = [each for each in candidates if each.requires_grad] if len(candidates) > 1 else candidates
    if len(losses) != 1:
        raise LabelError(
            f"The model returns a tuple in which any of {len(candidates)} numbers may be the loss",
            where="model.forward",
            fix="Return the loss first, or under the name 'loss', or pass loss_function=(outputs, batch) -> [B].",
        )
    return losses[0]


def _logits(outputs: Any) -> Tensor:
    logits = output_field(outputs, "logits")
    if not isinstance(logits, Tensor):
        raise LabelError(
            f"The model returned neither a loss nor logits but {type(outputs).__name__}",
            where="model.forward",
            fix="Give the batch labels, use a model with a task head, or pass loss_function.",
        )
    return logits
