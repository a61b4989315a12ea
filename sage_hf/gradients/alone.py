"""The gradient of one row by plain autograd: slow, without hooks, and what the collector is checked against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .loss import Batch, own_loss


def gradients_alone(
    model: nn.Module, parameters: Sequence[nn.Parameter], batch: Batch, loss_settings: dict[str, Any]
) -> list[Tensor | None]:
    """d(loss) / d(parameter) for a batch of one row; None for a weight without a gradient (quantised).

    Args:
        model: Frozen; the parameters are thawed meanwhile.
        parameters: What to differentiate.
        batch: One row.
        loss_settings: As `per_example_loss` takes them.
    """
    floating = [parameter for parameter in parameters if parameter.is_floating_point()]
    # All of them, not the targets alone: the graph must be the one that training has.
    thawed = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    try:
        for parameter in thawed:
            parameter.requires_grad_(True)
        loss = own_loss(model, batch, **loss_settings)
        found = torch.autograd.grad(loss, floating, allow_unused=True)
    finally:
        for parameter in thawed:
            parameter.requires_grad_(False)
    gradients = dict(zip(map(id, floating), found, strict=True))
    # A weight that the loss does not reach has a gradient of zero; one that cannot be differentiated has none.
    return [
        None if id(parameter) not in gradients else _or_zeros(gradients[id(parameter)], parameter)
        for parameter in parameters
    ]


def _or_zeros(gradient: Tensor | None, parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if gradient is None else gradient
