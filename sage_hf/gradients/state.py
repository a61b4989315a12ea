"""The model as it is scored, and as it was: unwrapping, modes and flags."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn

from .padding import padding_shown


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DDP, `torch.compile` and PEFT wrappers: hooks on a compiled graph would see nothing.

    A PEFT model's adapters live inside the base model, so its forward is the adapted one; only prompt tuning adds to
    the inputs, and stays wrapped.
    """
    model = extract_model_from_parallel(model, keep_torch_compile=False)
    peft: Any = model
    if hasattr(peft, "peft_config") and hasattr(peft, "get_base_model"):
        return peft if peft.active_peft_config.is_prompt_learning else peft.get_base_model()
    return model


@contextmanager
def as_scored(model: nn.Module) -> Iterator[None]:
    """Eval mode, every parameter frozen, gradients on, torch's random state forked; all as before on the way out."""
    training = [module for module in model.modules() if module.training]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    compiled = [(module, module._compiled_call_impl) for module in model.modules() if module._compiled_call_impl]
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with (
        torch.random.fork_rng(devices=list(devices)),
        torch.inference_mode(False),
        torch.enable_grad(),
        unchanged_config(model),
        padding_shown(model),
    ):
        try:
            for module in training:
                module.training = False
            for parameter in trainable:
                parameter.requires_grad_(False)
            for module, _ in compiled:
                module._compiled_call_impl = None
            yield
        finally:
            for module in training:
                module.training = True
            for parameter in trainable:
                parameter.requires_grad_(True)
            for module, implementation in compiled:
                module._compiled_call_impl = implementation


@contextmanager
def unchanged_config(model: nn.Module) -> Iterator[None]:
    """Puts a model's config back: forward passes note the problem type there, Trainer switches the cache off."""
    config = getattr(model, "config", None)
    settings = dict(vars(config)) if config is not None else {}
    try:
        yield
    finally:
        if config is not None:
            vars(config).clear()
            vars(config).update(settings)
