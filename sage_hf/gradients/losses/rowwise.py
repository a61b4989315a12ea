"""Loss functions that give one value a row in the place of one a batch.

Inside `RowwiseLosses` the loss functions of torch are asked for their unreduced values, which are averaged (or summed)
within each row. What the model then does with the [B] losses is watched: a part that is of the whole batch (another
loss, an entropy, a count of labels) makes them inseparable.

Axes: B rows of the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .row_ids import NO_ROW, RowIds

# Loss functions with an unreduced form, and their signatures.
_LOSSES = {
    func: inspect.signature(func)
    for func in (
        *(F.cross_entropy, F.nll_loss, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.kl_div, F.ctc_loss),
        *(F.binary_cross_entropy, F.binary_cross_entropy_with_logits, F.gaussian_nll_loss, F.poisson_nll_loss),
        *(F.soft_margin_loss, F.hinge_embedding_loss, F.margin_ranking_loss, F.cosine_embedding_loss),
        *(F.multi_margin_loss, F.multilabel_margin_loss, F.multilabel_soft_margin_loss, F.triplet_margin_loss),
    )
}


class RowwiseLosses(TorchFunctionMode):
    """Inside, the loss functions that are called give one value a row.

    Args:
        batch: What the model is given.
        rows: B.
        reduction: "mean" or "sum" of what a loss function averages within a row.

    Attributes:
        inseparable: Why the losses cannot be told apart into rows; empty while they can.
    """

    def __init__(self, batch: Mapping[str, Any], rows: int, reduction: str) -> None:
        super().__init__()
        self.rows, self.reduction = rows, reduction
        self.inseparable = ""
        self._ids = RowIds(batch, rows)
        self._losses: dict[int, Tensor] = {}

    def is_rowwise(self, value: Any) -> bool:
        """Whether a tensor holds one loss for each row and nothing of the others."""
        return id(value) in self._losses and value.numel() == self.rows

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _LOSSES:
            loss = self._rowwise(func, args, kwargs)
            if loss is not None:
                self._losses[id(loss)] = loss
                return loss
        out = func(*args, **kwargs)
        self._ids.follow(func, args, kwargs, out)
        if self._losses:
            self._watch(args, kwargs, out)
        return out

    def _watch(self, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Follows the losses through the arithmetic that joins them."""
        joined = args[0] if args and isinstance(args[0], (list, tuple)) else ()
        if not any(id(each) in self._losses for each in (*args, *joined)):
            return
        others = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        others = [each for each in others if id(each) not in self._losses]
        if any(each.requires_grad or self._ids.is_statistic(each) for each in others):
            self.inseparable = self.inseparable or "a part of the loss is of the whole batch"
        if isinstance(out, Tensor) and out.numel() == self.rows and out.is_floating_point():
            self._losses[id(out)] = out
        elif isinstance(out, Tensor) and out.numel() == 1 and not out.requires_grad:
            self._ids.note_statistic(out)  # such as the mean loss, to divide by

    def _rowwise(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """The losses of the rows, [B] ([] of one row); None where the call is left as it is."""
        bound = _LOSSES[func].bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        reduction = arguments["reduction"]
        if reduction == "none":
            return None  # the model reduces it by a rule of its own
        old_words = dict.fromkeys(("size_average", "reduce") & arguments.keys())
        values = func(**{**arguments, "reduction": "none", **old_words})
        if func is F.ctc_loss:  # one value a sequence
            ids = torch.arange(self.rows) if values.shape == (self.rows,) else None
            weights = arguments["target_lengths"]
            weights = torch.as_tensor(weights, device=values.device).clamp(min=1).to(values.dtype)
        else:
            ids, weights = self._find(arguments, values), _element_weights(func, arguments, values)
            if reduction == "batchmean":
                weights = weights * (values.shape[0] / max(1, values.numel()))
        if ids is None:
            self.inseparable = self.inseparable or f"{func.__name__} is given values whose rows are not known"
            return None
        if reduction == "sum" or self.reduction == "sum":
            weights = None
        losses = self._join(values, weights, ids)
        return losses.reshape(()) if self.rows == 1 else losses

    def _find(self, arguments: Mapping[str, Any], values: Tensor) -> Tensor | None:
        """The row of every loss value, of the values' shape; None where nothing tells it."""
        if self.rows == 1:
            return torch.zeros(values.shape, dtype=torch.int64)
        tensors = [each for each in arguments.values() if isinstance(each, Tensor)]
        for tensor in tensors:
            ids = self._ids.of(tensor)
            if ids is None:
                continue
            if ids.ndim > values.ndim:  # class probabilities, or several labels, for one value
                ids = ids.flatten(values.ndim)[..., 0]
            if ids.shape == values.shape or ids.numel() == values.numel():
                return ids.reshape(values.shape)
        # Targets that the model makes itself, in a shape that has the rows first; but not rows against rows.
        if any(self._ids.is_mixed(each) or each.shape[:2] == (self.rows, self.rows) for each in [*tensors, values]):
            return None
        if values.ndim and values.shape[0] == self.rows and values.numel():
            return torch.arange(self.rows).reshape(-1, *[1] * (values.ndim - 1)).expand(values.shape)
        return None

    def _join(self, values: Tensor, weights: Tensor | None, ids: Tensor) -> Tensor:
        """Sums of [...] values by row, divided by the sums of their weights if there are any: [B]."""
        if is_by_row(ids, self.rows):
            return row_reduce(values, weights, self.rows)
        if bool((ids == NO_ROW).any()):
            strays = values.detach()[(ids == NO_ROW).to(values.device)]
            if bool(strays.any()):
                self.inseparable = self.inseparable or "some loss values belong to no row"
        # Of as many buckets as rows, and one for what belongs to none.
        places = torch.where(ids == NO_ROW, self.rows, ids).flatten().to(values.device)

        def by_row(numbers: Tensor) -> Tensor:
            return numbers.new_zeros(self.rows + 1).index_add(0, places, numbers.flatten())[: self.rows]

        total = by_row(values)
        return total if weights is None else total / _at_least(by_row(weights))


def is_by_row(ids: Tensor, rows: int) -> bool:
    """Whether row numbers are those of a tensor [B, ...] flattened: as many of each, in their order."""
    if ids.numel() == 0 or ids.numel() % rows:
        return False
    return bool((ids.reshape(rows, -1) == torch.arange(rows)[:, None]).all())


def row_reduce(values: Tensor, weights: Tensor | None, rows: int) -> Tensor:
    """[B] sums of values [B * T] (any shape, the row first), or means by weights; 0 for a row that counts nothing."""
    # Class-weighted values come weighted already; ignored ones come as 0.
    total = values.reshape(rows, -1).sum(1)
    return total if weights is None else total / _at_least(weights.reshape(rows, -1).sum(1))


def _at_least(weight: Tensor) -> Tensor:
    return torch.where(weight > 0, weight, 1.0)


def _element_weights(func: Callable[..., Any], arguments: Mapping[str, Any], values: Tensor) -> Tensor:
    """What each value counts in the mean: 0 where ignored, the class weight where there are class weights."""
    weight = arguments.get("weight")
    if func in (F.mse_loss, F.l1_loss) and isinstance(weight, Tensor):
        return weight.expand_as(values).to(values.dtype)
    if func not in (F.cross_entropy, F.nll_loss) or arguments["target"].is_floating_point():
        return torch.ones_like(values)
    target = arguments["target"]
    counted = target != arguments["ignore_index"]
    if weight is None:
        return counted.to(values.dtype)
    return torch.where(counted, weight[torch.where(counted, target, 0)], 0.0).to(values.dtype)
