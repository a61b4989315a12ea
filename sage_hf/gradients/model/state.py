"""The model as it is scored, and as it was: unwrapping, modes and flags."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn
from torch.nn.parameter import is_lazy

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
    """Refuses what is no model, or one that is not ready for a forward pass and hooks.

    Raises:
        ConfigError: It is none (of a name, says how to load what it names), compiled by `torch.jit`, or has weights
            without numbers.
    """
    if isinstance(model, nn.Module):
        _check_parts(model)
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


def _check_parts(model: nn.Module) -> None:
    is_offloaded = any(hasattr(module, "_hf_hook") for module in model.modules())  # its weights come for each call
    for place, module in model.named_modules():
        # Parts without buffers can be scored around; what a forward pass writes to the others cannot be put back.
        is_compiled = isinstance(module, torch.jit.ScriptModule)
        if is_compiled and (module is model or next(module.buffers(), None) is not None):
            raise ConfigError(
                f"The {'layer' if place else 'model'} is compiled by torch.jit, whose modules take no hooks",
                where=place or "model",
                fix="Pass the model as it was before torch.jit.trace or torch.jit.script.",
            )
        passing = module._non_persistent_buffers_set
        for name, tensor in {**module._parameters, **module._buffers}.items():
            where = f"{place}.{name}" if place else name
            if tensor is not None and is_lazy(tensor):
                raise ConfigError(
                    "A lazy layer has seen no batch yet, so it has no weights",
                    where=where,
                    fix="Call the model on a batch once, before it is passed.",
                )
            if tensor is not None and tensor.is_meta and not is_offloaded and name not in passing:
                raise ConfigError(
                    "A weight is on the meta device, so it has a shape and no numbers",
                    where=where,
                    fix="Load the model's weights (from_pretrained, or model.to_empty and load_state_dict).",
                )


def check_differentiable(model: nn.Module) -> None:
    """Refuses weights that no gradient can be taken of.

    Raises:
        ConfigError: Some were made in inference mode, or lie elsewhere between two calls.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ConfigError(
                "A weight is offloaded to the memory or the disk, so no gradient of it can be taken",
                where=name,
                fix="Load the model onto one device, without offloading.",
            )
        if parameter.is_inference():
            raise ConfigError(
                "A weight was made under torch.inference_mode, so no gradient of it can be taken",
                where=name,
                fix="Make or load the model outside of torch.inference_mode, or pass copy.deepcopy(model).",
            )


def has_half_weights(model: nn.Module) -> bool:
    """Whether a model has weights in half precision, or a smaller type of decimals."""
    return any(parameter.is_floating_point() and parameter.element_size() < 4 for parameter in model.parameters())


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
