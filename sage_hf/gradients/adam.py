"""Training rows as the updates that Adam would make of them, by the optimizer state of a checkpoint.

With a row's gradient g, and Adam's running means m of gradients and v of their squares after t steps, one step on this
row alone would move the weights along

    m' = (beta1 m + (1 - beta1) g) / (1 - beta1^(t+1))
    v' = (beta2 v + (1 - beta2) g^2) / (1 - beta2^(t+1))
    update = m' / (sqrt(v') + eps)                                      (LESS, arXiv 2402.04333, section 3.1)

number by number of the exact gradient, which is projected only then, by the projections that plain rows have: updates
and plain gradients lie in the same row space, and can be compared.

Axes: B rows of the batch, D row width, W targeted weights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.trainer import OPTIMIZER_NAME, Trainer

from ..errors import ConfigError
from .collector import GradientCollector
from .layers.blocks import Block
from .layers.targets import trainable_weights

# Numbers of exact gradients that are held at a time.
_MOST_NUMBERS = 2**27
# How many names an error lists.
_NAMED = 6
_TRAINED_AS = "Load the model as it was trained (the same adapters and frozen weights), with a checkpoint of its own."


@dataclass(frozen=True)
class Moments:
    """What Adam keeps of one parameter.

    Attributes:
        mean: m, in the parameter's shape.
        square: v, the same.
        step: t, steps taken.
        betas: (beta1, beta2).
        eps: Added to the root.
    """

    mean: Tensor
    square: Tensor
    step: int
    betas: tuple[float, float]
    eps: float

    def to(self, device: torch.device, dtype: torch.dtype) -> Moments:
        """The same on a device, in a type of numbers."""
        return replace(self, mean=self.mean.to(device, dtype), square=self.square.to(device, dtype))

    def updates(self, gradients: Tensor) -> Tensor:
        """The update of each gradient, [B, size]; see the module."""
        (beta1, beta2), steps = self.betas, self.step + 1
        mean = torch.lerp(self.mean.reshape(-1).to(gradients), gradients, 1 - beta1) / (1 - beta1**steps)
        square = torch.lerp(self.square.reshape(-1).to(gradients), gradients.square(), 1 - beta2) / (1 - beta2**steps)
        return mean / (square.sqrt() + self.eps)


class AdamUpdates:
    """Makes updates [B, D] of exact gradients [B, W].

    Args:
        collector: Of plain rows: tells the model, the weights and their projections.
        folder: A checkpoint of Trainer's, with `optimizer.pt`.

    Attributes:
        collector: Takes exact gradients of the same weights.
        rows: Rows of which exact gradients are held at a time.
        fingerprint: 16 hexadecimal digits of the state of the targeted weights.

    Raises:
        ConfigError: There is no state of Adam's, it is another model's, or the weights lie on several processes.
    """

    def __init__(self, collector: GradientCollector, folder: str | os.PathLike[str]) -> None:
        if any(isinstance(parameter, DTensor) for parameter in collector.model.parameters()):
            raise ConfigError(
                "The weights are spread over several processes, and so is the optimizer's state",
                where="optimizer_state",
                fix="Select with the whole model in each process.",
            )
        self.collector = collector.exact()
        names = [block.name for block in collector.blocks]
        moments = read_moments(collector.model, Path(folder) / OPTIMIZER_NAME, names)
        # Where the gradients are: every batch needs them.
        self._moments = {name: own.to(collector.device, collector.dtype) for name, own in moments.items()}
        self._projected: list[Block] = collector.blocks
        self._width = collector.width
        self.rows = max(1, _MOST_NUMBERS // self.collector.width)
        self.fingerprint = _fingerprint(moments)

    def __call__(self, gradients: Tensor) -> Tensor:
        """Projected updates [B, D] of exact gradients [B, W]; weights that are left out stay zero."""
        updates = gradients.new_zeros(len(gradients), self._width)
        for exact, projected in zip(self.collector.blocks, self._projected, strict=True):
            if exact.name not in self.collector.left_out:
                made = self._moments[exact.name].updates(gradients[:, exact.columns])
                updates[:, projected.columns] = projected.project_rows(made)
        return updates


def read_moments(model: nn.Module, path: Path, names: list[str]) -> dict[str, Moments]:
    """Adam's state of some parameters, from a file that Trainer wrote; nothing in it is executed.

    Args:
        model: That was trained, as it was trained: the file knows parameters by their order alone.
        path: `optimizer.pt`.
        names: Names of the parameters.

    Raises:
        ConfigError: The file cannot be read, is no state of Adam's, or is of other parameters.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        groups, held = list(state["param_groups"]), dict(state["state"])
    except Exception as error:  # a file of another kind fails in many ways
        raise ConfigError(
            f"The optimizer's state cannot be read: {type(error).__name__}",
            where=str(path),
            fix="Name a checkpoint that Trainer saved with its optimizer (save_only_model=False).",
        ) from error
    if any(group.get("amsgrad") for group in groups):
        raise ConfigError(
            "The optimizer used amsgrad, which is not supported: its updates follow the largest squares so far",
            where=str(path),
            fix="Train with AdamW without amsgrad, or select by plain gradients.",
        )
    parameters = trainable_weights(model)
    numbers = dict(zip(_in_order(model, parameters, groups, path), _numbered(groups), strict=True))
    _check_shapes(parameters, numbers, held, path)
    found, missing = {}, []
    for name in names:
        number, group = numbers.get(name, (None, {}))
        own = held.get(number, {})
        if not {"exp_avg", "exp_avg_sq", "step"} <= set(own):
            missing.append(name)
            continue
        betas = (float(group["betas"][0]), float(group["betas"][1]))
        found[name] = Moments(own["exp_avg"], own["exp_avg_sq"], int(own["step"]), betas, float(group["eps"]))
    if missing:
        raise ConfigError(
            f"The optimizer's state holds no Adam moments for {_listed(missing)}",
            where=str(path),
            fix="Train with AdamW (optim='adamw_torch' or 'adamw_torch_fused'), or target other modules.",
        )
    return found


def _in_order(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], groups: list[dict[str, Any]], path: Path
) -> list[str]:
    """Names of the trained parameters in the order in which an optimizer's groups have them.

    Trainer makes two groups, of weights that decay and of others; a single group is in the order of the model.
    """
    decaying = set(Trainer.get_decay_parameter_names(None, model))  # it looks at the model alone
    ordered = [[name for name in parameters if (name in decaying) is is_first] for is_first in (True, False)]
    wanted = [list(parameters)] if len(groups) == 1 else ordered
    sizes = [len(group["params"]) for group in groups]
    if sizes != [len(names) for names in wanted]:
        raise ConfigError(
            f"The optimizer has groups of {sizes} parameters, and the model trains {[len(names) for names in wanted]} "
            f"of them: {_listed(list(parameters))}",
            where=str(path),
            fix=_TRAINED_AS,
        )
    return [name for names in wanted for name in names]


def _numbered(groups: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """The number of every parameter in the state, with its group."""
    return [(number, group) for group in groups for number in group["params"]]


def _check_shapes(
    parameters: Mapping[str, nn.Parameter],
    numbers: Mapping[str, tuple[int, dict[str, Any]]],
    held: Mapping[int, Mapping[str, Any]],
    path: Path,
) -> None:
    """Refuses a state whose means have other shapes than the parameters."""
    other = []
    for name, (number, _) in numbers.items():
        mean = held.get(number, {}).get("exp_avg")
        if isinstance(mean, Tensor) and mean.shape != parameters[name].shape:
            other.append(f"{name} ({list(parameters[name].shape)}, in the state {list(mean.shape)})")
    if other:
        raise ConfigError(
            f"The shapes in the optimizer's state differ from the model's: {_listed(other)}",
            where=str(path),
            fix=_TRAINED_AS,
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _fingerprint(moments: Mapping[str, Moments]) -> str:
    digest = xxhash.xxh64()
    for name, own in moments.items():
        digest.update(f"{name} {own.step} {own.betas} {own.eps}".encode())
        for tensor in (own.mean, own.square):
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
