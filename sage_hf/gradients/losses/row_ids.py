"""Which row of the batch each number of a tensor belongs to, followed through the reshaping that losses do to labels.

A loss function sees labels flattened, shifted, or with the padding taken out. From a batch's own tensors, whose first
axis is the row, the operations before the loss are repeated on row numbers, so that each loss value is known to its
row however many values a row has.

Axes: B rows of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map_only

# Belongs to no row: what padding and new tensors hold.
NO_ROW = -1

# Operations that give each number the place it had.
_ELEMENTWISE = frozenset(
    (
        *("to", "type", "type_as", "long", "int", "short", "float", "double", "half", "bfloat16", "bool", "cpu"),
        *("cuda", "clone", "contiguous", "detach", "clamp", "clamp_", "clamp_min", "clamp_max", "masked_fill"),
        *("masked_fill_", "where", "nan_to_num", "abs", "neg", "add", "add_", "sub", "sub_", "mul", "mul_", "div"),
        *("div_", "true_divide", "floor_divide", "remainder", "__rsub__", "__radd__", "__rmul__", "log", "log1p"),
        *("eq", "ne", "gt", "ge", "lt", "le", "logical_and", "logical_or", "logical_not", "__and__", "__or__"),
        *("tanh", "sigmoid", "relu", "sin", "cos", "erf", "softplus", "gelu", "silu", "lerp", "fmod", "floor", "ceil"),
        *("__invert__", "bitwise_not", "bitwise_and", "bitwise_or", "sign", "round", "exp", "sqrt", "pow", "square"),
    )
)
# Operations that move numbers, which are done to the row numbers too; a view of row numbers may need a copy.
_MOVING = {"view": "reshape", "view_as": "reshape_as"} | {
    name: name
    for name in (
        *("reshape", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze", "transpose", "swapaxes", "t"),
        *("permute", "movedim", "expand", "expand_as", "repeat", "repeat_interleave", "narrow", "select", "chunk"),
        *("split", "unbind", "index_select", "masked_select", "flip", "roll", "__getitem__", "adjoint", "tile"),
    )
}
_JOINING = frozenset(("cat", "concat", "stack"))
_REDUCING = frozenset(("sum", "mean", "count_nonzero", "max", "min", "amax", "amin", "any", "all", "prod", "norm"))


class RowIds:
    """Row numbers of the tensors that come from a batch.

    Args:
        batch: The tensors that the model is given, on any device. Those whose first axis is B are followed.
        rows: B.
    """

    def __init__(self, batch: Mapping[str, Any], rows: int) -> None:
        # The tensors are kept with their row numbers: an id is another tensor's as soon as its own is gone.
        self._known: dict[int, tuple[Tensor, Tensor]] = {}
        self._of_batch: dict[int, Tensor] = {}
        self._mixed: dict[int, Tensor] = {}
        self._noted: set[int] = set()  # the ids in all three: most operations of a model meet none of them
        for value in batch.values():
            if isinstance(value, Tensor) and value.ndim and value.shape[0] == rows:
                ids = torch.arange(rows).reshape(-1, *[1] * (value.ndim - 1))
                self._note(value, ids.expand(value.shape))

    def of(self, tensor: Any) -> Tensor | None:
        """The row number of every entry, int64 on the CPU and of the tensor's shape; None where it is not known."""
        known = self._known.get(id(tensor))
        return None if known is None or known[1].shape != tensor.shape else known[1]

    def is_statistic(self, tensor: Any) -> bool:
        """Whether a tensor is one number taken from several rows, such as the count of all labels."""
        return id(tensor) in self._of_batch

    def note_statistic(self, tensor: Tensor) -> None:
        """Notes that a tensor is one number taken from several rows."""
        self._of_batch[id(tensor)] = tensor
        self._noted.add(id(tensor))

    def is_mixed(self, tensor: Any) -> bool:
        """Whether a tensor was made of entries of several rows, such as which rows have the same label."""
        return id(tensor) in self._mixed

    def follow(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        """Notes what an operation made of tensors whose rows are known."""
        name = getattr(func, "__name__", "")
        if name in _JOINING:
            return self._join(name, args, kwargs, out)
        if self._noted.isdisjoint(map(id, args)):
            return None
        if any(id(each) in self._mixed for each in args) and isinstance(out, Tensor):
            self._note_mixed(out)
        if not any(id(each) in self._known or id(each) in self._of_batch for each in args):
            return None
        if name == "__setitem__":
            return self._write(*args)
        try:
            moved = self._moved(name, args, kwargs, out)
        except (RuntimeError, TypeError, IndexError, ValueError):  # an operation that row numbers cannot follow
            moved = None
        if isinstance(moved, Tensor):
            self._note(out, moved)
        elif isinstance(moved, (tuple, list)):
            for part, ids in zip(out, moved, strict=True):
                self._note(part, ids)
        elif isinstance(out, Tensor) and out.numel() == 1 and not out.requires_grad and name != "__get__":
            self.note_statistic(out)
        return None

    def _note_mixed(self, tensor: Tensor) -> None:
        self._mixed[id(tensor)] = tensor
        self._noted.add(id(tensor))

    def _note(self, tensor: Tensor, ids: Tensor) -> None:
        if isinstance(tensor, Tensor) and tensor.shape == ids.shape:
            self._known[id(tensor)] = (tensor, ids)
            self._noted.add(id(tensor))

    def _moved(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> Any:
        if name in _ELEMENTWISE and isinstance(out, Tensor):
            spread = [ids.broadcast_to(out.shape) for each in args if (ids := self.of(each)) is not None]
            if all(torch.equal(spread[0], ids) for ids in spread[1:]):
                return spread[0] if spread else None
            self._note_mixed(out)  # row i against row j is of neither
            return None
        first = self.of(args[0]) if args else None
        if first is None:
            return None
        if name == "pad" and kwargs.get("mode", args[2] if len(args) > 2 else "constant") == "constant":
            return F.pad(first, kwargs["pad"] if "pad" in kwargs else args[1], value=NO_ROW)
        if name == "one_hot":
            return first.unsqueeze(-1).expand(out.shape)
        if name in _REDUCING and isinstance(out, Tensor) and out.ndim:
            axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if axis is None or not torch.equal(torch.amax(first, axis), torch.amin(first, axis)):
                return None  # of several rows
            return torch.amax(first, axis, keepdim=out.ndim == first.ndim)
        if name in _MOVING:
            method = getattr(first, _MOVING[name])
            return method(*_on_cpu(args[1:]), **_on_cpu(kwargs))
        return None

    def _join(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        parts = args[0] if args else kwargs.get("tensors", ())
        if not any(id(part) in self._known for part in parts):
            return
        ids = [known if (known := self.of(part)) is not None else _nobody(part) for part in parts]
        axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        self._note(out, torch.stack(ids, axis) if name == "stack" else torch.cat(ids, axis))

    def _write(self, tensor: Tensor, index: Any, value: Any) -> None:
        ids = self.of(value)
        if ids is None:
            return
        own = self.of(tensor)
        own = _nobody(tensor) if own is None else own.clone()
        own[_on_cpu(index)] = ids
        self._note(tensor, own)


def _nobody(tensor: Tensor) -> Tensor:
    return torch.full(tensor.shape, NO_ROW)


def _on_cpu(values: Any) -> Any:
    """Arguments of an operation with index tensors where the row numbers are."""
    return tree_map_only(Tensor, lambda value: value.detach().cpu(), values)
