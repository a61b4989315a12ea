"""Gradients of a layer that has no rule: it is run again on each row alone, and autograd does the rest.

Fused experts hold 85 to 98 % of a mixture's weights in one parameter [E, O, I]. Autograd would make a gradient of that
size for every expert that a row visits, so the products of tokens with an expert's slice are recorded instead, and
only their projections are made.

Axes: B rows of the batch, E experts, I layer inputs, O layer outputs, n tokens that an expert sees.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from ..losses.per_example import NotSeparable
from ..model.failures import MODEL_ERRORS, first_line, is_ours
from ..model.state import requiring_grad
from .blocks import Block, wide
from .rules import is_experts

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
# A parameter and the number of one of its experts.
_Slice = tuple[nn.Parameter, int]


class CannotRerun(NotSeparable):
    """A layer does not run again; of one row, nothing but autograd of the whole model gives its gradients.

    Args:
        what: Why.
        names: Names of the layer's targeted parameters.
    """

    def __init__(self, what: str, names: Sequence[str]) -> None:
        super().__init__(what)
        self.names = names


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer, kept until the gradient at its output is there."""

    module: nn.Module
    blocks: Sequence[tuple[Block, nn.Parameter]]  # the layer's own targeted parameters, and their places
    inputs: Inputs  # detached
    in_axes: Sequence[int | None]  # of the rows in each leaf of the inputs; None of what is the same for all rows
    out_axes: Sequence[int | None]  # of the rows in each leaf of the outputs
    size: int  # B
    autocast: torch.autocast  # as the layer computed

    def versions(self) -> list[int]:
        """Tells whether an input was changed in place since."""
        return [leaf._version for leaf in tree_leaves(self.inputs) if isinstance(leaf, Tensor)]

    def add(self, rows: Tensor, leaf: int, grad: Tensor) -> None:
        """Adds the call's share to the blocks' columns of `rows` [B, D], which hold numbers already.

        `grad` is the gradient at that leaf of the output.
        """
        axis = self.out_axes[leaf] if leaf < len(self.out_axes) else None
        if axis is None and self.size > 1:
            raise NotSeparable(f"the output of a {type(self.module).__name__} has no axis of rows")
        try:
            for index in range(self.size):
                self._add_row(rows[index], index, leaf, self._part(grad, index, axis))
        except MODEL_ERRORS as error:
            if is_ours(error):
                raise
            names = [block.name for block, _ in self.blocks]
            what = f"a {type(self.module).__name__} does not run again: {first_line(error)}"
            raise CannotRerun(what, names) from error

    def _add_row(self, row: Tensor, index: int, leaf: int, grad: Tensor) -> None:
        place = {id(parameter): block for block, parameter in self.blocks}
        sliced = [p for _, p in self.blocks if p.ndim == 3] if is_experts(self.module) else []
        recorder = _SliceRecorder(sliced)
        output, inputs = self._run(index, leaf, [p for _, p in self.blocks if p.ndim != 3 or not sliced], recorder)
        if recorder.missed:  # used in a way that is not recorded: as a whole, by autograd
            recorder = _SliceRecorder([])
            output, inputs = self._run(index, leaf, [p for _, p in self.blocks], recorder)
        if not output.requires_grad:
            return
        whole = [p for _, p in self.blocks if not any(p is each for each in recorder.parameters)]
        with requiring_grad(whole, True):
            gradients = torch.autograd.grad(output, [*whole, *inputs], grad.to(output.dtype), allow_unused=True)
        for parameter, gradient in zip(whole, gradients[: len(whole)], strict=True):
            if gradient is not None:
                block = place[id(parameter)]
                row[block.columns] += block.project(gradient).flatten().to(row)
        for use in recorder.uses:
            use.add(row, place[id(use.parameter)])

    def _run(
        self, index: int, leaf: int, whole: Sequence[nn.Parameter], recorder: _SliceRecorder
    ) -> tuple[Tensor, list[Tensor]]:
        """An output of the layer for one row, and the inputs that it can be differentiated by."""
        leaves, shape = tree_flatten(self.inputs)
        cut = [
            each if axis is None else self._part(each, index, axis)
            for each, axis in zip(leaves, self.in_axes, strict=True)
        ]
        fresh = [
            each.detach().requires_grad_() if isinstance(each, Tensor) and each.is_floating_point() else each
            for each in cut
        ]
        args, kwargs = tree_unflatten(fresh, shape)
        forward = self.module.forward
        if is_experts(self.module) and "forward" not in vars(self.module):
            # The one that goes from expert to expert, which can be recorded.
            forward = functools.partial(inspect.unwrap(type(self.module).forward), self.module)
        with torch.enable_grad(), requiring_grad(whole, True), self.autocast, recorder:
            output = tree_leaves(forward(*args, **kwargs))[leaf]
        return output, [each for each in fresh if isinstance(each, Tensor) and each.requires_grad]

    def _part(self, tensor: Tensor, index: int, axis: int | None) -> Tensor:
        """A row's share of [B * k, ...], or of [E * B * k, ...] where every expert sees all tokens."""
        if self.size == 1 or axis is None:
            return tensor
        if is_experts(self.module) and len(tree_leaves(self.inputs)) == 1:
            experts = next(p.shape[0] for p in self.module.parameters(recurse=False) if p.ndim == 3)
            return tensor.reshape(experts, self.size, -1, *tensor.shape[1:])[:, index].flatten(0, 1)
        return tensor.unflatten(axis, (self.size, -1)).select(axis, index)


def keep_call(
    module: nn.Module,
    blocks: Sequence[tuple[Block, nn.Parameter]],
    inputs: Inputs,
    axes: tuple[Sequence[int | None], Sequence[int | None]] | None,
    size: int,
) -> LayerCall:
    """A layer's call, apart from the graph that it was made in; arguments as of `LayerCall`.

    `axes` are those of the rows in the leaves of the inputs and of the outputs; None of a single row.
    """
    detached = tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, inputs)
    device = blocks[0][1].device.type
    enabled = torch.is_autocast_enabled(device)
    autocast = torch.autocast(device, dtype=torch.get_autocast_dtype(device), enabled=enabled)
    in_axes, out_axes = axes if axes is not None else ([None] * len(tree_leaves(detached)), [])
    if len(in_axes) != len(tree_leaves(detached)):
        raise NotSeparable(f"a {type(module).__name__} is called in different ways")
    return LayerCall(module, blocks, detached, in_axes, out_axes, size, autocast)


@dataclass(frozen=True)
class _Use:
    """A product of tokens with one expert's slice of a parameter."""

    parameter: nn.Parameter  # [E, O, I], or [E, I, O] where `is_left`
    expert: int
    x: Tensor  # tokens [n, I]
    grad: Tensor  # at the product, [n, O]
    is_left: bool  # whether the slice's rows belong to the tokens

    def add(self, row: Tensor, block: Block) -> None:
        x, grad = wide(self.x).flatten(0, -2), wide(self.grad).flatten(0, -2)
        left, right = (x, grad) if self.is_left else (grad, x)
        block.add_slice(row, self.expert * self.parameter.shape[1], left, right)


class _SliceRecorder(TorchFunctionMode):
    """Notes the products with slices of some parameters [E, ., .], and whether they are used in any other way.

    Attributes:
        parameters: Those.
        uses: The products, once the gradients have passed.
        missed: Whether a use was none of a known kind.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.parameters = list(parameters)
        self.uses: list[_Use] = []
        self.missed = False
        self._slices: dict[int, tuple[Tensor, _Slice]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not self.parameters:
            return out
        name = getattr(func, "__name__", "")
        values = [*args, *kwargs.values()]
        whole = next((p for p in self.parameters if any(p is each for each in values)), None)
        if whole is not None:
            self._of_whole(name, whole, args, out)
        elif any(id(each) in self._slices for each in values):
            self._of_slice(func, name, args, out)
        return out

    def _of_whole(self, name: str, parameter: nn.Parameter, args: tuple[Any, ...], out: Any) -> None:
        if name in ("__get__", "size", "dim", "numel", "element_size", "is_floating_point"):
            return
        index = args[1] if name == "__getitem__" and args[0] is parameter else None
        if name == "bmm" and args[1] is parameter:
            for expert in range(parameter.shape[0]):
                self._record((parameter, expert), args[0][expert], out, True, at=expert)
        elif isinstance(index, int) or (
            isinstance(index, Tensor) and index.ndim == 0 and not index.dtype.is_floating_point
        ):
            self._slices[id(out)] = (out, (parameter, int(index)))
        else:
            self.missed = True

    def _of_slice(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], out: Any) -> None:
        if name == "__get__":
            return
        held = self._slices.get(id(args[1])) if len(args) > 1 else None
        if held is not None and func is F.linear:
            self._record(held[1], args[0], out, False)
        elif held is not None and name in ("matmul", "__matmul__", "mm"):
            self._record(held[1], args[0], out, True)
        else:
            self.missed = True

    def _record(self, of: _Slice, x: Tensor, out: Tensor, is_left: bool, at: int | None = None) -> None:
        if not out.requires_grad:
            return
        x = x.detach()

        def on_gradient(grad: Tensor) -> None:
            self.uses.append(_Use(*of, x, grad if at is None else grad[at], is_left))

        out.register_hook(on_gradient)
