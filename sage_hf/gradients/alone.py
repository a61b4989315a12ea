"""The gradient of one row by plain autograd: slow, without hooks on layers, and what the collector is checked against.

Axes: D row width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .layers.blocks import Block
from .losses.per_example import Batch, own_loss

Held = Sequence[tuple[Block, nn.Parameter]]


@contextmanager
def gradients_into(row: Tensor, held: Held, also_thawed: Sequence[nn.Parameter] = ()) -> Iterator[None]:
    """Inside, a backward pass adds the gradients of some parameters to their columns of a gradient row [D].

    Each is projected as soon as it is there and then freed, so that no second model of gradients is held. A function
    that calls a backward pass of its own (reversible layers) is heard, too. Those of `also_thawed` only have
    `requires_grad` meanwhile. `.grad` and `requires_grad` come back.
    """
    blocks = {parameter: block for block, parameter in held} | dict.fromkeys(also_thawed)
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in blocks]

    def add(parameter: Tensor) -> None:
        block = blocks[parameter]  # type: ignore[index]
        if block is not None:
            assert parameter.grad is not None
            row[block.columns] += block.project(parameter.grad.detach()).flatten().to(row)
        parameter.grad = None

    try:
        with ExitStack() as hooks:
            for parameter in blocks:
                parameter.requires_grad_(True)
                parameter.grad = None
                hooks.enter_context(parameter.register_post_accumulate_grad_hook(add))
            yield
    finally:
        for parameter, requires_grad, grad in before:
            parameter.grad = grad
            parameter.requires_grad_(requires_grad)


def row_alone(model: nn.Module, held: Held, batch: Batch, loss_settings: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The gradient row of a batch of one, [D] float64, and its loss []; loss settings as of `per_example_loss`."""
    row = torch.zeros(held[-1][0].columns.stop, dtype=torch.float64, device=held[0][1].device)
    mine = {id(parameter) for _, parameter in held}
    # All of them, not the targets alone: the graph must be the one that training has.
    others = [p for p in model.parameters() if p.is_floating_point() and id(p) not in mine]
    with gradients_into(row, held, others):
        loss = own_loss(model, batch, **loss_settings)
        if loss.requires_grad:
            loss.backward()
    return row, loss.detach()
