"""Hooks on the targeted layers that fill gradient rows during one forward and one backward pass.

A forward hook keeps each layer's input (projected at once, where there is a projection), a hook on the layer's output
meets the gradient there, and the layer's rule joins the two. No weight is ever differentiated, so the weights may be
frozen, sharded or quantised; and the autograd graph starts at the first targeted layer, so nothing below costs a
backward pass.

Axes: B rows of the batch, D row width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ...errors import GradientError
from ..losses.per_example import NotSeparable
from .axes import Axes
from .blocks import Share
from .layout import Layout
from .rerun import keep_call
from .rules import Lookup


class LayerHooks:
    """The hooks of one batch.

    Args:
        layout: The layers, and where their gradients go.
        rows: [B, D] to fill.
        size: B.
        axes: Which tensors have rows; None of a single row.
        packed: Lengths that an axis has where the padding was taken out of the batch.

    Attributes:
        called: Layers that took part in the forward pass with gradients.
        silent: Layers that were called without gradients.
        written: Names of the blocks that hold numbers; the others' columns are as they were.
        in_half: Whether a layer computed in half precision.
    """

    def __init__(
        self, layout: Layout, rows: Tensor, size: int, axes: Axes | None, packed: frozenset[int] = frozenset()
    ) -> None:
        self._layout, self._rows, self._size, self._axes, self._packed = layout, rows, size, axes, packed
        self._anchor = torch.ones((), requires_grad=True)
        self._leading = size
        self._rerunning = False
        self.called: set[nn.Module] = set()
        self.silent: set[nn.Module] = set()
        self.written: set[str] = set()
        self.in_half = False

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hooks are there inside, and gone afterwards."""
        with ExitStack() as hooks:
            for module in self._layout.parts:
                hooks.enter_context(module.register_forward_hook(self._on_forward, with_kwargs=True, prepend=True))
            yield

    def _on_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if self._rerunning:
            return None
        if not torch.is_grad_enabled():
            self.silent.add(module)
            return None
        self.called.add(module)
        axis = self._row_axis(module)
        with _unwatched():
            tensors = [each for each in args if isinstance(each, Tensor)] if self._packed else []
            if any(each.shape[:1] and each.shape[0] in self._packed for each in tensors):
                name = self._layout.names[module]
                raise NotSeparable(f"{name} sees the tokens of all rows as one sequence, without padding")
        if self._layout.terms(module):
            output = self._follow_terms(module, args[0] if args else next(iter(kwargs.values())), output, axis)
        if self._layout.reruns(module):
            output = self._follow_rerun(module, (args, kwargs), output)
        return output

    def _row_axis(self, module: nn.Module) -> int:
        """The axis of the rows in the first leaf of a layer's output, and of its input where a rule joins the two."""
        if self._axes is None:
            return 0
        name = self._layout.names[module]
        if module in self._axes.changing or module not in self._axes.outputs:
            raise NotSeparable(f"{name} is called for some rows only")
        if module in self._axes.shared:
            if self._is_lookup(module):
                return 0
            raise NotSeparable(f"{name} returns one output for all rows")
        if module in self._axes.reordered:
            raise NotSeparable(f"{name} does not see the rows in the order of the batch, or sees other rows with them")
        axis = next(iter(self._axes.outputs[module]), None)
        if axis is None or (self._layout.terms(module) and self._axes.inputs[module][0] != axis):
            raise NotSeparable(f"the inputs and outputs of {name} have no axis of rows")
        return axis

    def _is_lookup(self, module: nn.Module) -> bool:
        return any(isinstance(term, Lookup) for _, term in self._layout.terms(module))

    # --------------------------------------------------------------------- by rule
    def _follow_terms(self, module: nn.Module, x: Tensor, output: Tensor, axis: int) -> Tensor:
        size, name, terms = self._size, self._layout.names[module], self._layout.terms(module)
        with _unwatched():
            self.in_half |= output.element_size() < 4  # autocast inside the forward shows nowhere else
            if output.shape[0] == 1 and size > 1 and self._is_lookup(module):
                # Position embeddings are looked up once for all rows; each row gets its own copy to differentiate.
                output = output.expand(self._leading, *output.shape[1:])
            # Several times the rows, where a model folds its input.
            self._leading = max(self._leading, output.shape[axis])
            if output.shape[axis] % size:
                raise NotSeparable(f"{name} returns {list(output.shape)}, which no axis of {size} rows divides")
            rows_first = _rows_first(x.detach(), axis)
            shares = [Share(block, term, rows_first, size) for block, term in terms]
            version = x._version

        def on_gradient(grad: Tensor) -> None:
            if x._version != version:
                kept = [share.kept.untyped_storage().data_ptr() for share in shares if share.kept is not None]
                if x.untyped_storage().data_ptr() in kept:
                    raise _changed(name)
            for share in shares:
                share.add(self._rows, _rows_first(grad, axis), fresh=share.block.name not in self.written)
                self.written.add(share.block.name)

        return self._hook(output, on_gradient, is_own_base=True)

    # ------------------------------------------------------------- by running again
    def _follow_rerun(self, module: nn.Module, inputs: tuple[tuple[Any, ...], dict[str, Any]], output: Any) -> Any:
        name, held = self._layout.names[module], self._layout.reruns(module)
        axes = (self._axes.inputs[module], self._axes.outputs[module]) if self._axes is not None else None
        call = keep_call(module, held, inputs, axes, self._size)
        versions = call.versions()

        def follow(leaf: int) -> Callable[[Tensor], None]:
            def on_gradient(grad: Tensor) -> None:
                if call.versions() != versions:
                    raise _changed(name)
                for block, _ in held:
                    if block.name not in self.written:
                        self._rows[:, block.columns] = 0.0
                        self.written.add(block.name)
                self._rerunning = True
                try:
                    call.add(self._rows, leaf, grad)
                finally:
                    self._rerunning = False

            return on_gradient

        leaves, shape = tree_flatten(output)
        floating = [isinstance(each, Tensor) and each.is_floating_point() for each in leaves]
        if sum(floating) > 1:
            # One output may be made of another: each copy meets what comes from behind the layer, and nothing else.
            leaves = [each.clone() if is_float else each for each, is_float in zip(leaves, floating, strict=True)]
        hooked = [
            self._hook(each, follow(number), is_own_base=False) if is_float else each
            for number, (each, is_float) in enumerate(zip(leaves, floating, strict=True))
        ]
        return tree_unflatten(hooked, shape)

    def _hook(self, output: Tensor, on_gradient: Callable[[Tensor], None], is_own_base: bool) -> Tensor:
        """A layer's output that tells of its gradient, whatever the model then does to it in place.

        `is_own_base`: what the output is a view of, if anything, was made by the layer and by nobody else.
        """
        with _unwatched():
            is_start, is_view = not output.requires_grad, output._is_view()
            if is_view and not is_start:
                # A change in place of a view goes past the hooks on it; those of its base are met.
                base, shape = output._base, output.shape
                in_order = base is not None and base.is_contiguous() and output.is_contiguous()
                if base is not None and is_own_base and in_order and base.numel() == output.numel():
                    base.register_hook(lambda grad: on_gradient(grad.reshape(shape)))
                    return output
        if is_start:
            output = _GraphStart.apply(output, self._anchor)
        elif is_view:
            output = output.clone()
        with _unwatched():
            output.register_hook(on_gradient)
        return output


def _rows_first(tensor: Tensor, axis: int) -> Tensor:
    return tensor.movedim(axis, 0) if axis else tensor


def _unwatched() -> Any:
    """Inside, `RowwiseLosses` sees no operation: it follows the model's, and ours are most of a small model's."""
    return torch._C.DisableTorchFunction()


class _GraphStart(torch.autograd.Function):
    """Identity whose output needs a gradient. A copy, since the model may go on to change it in place."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, anchor: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None]:
        return None, None


def _changed(name: str) -> GradientError:
    return GradientError(
        f"The input of {name} is changed in place after the layer has read it",
        where=name,
        fix="Leave this module out of target_modules, or make the operation after it out of place.",
    )
