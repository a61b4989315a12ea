"""The slow, obviously right rows: autograd of each row alone, of all weights; and what a collector comes to."""

import copy
import logging
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sage_hf.errors import SageError
from sage_hf.gradients import GradientCollector

from .family import ROWS, Family

FLOOR = 1e-3  # of a row: a block smaller than that is held to this size
TOLERANCE = {torch.float32: 1e-2, torch.bfloat16: 0.3}
HALF_FLOOR = 5e-2
SEED = 3  # for the models that draw points or masks: every row alone draws the same


@dataclass(frozen=True)
class Truth:
    """Gradients of every row alone, by parameter name, and its losses."""

    gradients: list[dict[str, Tensor]]
    losses: Tensor


@dataclass
class Verdict:
    """What a collector came to: "right", "one at a time", "refused" or "WRONG"; the reason, and the share covered."""

    word: str
    reason: str = ""
    share: float = 0.0
    left_out: list[str] = field(default_factory=list)
    worst: float = 0.0


def cut(family: Family, batch: dict, row: int) -> dict:
    """Row `row` as a batch of one: tensors and lists with an entry a row are cut, the others stay."""
    if family.cut is not None:
        return family.cut(batch, row)
    return {
        key: value[row : row + 1] if isinstance(value, (Tensor, list, tuple)) and len(value) == ROWS else value
        for key, value in batch.items()
    }


def truth_of(family: Family, model: nn.Module, batch: dict) -> Truth:
    gradients, losses = [], []
    for row in range(ROWS):
        fresh = copy.deepcopy(model).requires_grad_(True)  # some models keep tables of what they have met
        torch.manual_seed(SEED)
        loss = _loss(fresh(**cut(family, batch, row)))
        loss.backward()
        gradients.append(
            {n: torch.zeros_like(p) if p.grad is None else p.grad.detach() for n, p in fresh.named_parameters()}
        )
        losses.append(loss.detach().float())
    return Truth(gradients, torch.stack(losses))


def _loss(outputs: object) -> Tensor:
    loss = outputs[0] if isinstance(outputs, tuple) else outputs.loss
    return loss.sum()


def judge(family: Family, model: nn.Module, batch: dict, truths: list[Truth], target: str, tolerance: float, floor: float = FLOOR):
    """Runs check and collect, and compares with what each row is alone; any of the truths will do."""
    weights = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    caught = _Messages()
    logger = logging.getLogger("sage_hf.gradients")
    logger.addHandler(caught)
    try:
        collector = GradientCollector(model, target_modules=target, projection=None)
        share = collector.num_target_weights / weights
        torch.manual_seed(SEED)
        trusted = collector.check(batch)
        torch.manual_seed(SEED)
        rows, losses = collector.collect(batch)
    except SageError as error:
        return Verdict("refused", str(error))
    finally:
        logger.removeHandler(caught)
    left_out = list(getattr(collector, "left_out", ()))
    worst, where = min(compare(collector, rows, losses, each, set(left_out), floor) for each in truths)
    reason = " | ".join(caught.messages)
    if worst > tolerance:
        return Verdict("WRONG", f"check gave {trusted}; {where} off by {worst:.2g}; {reason}", share, left_out, worst)
    word = "right" if not collector.one_at_a_time else "one at a time"
    return Verdict(word, reason, share, left_out, worst)


def compare(collector: GradientCollector, rows: Tensor, losses: Tensor, truth: Truth, left_out: set[str], floor: float):
    """(error, where) of the worst block of a row: |found - wanted| / max(|wanted|, floor * |wanted row|)."""
    if not rows.isfinite().all() or not losses.isfinite().all():
        return torch.inf, "not finite"
    worst, where = 0.0, ""
    for row in range(ROWS):
        wanted = {block.name: truth.gradients[row][block.name].flatten().double() for block in collector.blocks}
        length = torch.cat(list(wanted.values())).norm()
        for block in collector.blocks:
            if block.name in left_out:
                continue
            found = rows[row, block.columns].double()
            scale = max(wanted[block.name].norm(), floor * length)
            error = float((found - wanted[block.name]).norm() / scale) if scale > 0 else float(found.norm() > 1e-8)
            if error > worst:
                worst, where = error, f"row {row}, {block.name}"
        off = float((losses[row].double() - truth.losses[row].double()).abs() / max(1.0, abs(float(truth.losses[row]))))
        if off > worst:
            worst, where = off, f"row {row}, loss"
    return worst, where


class _Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
