"""Where each targeted parameter's gradient goes in a row, and how it is found.

Three ways: by the rule of the layers that hold the parameter; by running a layer again (`Rerun`); and, where hooks on
layers see nothing of it (a bare parameter of the model, a weight that others use without calling its layer), by plain
autograd of rows alone. The last is slow, so parameters that were not asked for by name are left out instead, with a
warning, while they are the smaller part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import nn

from ...errors import TargetError
from ..model.state import looked_at
from .blocks import Block
from .projection import block_widths
from .rules import Rerun, Term, Vector, matrix_shape, rule_for
from .targets import is_keyword, owners, resolve_targets, trainable_weights

Projection = int | Literal["auto"] | None
RowWidth = int | Literal["auto"]

# Share of the targeted weights up to which those that no layer shows are left out rather than taken slowly.
_LEFT_OUT_AT_MOST = 0.5


class Part(NamedTuple):
    """A parameter of a layer: its place, and how its gradient follows from the layer's calls."""

    block: Block
    parameter: nn.Parameter
    term: Term


@dataclass
class Layout:
    """The targeted parameters of a model.

    Attributes:
        held: Each parameter and its place in the row, in the order of `model.named_parameters()`.
        parts: What each layer that is hooked has of them.
        names: The layers' names.
        asked_by_name: Whether the targets were named, not told by a word such as "auto".
        alone: Names of parameters that plain autograd takes.
        left_out: Names of parameters whose columns stay zero.
        trainable: Number of weights that a training changes.
    """

    held: list[tuple[Block, nn.Parameter]]
    asked_by_name: bool
    trainable: int
    parts: dict[nn.Module, list[Part]] = field(default_factory=dict)
    names: dict[nn.Module, str] = field(default_factory=dict)
    alone: set[str] = field(default_factory=set)
    left_out: set[str] = field(default_factory=set)

    @property
    def blocks(self) -> list[Block]:
        """The places."""
        return [block for block, _ in self.held]

    def terms(self, module: nn.Module) -> list[tuple[Block, Term]]:
        """Places and terms of a layer's parameters that its rule is for."""
        return [(part.block, part.term) for part in self.parts[module] if not isinstance(part.term, Rerun)]

    def reruns(self, module: nn.Module) -> list[tuple[Block, nn.Parameter]]:
        """A layer's parameters for which it is run again, and their places."""
        return [(part.block, part.parameter) for part in self.parts[module] if isinstance(part.term, Rerun)]

    @property
    def taken_alone(self) -> list[tuple[Block, nn.Parameter]]:
        """Those of `held` that plain autograd takes."""
        return [(block, parameter) for block, parameter in self.held if block.name in self.alone]

    def weights(self, names: Iterable[str] | None = None) -> int:
        """Number of weights in the parameters of these names; of all that are not left out by default."""
        chosen = {block.name for block in self.blocks} - self.left_out if names is None else set(names)
        return sum(parameter.numel() for block, parameter in self.held if block.name in chosen)

    @property
    def rerun_names(self) -> list[str]:
        """Names of parameters whose gradients come of running a layer again."""
        return [block.name for module in self.parts for block, _ in self.reruns(module)]

    @property
    def share(self) -> float:
        """Targeted weights as a share of those that a training changes."""
        return self.weights() / max(1, self.trainable)

    def rule_name(self, block: Block) -> str:
        """How a parameter's gradient is found, in a word or two."""
        if block.name in self.left_out:
            return "left out"
        if block.name in self.alone:
            return "autograd, rows alone"
        terms = [term for module in self.parts for other, term in self.terms(module) if other is block]
        return type(terms[0]).__name__.lower() if terms else "layer run again"

    def give_up_on(self, names: Sequence[str], unused: Collection[str] = ()) -> str:
        """Takes parameters out that hooks on layers do not see; says what becomes of them.

        Args:
            names: Names of these parameters.
            unused: Those that no forward pass has used until now: they make no other the smaller part.
        """
        gone = set(names)
        for parts in self.parts.values():
            parts[:] = [part for part in parts if part.block.name not in gone]
        self.parts = {module: parts for module, parts in self.parts.items() if parts}
        hidden = gone | self.left_out
        used = {block.name for block in self.blocks} - (set(unused) - hidden)
        share = self.weights(hidden) / self.weights(used)
        named = f"{sorted(gone)[:6]}" + (f" and {len(gone) - 6} more" if len(gone) > 6 else "")
        if self.asked_by_name or self.alone or share > _LEFT_OUT_AT_MOST:
            self.alone |= hidden
            self.left_out = set()
            return f"no layer shows the gradients of {named}, so autograd takes them"
        self.left_out |= gone
        return (
            f"{named} are left out of the gradients ({share:.1%} of the targeted weights): no layer shows how the "
            "model uses them. Name them in target_modules to have them, one row at a time."
        )


def lay_out(
    model: nn.Module, target_modules: str | Sequence[str], projection: Projection, row_width: RowWidth, seed: int
) -> Layout:
    """Gives every targeted parameter its columns, and every layer that holds one its part.

    Raises:
        TargetError: Nothing can be targeted.
    """
    with looked_at(model):
        return _laid_out(model, target_modules, projection, row_width, seed)


def _laid_out(
    model: nn.Module, target_modules: str | Sequence[str], projection: Projection, row_width: RowWidth, seed: int
) -> Layout:
    targets = resolve_targets(model, target_modules)
    compiled = {name for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)}
    if held_there := [name for name in targets if name.rpartition(".")[0] in compiled]:
        raise TargetError(
            f"{held_there[:6]} are of layers that torch.jit has compiled, which take no hooks",
            where="target_modules",
            fix="Pass the model as it was before torch.jit.trace or torch.jit.script, or target other layers.",
        )
    trainable = sum(parameter.numel() for parameter in trainable_weights(model).values())
    layout = Layout([], not is_keyword(target_modules), trainable)
    held: list[list[tuple[nn.Module, Term]]] = []
    shapes = []
    for parameter in targets.values():
        holders: list[tuple[nn.Module, Term]] = []
        held_by = owners(model, parameter)
        for module_name, module, own in held_by:
            if module is model or any(other.startswith(f"{module_name}.") for other, _, _ in held_by):
                continue  # a model returns no layer's output; what holds a weight for a layer in it leaves it to that
            terms = rule_for(module)(module)
            if own not in terms:
                # What a parametrised weight (weight norm, say) is made of.
                is_part = own.startswith("parametrizations.")
                terms = {own: Rerun(matrix_shape(module, parameter))} if is_part else {}
            if own in terms:
                layout.names[module] = module_name
                holders.append((module, terms[own]))
        held.append(holders)
        term = holders[0][1] if holders else Rerun(matrix_shape(model, parameter))
        shapes.append((term.size, 1) if isinstance(term, Vector) else term.shape)
    start, widths = 0, block_widths(shapes, projection, row_width)
    for (name, parameter), holders, shape, width in zip(targets.items(), held, shapes, widths, strict=True):
        block = Block(name, shape, width, slice(start, start + width[0] * width[1]), seed)
        start = block.columns.stop
        layout.held.append((block, parameter))
        for module, term in holders:
            layout.parts.setdefault(module, []).append(Part(block, parameter, term))
    return layout


def unseen(layout: Layout) -> list[str]:
    """Names of parameters that no layer holds."""
    seen = {part.block.name for parts in layout.parts.values() for part in parts}
    return [block.name for block in layout.blocks if block.name not in seen | layout.alone | layout.left_out]
