"""The slow, obviously right rows: autograd of each row alone, of all weights."""

import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from sage_hf.gradients.layers.rules import MATRIX_KINDS

from .family import ROWS, Family, Setting, as_dtype, build

# Of a row: a block that is shorter is held to this size.
FLOOR = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
SEED = 3  # for models that draw points or masks: every row alone draws the same


@dataclass(frozen=True)
class Truth:
    """Gradients of every row alone, by parameter name, and its losses [B].

    Attributes:
        noise: How far the gradients are from those of the same weights in float32: by parameter name, the largest
            share over the rows; empty for float32.
    """

    gradients: list[dict[str, Tensor]]
    losses: Tensor
    noise: dict[str, float] = field(default_factory=dict)


def truths_of(family: Family, setting: Setting, batch: dict) -> list[Truth]:
    """Each row alone; and where a family has another right answer, that one, too. None where autograd gives none."""
    if family.untrainable:
        return []
    model = build(family, setting)
    truths = [_truth(family, model, batch)]
    if family.has_twins:
        truths.append(_truth(family, model, batch, copies=2))
    if family.quiet is not None:
        truths.append(_truth(family, build(family, setting, quiet=True), batch))
    if setting.dtype is torch.bfloat16:
        precise = _truth(family, build(family, setting).float(), as_dtype(batch, torch.float32))
        noise = _noise(truths[0], precise)
        # With tables frozen, as "auto" has them, attention takes another kernel, which rounds otherwise.
        truths.append(_truth(family, build(family, setting), batch, is_auto=True))
        truths = [replace(truth, noise=noise) for truth in truths]
    return truths


def _noise(half: Truth, precise: Truth) -> dict[str, float]:
    found: dict[str, float] = {}
    for rough, row in zip(half.gradients, precise.gradients, strict=True):
        least = FLOOR[torch.bfloat16] * torch.stack([each.norm() for each in row.values()]).norm()
        for name, each in row.items():
            share = float((rough[name].float() - each).norm() / torch.maximum(each.norm(), least))
            found[name] = max(found.get(name, 0.0), share)
    return found


def cut(family: Family, batch: dict, row: int) -> dict:
    """Row `row` as a batch of one: tensors and lists with an entry a row are cut, the others stay."""
    if family.cut is not None:
        return family.cut(batch, row)
    return {
        key: value[row : row + 1] if isinstance(value, (Tensor, list, tuple)) and len(value) == ROWS else value
        for key, value in batch.items()
    }


def _truth(family: Family, model: nn.Module, batch: dict, copies: int = 1, is_auto: bool = False) -> Truth:
    """Autograd of each row by itself, as `copies` equal rows; of what "auto" targets alone, if `is_auto`."""
    if is_auto:
        targeted = [each for each in model.modules() if isinstance(each, MATRIX_KINDS)]
        model.requires_grad_(False)
        for layer in targeted:
            layer.requires_grad_(True)
    gradients, losses = [], []
    for row in range(ROWS):
        alone_model = copy.deepcopy(model) if family.remembers else model
        alone_model.train(family.in_training).zero_grad()
        alone = cut(family, batch, row)
        if copies > 1:
            alone = {key: value.repeat_interleave(copies, 0) for key, value in alone.items()}
        torch.manual_seed(SEED)
        outputs = alone_model(**alone)
        loss = (outputs[0] if isinstance(outputs, tuple) else outputs.loss).sum()
        loss.backward()
        gradients.append(
            {
                name: torch.zeros_like(each) if each.grad is None else each.grad
                for name, each in alone_model.named_parameters()
            }
        )
        losses.append(loss.detach().double())
    return Truth(gradients, torch.stack(losses))
