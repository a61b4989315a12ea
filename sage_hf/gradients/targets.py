"""Which parameters the gradients are of: from `target_modules` to parameters.

The words are PEFT's. A list matches module names by their ending ("query" matches "encoder.layer.0.query"), a string
that is no keyword is a regular expression for the whole name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from torch import nn

from ..config import TARGET_KEYWORDS
from ..errors import TargetError
from .rules import LINEAR_KINDS, MATRIX_KINDS, kind_of, rule_for

# How many module names an error lists.
_NAMED = 12


def resolve_targets(model: nn.Module, target_modules: str | Sequence[str]) -> dict[str, nn.Parameter]:
    """The targeted parameters by name, in the order of `model.named_parameters()`, each once.

    Parameters that do not train (`requires_grad=False`) are left out unless nothing in the model trains: of a model
    with adapters the adapters are targeted, of one with a frozen body the rest.

    Args:
        model: Any module.
        target_modules: "auto": weights of Linear, Conv1D and convolution layers, without a vocabulary-sized output
            layer. "all-linear": the same without convolutions. "head": the parameters of the output layer. "all":
            every parameter that has a rule. A list of name endings or a regular expression: every parameter of the
            matching modules, or the matching parameters.

    Raises:
        TargetError: Nothing matches, a name matches nothing, or a matching module has no rule.
    """
    if not any(True for _ in model.parameters()):
        raise TargetError("The model has no parameters", where="model", fix="Pass a model with weights.")
    if isinstance(target_modules, str) and target_modules in TARGET_KEYWORDS:
        chosen = _by_keyword(model, target_modules)
    else:
        chosen = _by_name(model, target_modules)
    chosen -= _used_otherwise(model)
    if trainable := {id(parameter) for parameter in model.parameters() if parameter.requires_grad}:
        chosen &= trainable
    targets = {name: parameter for name, parameter in model.named_parameters() if id(parameter) in chosen}
    if not targets:
        raise TargetError(
            f"target_modules={target_modules!r} targets no trainable weight that has a rule; the modules are "
            f"{_describe(model)}",
            where="target_modules",
            fix="Name modules of the model, unfreeze their weights, or use 'all'.",
        )
    return targets


def owners(model: nn.Module, parameter: nn.Parameter) -> list[tuple[str, nn.Module, str]]:
    """(module name, module, parameter's name in it) of every module that holds a parameter; several if tied."""
    return [
        (name, module, own)
        for name, module in model.named_modules()
        for own, held in module.named_parameters(recurse=False)
        if held is parameter
    ]


def uncovered(model: nn.Module) -> list[str]:
    """Names of trainable parameters that no rule covers: bare parameters, fused experts, unknown layer kinds."""
    covered = _of_modules(model.modules()) - _used_otherwise(model)
    return [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in covered]


def _holds_weights(module: nn.Module) -> bool:
    """Whether a module has parameters of its own, not only in its parts."""
    return next(module.parameters(recurse=False), None) is not None


def _of_modules(modules: Iterable[nn.Module]) -> set[int]:
    """Ids of the parameters of these modules that a rule covers."""
    found = set()
    for module in modules:
        if not _holds_weights(module):
            continue
        rule = rule_for(module)
        terms = rule(module) if rule is not None else {}
        found |= {id(p) for own, p in module.named_parameters(recurse=False) if own in terms}
    return found


def _used_otherwise(model: nn.Module) -> set[int]:
    """ids of parameters that a layer without a rule computes with, such as the table of a scaled embedding.

    Where one is tied to a layer that has a rule, its gradient would lack a part.
    """
    unruly = (module for module in model.modules() if kind_of(module) is not None and rule_for(module) is None)
    return {id(parameter) for module in unruly for parameter in module.parameters(recurse=False)}


def _by_keyword(model: nn.Module, keyword: str) -> set[int]:
    if keyword == "all":
        return _of_modules(model.modules())
    if keyword == "head":
        return _of_modules(_head(model))
    kinds = MATRIX_KINDS if keyword == "auto" else LINEAR_KINDS
    vocabulary = set(_vocabulary_head(model))
    layers = [module for module in model.modules() if isinstance(module, kinds) and module not in vocabulary]
    return {id(module.weight) for module in layers if rule_for(module) is not None}


def _vocabulary_head(model: nn.Module) -> list[nn.Module]:
    """The language-model head, with what wraps it: millions of weights that mostly count tokens."""
    getter = getattr(model, "get_output_embeddings", None)
    try:
        head = getter() if getter is not None else None
    except (NotImplementedError, AttributeError):
        return []
    return list(head.modules()) if isinstance(head, nn.Module) else []


def _head(model: nn.Module) -> list[nn.Module]:
    """The modules outside the model's body; of a model that names no body, the last layer."""
    body = getattr(model, "base_model", model)
    if body is not model and isinstance(body, nn.Module):
        inside = {id(module) for module in body.modules()}
        outside = [module for module in model.modules() if id(module) not in inside]
        if _of_modules(outside):
            return outside
    last = [module for module in model.modules() if isinstance(module, MATRIX_KINDS)]
    return last[-1:]


def output_layer(model: nn.Module) -> nn.Module | None:
    """The last matrix or convolution layer of the model's output part; None where there is none."""
    inside = [layer for module in _head(model) for layer in module.modules() if isinstance(layer, MATRIX_KINDS)]
    return inside[-1] if inside else None


def _by_name(model: nn.Module, target_modules: str | Sequence[str]) -> set[int]:
    patterns = [target_modules] if isinstance(target_modules, str) else list(target_modules)
    is_regex = isinstance(target_modules, str)

    def matches(pattern: str, name: str) -> bool:
        if is_regex:
            return re.fullmatch(pattern, name) is not None
        return name == pattern or name.endswith(f".{pattern}")

    if is_regex:
        try:
            re.compile(patterns[0])
        except re.error as error:
            raise TargetError(
                f"{patterns[0]!r} is no regular expression ({error})",
                where="target_modules",
                fix="Correct the expression, or pass names as a list.",
            ) from error
    chosen: set[int] = set()
    for pattern in patterns:
        modules = {name: module for name, module in model.named_modules() if name and matches(pattern, name)}
        owning = {name: m for name, m in modules.items() if _holds_weights(m)}
        ruleless = [f"{name} ({type(module).__name__})" for name, module in owning.items() if rule_for(module) is None]
        if ruleless and not is_regex:
            raise TargetError(
                f"No rule gives per-example gradients of {ruleless[:_NAMED]}",
                where=f"target_modules, {pattern!r}",
                fix="Target other modules; sage_hf.gradients.rules.RULES lists the kinds that work.",
            )
        parameters = {id(p) for name, p in model.named_parameters() if matches(pattern, name)}
        found = _of_modules(owning.values()) | (parameters & _of_modules(model.modules()))
        if not found:
            raise TargetError(
                f"{pattern!r} matches no layer with weights; the modules are {_describe(model)}",
                where="target_modules",
                fix="Give the ending of a module's name, or a regular expression for the whole name.",
            )
        chosen |= found
    return chosen


def _describe(model: nn.Module) -> str:
    held = [
        f"{name or 'the model itself'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if _holds_weights(module)
    ]
    shown = ", ".join(held[:_NAMED])
    return shown + (f" and {len(held) - _NAMED} more" if len(held) > _NAMED else "")
