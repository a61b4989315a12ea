"""What a forward pass writes into a model, put back: buffers, attributes of modules, configs.

Dynamic rope scaling writes its frequencies and the longest length seen, a position bias is kept for the next call, the
problem type is noted in the config. A training that rows are scored in the middle of must not see any of it.

This runs around every batch, so it costs a fraction of a millisecond: attributes are compared by identity, and the
content of tensors by torch's version counter. A write through `tensor.data`, which torch does not count, is not seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import is_
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from ...errors import GradientError

# What torch keeps in every module: flags, hooks, and the tables of parameters, buffers and submodules.
_OF_TORCH = frozenset(vars(nn.Module()))
_CONTAINERS = (dict, list, set, deque)
# Tables of hooks that a forward pass may add to: transformers does at a model's first, and notes it in an attribute.
_HOOKS = [name for name in vars(nn.Module()) if name.startswith("_forward")]
# Whose layers do not write to their weights when they compute, so that these need no copy.
_LEAVE_THEIRS = ("torch.", "transformers.")
# Whole numbers above this many bytes are the packed weights of a quantised model, or a large mask: a copy could take
# the memory of the model once more.
_PACKED_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class _Copy:
    """The content of a tensor at a version of it; no content where it is too large to copy."""

    of: ref[Tensor]
    version: int
    address: int
    content: Tensor | None

    def is_of(self, tensor: Tensor) -> bool:
        """Whether nobody wrote to the tensor since."""
        return self.version == tensor._version and self.address == tensor.data_ptr()


# By the tensor's id, for as long as there is the tensor; used again for as long as nobody writes to it.
_COPIES: dict[int, _Copy] = {}


@contextmanager
def unchanged(modules: list[nn.Module], configs: Iterable[PreTrainedConfig] | None = None) -> Iterator[None]:
    """On exit, also after an exception, modules and configs hold what they hold now.

    Put back are buffers (the object and its content), plain attributes, the content of attributes that are tensors,
    dicts, lists, sets or deques (not what is inside their entries), hooks, and the settings of configs. So are the
    parameters of layers that may write to them: embeddings with a `max_norm`, and layers of neither torch nor
    transformers, such as one that keeps its weights short. Submodules are left alone.

    Args:
        modules: Those of a model.
        configs: By default those of the modules.

    Raises:
        GradientError: A buffer of whole numbers, too large to copy, was written to.
    """
    namespaces: list[tuple[dict[str, Any], dict[str, Any]]] = []
    containers: list[tuple[Any, Any]] = []
    tensors: list[Tensor] = []
    hooks: list[tuple[dict[int, Any], tuple[int, ...]]] = []
    for module in modules:
        own = vars(module)
        namespaces.append((own, own.copy()))
        hooks.extend((own[name], tuple(own[name])) for name in _HOOKS)
        for name in own.keys() - _OF_TORCH:
            value = own[name]
            if isinstance(value, _CONTAINERS):
                containers.append((value, value.copy()))
            elif isinstance(value, Tensor):
                tensors.append(value)
        if buffers := own["_buffers"]:
            namespaces.append((buffers, buffers.copy()))
            tensors.extend(buffer for buffer in buffers.values() if buffer is not None)
        if own.get("max_norm") is not None:  # an embedding that shortens its vectors as they are looked up
            tensors.extend(parameter for parameter in own["_parameters"].values() if parameter is not None)
        elif not type(module).__module__.startswith(_LEAVE_THEIRS):  # quantised weights are of other types
            tensors.extend(parameter for parameter in own["_parameters"].values() if type(parameter) is nn.Parameter)
    for config in configs_of(modules) if configs is None else configs:
        own = vars(config)
        namespaces.append((own, own.copy()))
        containers.extend((value, value.copy()) for value in own.values() if isinstance(value, _CONTAINERS))
    # Tensors of the inference mode cannot be written to outside it.
    kept = [(tensor, _copied(tensor)) for tensor in tensors if not tensor.is_inference()]
    try:
        yield
    finally:
        for now, then in namespaces:
            if len(now) != len(then) or not all(map(is_, now.values(), then.values())):
                now.clear()
                now.update(then)
        for table, keys in hooks:
            if len(table) != len(keys):
                for key in [key for key in table if key not in keys]:
                    del table[key]
        for container, content in containers:
            _refill(container, content)
        for tensor, copy in sorted(kept, key=lambda pair: pair[1].content is None):  # those that raise come last
            if not copy.is_of(tensor):
                _write(tensor, copy)


def configs_of(modules: Iterable[nn.Module]) -> list[PreTrainedConfig]:
    """The configs that modules hold, and those inside them (`text_config`), each once."""
    configs: dict[int, PreTrainedConfig] = {}
    waiting = [vars(module).get("config") for module in modules]
    while waiting:
        config = waiting.pop()
        if isinstance(config, PreTrainedConfig) and id(config) not in configs:
            configs[id(config)] = config
            waiting.extend(vars(config).values())
    return list(configs.values())


def _copied(tensor: Tensor) -> _Copy:
    copy = _COPIES.get(id(tensor))
    if copy is None or copy.of() is not tensor or not copy.is_of(tensor):
        is_packed = not tensor.dtype.is_floating_point and tensor.nbytes > _PACKED_BYTES
        copy = _keep(tensor, None if is_packed else tensor.detach().clone())
    return copy


def _keep(tensor: Tensor, content: Tensor | None) -> _Copy:
    key = id(tensor)
    copy = _Copy(ref(tensor, lambda _: _COPIES.pop(key, None)), tensor._version, tensor.data_ptr(), content)
    _COPIES[key] = copy
    return copy


def _write(tensor: Tensor, copy: _Copy) -> None:
    if copy.content is None:
        raise GradientError(
            f"The forward pass writes to a buffer of {tensor.dtype} {list(tensor.shape)}, which is too large to copy",
            where="model",
            fix="Let the forward pass write nothing in eval mode.",
        )
    with torch.no_grad():
        if tensor.shape == copy.content.shape:
            tensor.copy_(copy.content)
        else:
            tensor.data = copy.content.clone()
    _keep(tensor, copy.content)


def _refill(container: Any, content: Any) -> None:
    """Makes a container hold what its copy holds, and leaves it alone where it does."""
    if isinstance(container, set):
        is_same = container == content
    else:
        now, then = ([*each, *each.values()] if isinstance(each, dict) else [*each] for each in (container, content))
        is_same = len(now) == len(then) and all(map(is_, now, then))
    if not is_same:
        container.clear()
        refill = container.extend if isinstance(container, (list, deque)) else container.update
        refill(content)
