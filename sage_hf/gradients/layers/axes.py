"""Which tensors of a layer have the rows on their first axis.

A layer's output [8, 8, heads] may be 8 rows or a table of positions that all rows share; the shape alone does not
tell. So the model sees some rows and then one row fewer: what grows with the rows has them. The second time the rows
come in another order, which the outputs must follow: a model may sort its rows, or fold another axis in front of them.

Axes: B rows of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..batch_axis import Batch, batch_rows, rows_of
from ..losses.per_example import NotSeparable, accepted
from ..model.failures import MODEL_ERRORS, is_ours
from .rules import is_experts

# How far the means of a row's output may be from those in another batch, as a share of the largest: rounding.
_SAME, _SAME_HALF = 1e-3, 5e-2
# Shapes of the leaves of a call's inputs and of its outputs; None of what is no tensor.
_Shape = tuple[int, ...] | None
_Call = tuple[list[_Shape], list[_Shape], "_Digest | None"]


@dataclass(frozen=True)
class Axes:
    """What two forward passes told of the layers that were called.

    Attributes:
        inputs: Axis of the rows in every leaf of each layer's inputs: 0, 1 (where positions come first), or
            None of what is the same for all rows.
        outputs: Axis of the rows in every leaf of its outputs.
        shared: Layers whose output is one for all rows, [1, ...].
        changing: Layers that are called more or less often when there are more rows.
        reordered: Layers whose outputs do not have the rows in the order of the batch.
    """

    inputs: dict[nn.Module, Sequence[int | None]]
    outputs: dict[nn.Module, Sequence[int | None]]
    shared: frozenset[nn.Module]
    changing: frozenset[nn.Module]
    reordered: frozenset[nn.Module]


def find_axes(model: nn.Module, modules: Iterable[nn.Module], batch: Batch, device: torch.device) -> Axes:
    """Two forward passes of layers, without gradients: of the first three rows, and of the second and the first.

    Of a batch of two (the least): of both, and of the second.

    Raises:
        NotSeparable: The model does not take several rows.
    """
    most = min(batch_rows(batch), 3)
    modules = list(modules)
    again = [1, 0][: most - 1]
    more, fewer = (_calls(model, modules, rows_of(batch, rows), device) for rows in (list(range(most)), again))
    inputs: dict[nn.Module, Sequence[int | None]] = {}
    outputs: dict[nn.Module, Sequence[int | None]] = {}
    shared, changing, reordered = set(), set(), set()
    for module in modules:
        if len(more[module]) != len(fewer[module]):
            changing.add(module)
            continue
        calls = list(zip(more[module], fewer[module], strict=True))
        if not calls:  # it takes no part, or only in other batches
            continue
        inputs[module] = _same([_row_axes(one[0], other[0], most) for one, other in calls])
        outputs[module] = _same([_row_axes(one[1], other[1], most) for one, other in calls])
        firsts = {shape[:1] for one, other in calls for shape in (*one[1], *other[1]) if shape is not None}
        if firsts == {(1,)} and outputs[module][:1] == [None]:
            shared.add(module)
        axis = next(iter(outputs[module]), None)
        # Experts that see all tokens have the rows behind the experts, and take them from there.
        follows = axis is None or all(_follows(one[2], other[2], axis, again, most) for one, other in calls)
        if not follows and not is_experts(module):
            reordered.add(module)
    return Axes(inputs, outputs, frozenset(shared), frozenset(changing), frozenset(reordered))


class _Digest(NamedTuple):
    """What is kept of a layer's output to know its rows again."""

    means: list[Tensor]  # along the first two axes, [length, 2]: the mean of each entry, and of its absolute values
    is_half: bool  # whether the output is of half precision


def _digest(output: Any) -> _Digest | None:
    """Of the first leaf of an output; None where it holds no floating point numbers."""
    first = next(iter(tree_leaves(output)), None)
    if not isinstance(first, Tensor) or not first.is_floating_point() or not first.numel():
        return None
    numbers = first.detach().float().nan_to_num(0.0, 0.0, 0.0)
    means = []
    for axis in range(min(2, first.ndim)):
        entries = numbers.movedim(axis, 0).flatten(1) if first.ndim > 1 else numbers[:, None]
        means.append(torch.stack([entries.mean(1), entries.abs().mean(1)], 1))
    return _Digest(means, first.element_size() < 4)


def _follows(one: _Digest | None, other: _Digest | None, axis: int, again: list[int], most: int) -> bool:
    """Whether the rows of the second pass have the outputs that they had in the first."""
    if one is None or other is None:
        return True
    before, after = (each.means[axis].unflatten(0, (rows, -1)) for each, rows in ((one, most), (other, len(again))))
    scale = before.abs().amax((0, 1)).clamp(min=1e-6)
    return bool(((before[again] - after).abs() <= (_SAME_HALF if one.is_half else _SAME) * scale).all())


def _row_axes(more: list[_Shape], fewer: list[_Shape], most: int) -> list[int | None]:
    return [
        None if one is None or other is None else next((a for a in (0, 1) if _grows(one, other, a, most)), None)
        for one, other in zip(more, fewer, strict=False)
    ]


def _grows(more: tuple[int, ...], fewer: tuple[int, ...], axis: int, most: int) -> bool:
    """Whether an axis has as many more entries as there are more rows, and no other axis differs."""
    if len(more) != len(fewer) or axis >= len(more):
        return False
    others = [(*shape[:axis], *shape[axis + 1 :]) for shape in (more, fewer)]
    grown = more[axis] > fewer[axis] and more[axis] * (most - 1) == fewer[axis] * most
    return grown and others[0] == others[1]


def _same(calls: list[list[int | None]]) -> list[int | None]:
    """The axes of all calls of a layer; None where one call has another."""
    return [
        axis if all(call[place : place + 1] == [axis] for call in calls) else None
        for place, axis in enumerate(calls[0])
    ]


def _calls(
    model: nn.Module, modules: Sequence[nn.Module], batch: Batch, device: torch.device
) -> dict[nn.Module, list[_Call]]:
    calls: dict[nn.Module, list[_Call]] = {module: [] for module in modules}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls[module].append((_shapes((args, kwargs)), _shapes(output), _digest(output)))

    with ExitStack() as hooks:
        for module in modules:
            hooks.enter_context(module.register_forward_hook(note, with_kwargs=True))
        try:
            with torch.no_grad():
                model(**accepted(model, send_to_device(dict(batch), device)))
        except MODEL_ERRORS as error:
            if batch_rows(batch) == 1 or is_ours(error):
                raise
            raise NotSeparable(f"{type(model).__name__} fails on several rows: {error}") from error
    return calls


def _shapes(value: Any) -> list[_Shape]:
    return [tuple(leaf.shape) if isinstance(leaf, Tensor) else None for leaf in tree_leaves(value)]
