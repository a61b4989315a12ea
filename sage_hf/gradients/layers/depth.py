"""The upper end of a network: the weights of its last blocks, and of what comes behind them.

The graph of a forward pass starts at the first targeted layer (`hooks`), so blocks below cost a forward pass alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

# One block of so many is a last one: of six layers one, whose fit pass costs less than half of a training pass where
# that of all layers costs three quarters (examples/benchmarks/results/width.json).
_PART = 6
# A list with less than this share of the weights that the largest list has is no network's body (a head that is a
# small perceptron, the layers of a stem).
_LEAST_SHARE = 0.2
# A list of which one element has more than this share of the weights is a body with something before or behind it.
_ALMOST_ALL = 0.9


def last_layers(
    model: nn.Module, ids: set[int], decoder: nn.Module | None = None, heads: Iterable[nn.Module] = ()
) -> set[int]:
    """Ids of those parameters that belong to the last sixth of the network's blocks, or to layers behind the blocks.

    Blocks are the elements of a list of modules, at least two of which hold some of the parameters. Of several such
    lists, it is the last large one in the model's order; of one inside another, the outer one. What is behind it in
    the model's order counts, too, unless it belongs to another body (the second tower of two). Without a list, the
    last sixth of the layers count. What a lower layer holds, too, is left out.

    Args:
        model: Any module.
        ids: Ids of the parameters to take from.
        decoder: What makes the output of a model of several bodies, if it says so.
        heads: Modules that are no body's, if the model says so.

    Returns:
        Some of the ids, at least one if there is any.
    """
    lists = [each for each in _bodies(model, ids) if each not in set(heads)]
    inside = set(decoder.modules()) if decoder is not None else set()
    chosen = [each for each in lists if each in inside] or lists
    modules = list(model.modules())
    if not chosen:
        layers = [module for module in modules if _own(module) & ids]
        upper = set(layers[-_at_least_one(len(layers)) :])
    else:
        body = chosen[-1]
        blocks = [block for block in body.children() if _of(block) & ids]
        upper = {module for block in blocks[-_at_least_one(len(blocks)) :] for module in block.modules()}
        behind = modules[modules.index(body) :]
        others = {each for each in lists if each not in inside and each is not body}
        upper |= set(behind) - set(body.modules()) - _parts_with(model, others, body)
    lower = [module for module in modules if module not in upper]
    kept = {each for module in upper for each in _own(module)} & ids
    return kept - {each for module in lower for each in _own(module)} or kept


def _at_least_one(count: int) -> int:
    return max(1, count // _PART)


def _own(module: nn.Module) -> set[int]:
    """Ids of the parameters that a module holds itself."""
    return {id(parameter) for parameter in module.parameters(recurse=False)}


def _of(module: nn.Module) -> set[int]:
    """Ids of a module's parameters, those of its parts included."""
    return {id(parameter) for parameter in module.parameters()}


def _bodies(model: nn.Module, ids: set[int]) -> list[nn.Module]:
    """The large lists of blocks, in the model's order."""
    sizes = {each: _size(each) for each in _outermost_lists(model, ids)}
    largest = max(sizes.values(), default=0)
    return [each for each, size in sizes.items() if size >= _LEAST_SHARE * largest]


def _size(module: nn.Module) -> int:
    """Number of weights in a module, also of those that do not train (an adapter's layer counts in full)."""
    return sum(parameter.numel() for parameter in module.parameters())


def _outermost_lists(module: nn.Module, ids: set[int]) -> Iterator[nn.Module]:
    """The lists in a module, itself included, of which two elements or more hold parameters of these ids."""
    if isinstance(module, (nn.ModuleList, nn.Sequential)):
        blocks = [child for child in module.children() if _of(child) & ids]
        if len(blocks) > 1:
            inner = [each for block in blocks for each in _outermost_lists(block, ids)]
            is_wrapper = max(map(_size, blocks)) > _ALMOST_ALL * _size(module)
            yield from inner if inner and is_wrapper else [module]
            return
    for child in module.children():
        yield from _outermost_lists(child, ids)


def _parts_with(model: nn.Module, lists: set[nn.Module], body: nn.Module) -> set[nn.Module]:
    """All modules of those parts of a model that hold one of the lists and not the body."""
    parts = [set(module.modules()) for module in model.modules()]
    return {module for part in parts if body not in part and part & lists for module in part}
