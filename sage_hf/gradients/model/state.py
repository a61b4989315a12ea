"""The model as it is scored, and as it was: unwrapping, modes and flags."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn

from ...errors import ConfigError
from .padding import padding_shown
from .written import configs_of, unchanged


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DDP, `torch.compile` and PEFT wrappers: hooks on a compiled graph would see nothing.

    A PEFT model's adapters live inside the base model, so its forward is the adapted one; only prompt tuning adds to
    the inputs, and stays wrapped.

    Raises:
        ConfigError: It is no model, but the name of one, say.
    """
    check_model(model)
    model = extract_model_from_parallel(model, keep_torch_compile=False)
    peft: Any = model
    if hasattr(peft, "peft_config") and hasattr(peft, "get_base_model"):
        return peft if peft.active_peft_config.is_prompt_learning else peft.get_base_model()
    return model


def check_model(model: object) -> None:
    """Refuses what is no model.

    Raises:
        ConfigError: It is none; of a name, says how to load what it names.
    """
    if isinstance(model, nn.Module):
        return
    if isinstance(model, str | os.PathLike):
        name = os.fspath(model)
        raise ConfigError(
            f"The model is given by the name {name!r}, but a loaded model is needed",
            where="model",
            fix=f"Load it with the class of your task, such as AutoModelForCausalLM.from_pretrained({name!r}), and "
            f"pass processing_class=AutoTokenizer.from_pretrained({name!r}) for raw text.",
        )
    raise ConfigError(f"A {type(model).__name__} is not a model", where="model", fix="Pass a torch.nn.Module.")


def num_weights(model: nn.Module) -> int:
    """Number of a model's weights, those that lie on other processes included."""
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in model.parameters())


@contextmanager
def as_scored(model: nn.Module) -> Iterator[list[nn.Module]]:
    """Eval mode, every parameter frozen, gradients on, torch's random state forked; all as before on the way out.

    Gives the model's modules. Put back is also what the forward pass writes: buffers, attributes of the modules, and
    configs (see `written`).
    """
    modules = list(model.modules())
    own = [parameter for module in modules for parameter in module._parameters.values() if parameter is not None]
    devices = {parameter.device for parameter in own if parameter.device.type == "cuda"}
    with (
        torch.random.fork_rng(devices=list(devices)),
        torch.inference_mode(False),
        torch.enable_grad(),
        unchanged(modules),
        padding_shown(model),
        requiring_grad(own, False),
    ):
        _to_eval_mode(modules)
        yield modules


@contextmanager
def looked_at(model: nn.Module) -> Iterator[None]:
    """Eval mode, for as long as a model is looked at and not called: there a look at a weight may change it, too.

    A spectral norm goes a step on whenever somebody asks for the weight of a module in training.
    """
    modules = list(model.modules())
    with unchanged(modules), torch.no_grad():
        _to_eval_mode(modules)
        yield


def _to_eval_mode(modules: Iterable[nn.Module]) -> None:
    for module in modules:  # `unchanged` sets both back; past `__setattr__`, which takes as long as the rest
        vars(module)["training"] = False
        if module._compiled_call_impl:
            vars(module)["_compiled_call_impl"] = None


@contextmanager
def requiring_grad(parameters: Iterable[nn.Parameter], requires_grad: bool) -> Iterator[None]:
    """Parameters that all are trainable inside, or all frozen; as before on the way out."""
    changed = [parameter for parameter in parameters if parameter.requires_grad is not requires_grad]
    try:
        for parameter in changed:
            parameter.requires_grad_(requires_grad)
        yield
    finally:
        for parameter in changed:
            parameter.requires_grad_(not requires_grad)


def leave_routing_out(modules: Iterable[nn.Module]) -> bool:
    """Switches the loss for the routing of experts off in the configs of a model's modules; whether one was on.

    It is of a batch, and no row has one of its own. Inside `as_scored`, which puts configs back.
    """
    configs = [config for config in configs_of(modules) if getattr(config, "output_router_logits", False)]
    for config in configs:
        config.output_router_logits = False
    return bool(configs)


@contextmanager
def unchanged_config(model: nn.Module) -> Iterator[None]:
    """Puts the configs of a model back: forward passes note the problem type there, Trainer switches the cache off."""
    with unchanged([], configs_of(model.modules())):
        yield
