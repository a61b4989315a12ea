"""Which weights of a model a row's gradient is of, and by which rule."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from torch import nn

from ..config import SageConfig
from ..gradients import GradientCollector
from ..gradients.layers.targets import own_parameters, trainable_weights
from ..gradients.model.state import unwrap
from .findings import ModelFindings, Problem, WeightKind
from .text import listed, percent

# Share of the trainable weights under which gradients say little of what a training changes.
LITTLE = 0.5
_EXAMPLES = 3
_RULES = {"outer": "outer product", "lookup": "table lookup", "vector": "per number"}
_UNTARGETED, _LEFT_OUT = "not targeted", "left out"


def find_model(model: nn.Module, collector: GradientCollector | None) -> ModelFindings:
    """What rows are gradients of.

    Args:
        model: The model as it was given.
        collector: The collector of its gradients; None where nothing could be targeted.
    """
    kind, model = type(model).__name__, unwrap(model)
    trained = trainable_weights(model)
    trainable = sum(parameter.numel() for parameter in trained.values())
    weights = sum(parameter.numel() for parameter in model.parameters())
    if collector is None:
        return ModelFindings(kind, weights, trainable, 0, 0.0, 0, False)
    layout, layers = collector.layout, _layers(model)
    targeted = [
        (layers[id(parameter)], _RULES.get(rule := layout.rule_name(block), rule), block.name, parameter)
        for block, parameter in layout.held
    ]
    held = {block.name for block in layout.blocks}
    others = [
        (layers[id(parameter)], _UNTARGETED, name, parameter)
        for name, parameter in trained.items()
        if name not in held
    ]
    others += [entry for entry in targeted if entry[1] == _LEFT_OUT]
    return ModelFindings(
        kind=kind,
        weights=weights,
        trainable=trainable,
        targeted=collector.num_target_weights,
        share=layout.share,
        width=collector.width,
        exact=all(block.widths == block.shape for block in layout.blocks),
        targets=_by_kind((entry for entry in targeted if entry[1] != _LEFT_OUT), trainable),
        others=_by_kind(others, trainable),
    )


def model_problems(findings: ModelFindings, collector: GradientCollector, config: SageConfig) -> Iterator[Problem]:
    """What is wrong with the targets, as far as the collector knows by now."""

    def share_of(names: Collection[str]) -> float:
        return collector.layout.weights(names) / max(1, findings.trainable)

    if findings.share < LITTLE:
        missing = ", ".join(f"{kind.layer} {percent(kind.share)} ({kind.examples[0]})" for kind in findings.others[:4])
        yield Problem(
            "warning" if config.target_modules in ("auto", "all-linear") else "note",
            f"Gradients are of {percent(findings.share)} of the trainable weights and say little about the others: "
            f"{missing}",
            "target_modules",
            'Use target_modules="all" (--target-modules all) for every weight, at more cost; or name more layers.',
        )
    if collector.left_out:
        share = share_of(collector.left_out)
        yield Problem(
            "warning" if share > 0.05 else "note",
            f"{len(collector.left_out)} parameters ({percent(share)} of the trainable weights) are left out of "
            "the gradients: no layer shows how the model uses them",
            listed(sorted(collector.left_out), 5),
            "Name them in target_modules to have them, one row at a time.",
        )
    if silent := collector.silent - collector.left_out:
        share = share_of(silent)
        yield Problem(
            "warning" if share > 0.1 else "note",
            f"The gradients of {len(silent)} parameters ({percent(share)} of the trainable weights) counted as "
            "zero in some batch: no layer that holds them took part in the loss",
            listed(sorted(silent), 5),
            "Nothing, where only some rows use these layers; else target other layers.",
        )
    if collector.leaves_routing_out:
        yield Problem(
            "note",
            "The loss for the routing of experts is of a whole batch, not of a row, so it is left out",
            "model.config",
            "Nothing: training still uses it.",
        )


def _layers(model: nn.Module) -> dict[int, str]:
    """By a parameter's id, the class of the innermost module that holds it."""
    layers: dict[int, str] = {}
    for module in model.modules():
        for parameter in own_parameters(module).values():
            layers.setdefault(id(parameter), type(module).__name__)
    for module in model.modules():  # lists and dicts of parameters, which nobody calls
        for held in module.parameters(recurse=False):
            layers.setdefault(id(held), type(module).__name__)
    return layers


def _by_kind(entries: Iterable[tuple[str, str, str, nn.Parameter]], trainable: int) -> tuple[WeightKind, ...]:
    """(layer, rule, name, parameter) entries by layer and rule, the most weights first."""
    kinds: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for layer, rule, name, parameter in entries:
        kinds.setdefault((layer, rule), []).append((name, parameter.numel()))
    made = [
        WeightKind(
            layer=layer,
            rule=rule,
            parameters=len(held),
            weights=(weights := sum(count for _, count in held)),
            share=weights / max(1, trainable),
            examples=tuple(name for name, _ in sorted(held, key=lambda each: -each[1])[:_EXAMPLES]),
        )
        for (layer, rule), held in kinds.items()
    ]
    return tuple(sorted(made, key=lambda kind: -kind.weights))
