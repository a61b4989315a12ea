"""Losses for the routing of experts: they are of a batch, and no row has one of its own."""

from __future__ import annotations

from torch import nn

from .written import configs_of

_SWITCH = "output_router_logits"


def leave_routing_out(model: nn.Module) -> bool:
    """Switches the routing loss off in a model's configs, those inside them, too; whether one was on.

    Inside `as_scored`, which puts configs back.
    """
    configs = [config for config in configs_of(model.modules()) if getattr(config, _SWITCH, False)]
    for config in configs:
        setattr(config, _SWITCH, False)
    return bool(configs)
