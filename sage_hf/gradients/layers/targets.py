"""Which parameters the gradients are of: from `target_modules` to parameters.

The words are PEFT's. A list matches module names by their ending ("query" matches "encoder.layer.0.query"), a string
that is no keyword is a regular expression for the whole name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from ...config import TARGET_KEYWORDS
from ...errors import TargetError
from .depth import last_layers
from .rules import LINEAR_KINDS, MATRIX_KINDS, is_experts

# How many module names an error lists.
_NAMED = 12


def resolve_targets(model: nn.Module, target_modules: str | Sequence[str]) -> dict[str, nn.Parameter]:
    """The targeted parameters by name, in the order of `model.named_parameters()`, each once.

    Parameters that do not train (`requires_grad=False`) are left out unless nothing in the model trains: of a model
    with a frozen body the rest is targeted. Of a model with adapters the adapters are, also where they were loaded
    for inference and nothing trains.

    Args:
        model: Any module.
        target_modules: "auto": weights of linear layers, convolutions and fused experts, without a vocabulary-sized
            output layer. "last": those of the last blocks, and of layers behind them, as `depth.last_layers`.
            "all-linear": those of linear layers. "head": the parameters of the output layer. "all": every parameter. A
            list of name endings or a regular expression: every parameter of the matching modules, or the matching
            parameters.

    Raises:
        TargetError: Nothing matches, a name matches nothing, or a weight is complex.
    """
    if not any(True for _ in model.parameters()):
        raise TargetError("The model has no parameters", where="model", fix="Pass a model with weights.")
    by_keyword = is_keyword(target_modules)
    chosen = _by_keyword(model, str(target_modules)) if by_keyword else _by_name(model, target_modules)
    trainable = _trainable(model)
    chosen &= trainable
    if not chosen and target_modules in ("auto", "last"):  # such as a model of bare parameters
        chosen = trainable
    if target_modules == "last":
        chosen = last_layers(model, chosen, part_of(model, "get_decoder"), _outside_body(model))
    targets = _floating(model, chosen)
    if complex_ones := [name for name, p in model.named_parameters() if id(p) in chosen and p.is_complex()]:
        raise TargetError(
            f"The weights {complex_ones[:_NAMED]} are complex numbers, and a gradient row is of real ones",
            where="target_modules",
            fix="Name other modules, or hold these weights as two real ones.",
        )
    if not targets:
        fix = "Name modules of the model, or unfreeze their weights."
        if target_modules != "all":
            fix = 'Name modules of the model, unfreeze their weights, or use "all".'
        raise TargetError(
            f"target_modules={target_modules!r} targets no trainable weight; the modules are {_describe(model)}",
            where="target_modules",
            fix=fix,
        )
    return targets


def is_keyword(target_modules: str | Sequence[str]) -> bool:
    """Whether targets are told by a word ("auto") instead of by names."""
    return isinstance(target_modules, str) and target_modules in TARGET_KEYWORDS


def trainable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that a training would change, by name: of a frozen model all, of adapters these."""
    return _floating(model, _trainable(model))


def _floating(model: nn.Module, ids: set[int]) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if id(p) in ids and p.is_floating_point()}


def _trainable(model: nn.Module) -> set[int]:
    """Ids of the parameters that train; where none does, of the adapters that would, or of all."""
    trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    return trainable or _adapters(model) or {id(parameter) for parameter in model.parameters()}


def _adapters(model: nn.Module) -> set[int]:
    """Ids of the parameters of PEFT's adapters, and of the modules that are trained beside them."""
    tuners: Any = sys.modules.get("peft.tuners.tuners_utils")  # without it no adapter is there
    if tuners is None:
        return set()
    others: Any = sys.modules.get("peft.utils.other")
    beside = (others.AuxiliaryTrainingWrapper,) if hasattr(others, "AuxiliaryTrainingWrapper") else ()
    prompts = getattr(model, "prompt_encoder", None)
    ids = {id(p) for p in prompts.parameters()} if isinstance(prompts, nn.Module) else set()
    for module in model.modules():
        if isinstance(module, tuners.BaseTunerLayer):
            active = set(module.active_adapters)
            for name in module.adapter_layer_names:
                held = getattr(module, name, None)
                parts = held.items() if isinstance(held, (nn.ModuleDict, nn.ParameterDict)) else ()
                for adapter, part in parts:
                    if adapter in active:
                        ids |= {id(p) for p in (part.parameters() if isinstance(part, nn.Module) else [part])}
        elif isinstance(module, beside):
            held = getattr(module, "modules_to_save", None)
            if held is not None:
                ids |= {id(p) for p in held.parameters()}
    return ids


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """A module's parameters that are not in its parts, by name; those that a parametrised weight is made of, too."""
    if isinstance(module, (ParametrizationList, nn.ParameterDict, nn.ParameterList)):
        return {}  # nobody calls these: others compute with what they hold
    own = dict(module.named_parameters(recurse=False))
    if is_parametrized(module):
        lists: Any = module.parametrizations
        own |= {f"parametrizations.{name}": p for name, p in lists.named_parameters()}
    return own


def owners(model: nn.Module, parameter: nn.Parameter) -> list[tuple[str, nn.Module, str]]:
    """(module name, module, parameter's name in it) of every module that holds a parameter; several if tied."""
    return [
        (name, module, own)
        for name, module in model.named_modules()
        for own, held in own_parameters(module).items()
        if held is parameter
    ]


def _of_modules(modules: Iterable[nn.Module]) -> set[int]:
    """Ids of the parameters of these modules."""
    return {id(parameter) for module in modules for parameter in own_parameters(module).values()}


def _by_keyword(model: nn.Module, keyword: str) -> set[int]:
    if keyword == "all":
        return {id(parameter) for parameter in model.parameters()}
    if keyword == "head":
        return _of_modules(_head(model))
    # The language-model head, with what wraps it: millions of weights that mostly count tokens.
    head = part_of(model, "get_output_embeddings")
    vocabulary = set(head.modules()) if head is not None else set()
    ids: set[int] = set()
    for module in model.modules():
        if module in vocabulary or not (isinstance(module, MATRIX_KINDS) or is_experts(module)):
            continue
        if keyword == "all-linear" and not (isinstance(module, LINEAR_KINDS) or is_experts(module)):
            continue
        ids |= {id(p) for name, p in own_parameters(module).items() if p.ndim > 1 and not name.endswith("bias")}
    return ids


def part_of(model: nn.Module, getter: str) -> nn.Module | None:
    """What a method of a model such as `get_input_embeddings` gives; None where it has none, or knows no answer."""
    get = getattr(model, getter, None)
    try:
        part = get() if get is not None else None
    except (NotImplementedError, AttributeError):
        return None
    return part if isinstance(part, nn.Module) else None


def _head(model: nn.Module) -> list[nn.Module]:
    """The modules outside the model's body; of a model that names no body, the last layer."""
    outside = _outside_body(model)
    if _of_modules(outside):
        return outside
    last = [module for module in model.modules() if isinstance(module, MATRIX_KINDS)]
    return last[-1:]


def _outside_body(model: nn.Module) -> list[nn.Module]:
    """The modules outside the model's body; none of a model that names no body."""
    body = getattr(model, "base_model", model)
    if body is model or not isinstance(body, nn.Module):
        return []
    inside = {id(module) for module in body.modules()}
    return [module for module in model.modules() if id(module) not in inside]


def output_layer(model: nn.Module) -> nn.Module | None:
    """The last matrix or convolution layer of the model's output part; None where there is none."""
    inside = [layer for module in _head(model) for layer in module.modules() if isinstance(layer, MATRIX_KINDS)]
    return inside[-1] if inside else None


def _by_name(model: nn.Module, target_modules: str | Sequence[str]) -> set[int]:
    if isinstance(target_modules, str):
        patterns = {target_modules: target_modules}
    else:
        patterns = {ending: rf"(.*\.)?{re.escape(ending)}" for ending in target_modules}
    chosen: set[int] = set()
    for pattern, expression in patterns.items():
        try:
            matches = re.compile(expression).fullmatch
        except re.error as error:
            raise TargetError(
                f"{pattern!r} is not a valid regular expression ({error})",
                where="target_modules",
                fix="Correct the expression, or pass names as a list.",
            ) from error
        modules = [module for name, module in model.named_modules() if name and matches(name)]
        ids = _of_modules(modules) | {id(p) for name, p in model.named_parameters() if matches(name)}
        if not ids:
            raise TargetError(
                f"{pattern!r} matches no layer with weights; the modules are {_describe(model)}",
                where="target_modules",
                fix="Give the ending of a module's name, or a regular expression for the whole name.",
            )
        chosen |= ids
    return chosen


def _describe(model: nn.Module) -> str:
    held = [
        f"{name or 'the model itself'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if own_parameters(module)
    ]
    shown = ", ".join(held[:_NAMED])
    return shown + (f" and {len(held) - _NAMED} more" if len(held) > _NAMED else "")
