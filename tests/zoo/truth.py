"""The slow, obviously right rows: autograd of each row alone, of all weights."""

import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from .family import ROWS, Family, Setting, as_dtype, build

SEED = 3  # for models that draw points or masks: every row alone draws the same


@dataclass(frozen=True)
class Truth:
    """Gradients of every row alone, by parameter name, and its losses [B].

    Attributes:
        noise: How far the gradients are from those of the same weights in float32: by parameter name, of every row;
            empty for float32. Half precision loses a router's gradient, a difference of near equals, by a half.
    """

    gradients: list[dict[str, Tensor]]
    losses: Tensor
    noise: list[dict[str, float]] = field(default_factory=list)


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
        noise = [
            {name: float((row[name].float() - each).norm()) for name, each in better.items()}
            for row, better in zip(truths[0].gradients, precise.gradients, strict=True)
        ]
        # With the tables frozen, as "auto" has them, attention takes a kernel that rounds otherwise.
        truths.append(_truth(family, build(family, setting), batch, with_tables=False))
        truths = [replace(truth, noise=noise) for truth in truths]
    return truths


def cut(family: Family, batch: dict, row: int) -> dict:
    """Row `row` as a batch of one: tensors and lists with an entry a row are cut, the others stay."""
    if family.cut is not None:
        return family.cut(batch, row)
    return {
        key: value[row : row + 1] if isinstance(value, (Tensor, list, tuple)) and len(value) == ROWS else value
        for key, value in batch.items()
    }


def _truth(family: Family, model: nn.Module, batch: dict, copies: int = 1, with_tables: bool = True) -> Truth:
    """Autograd of each row by itself, as `copies` equal rows; of embeddings, too, or not `with_tables`."""
    if not with_tables:
        for table in [each for each in model.modules() if isinstance(each, nn.Embedding)]:
            table.requires_grad_(False)
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
