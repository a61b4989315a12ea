"""What a collector comes to for a family, held to the truth."""

import logging
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sage_hf.errors import SageError
from sage_hf.gradients import GradientCollector

from .family import ROWS, Family, Setting, build
from .truth import FLOOR, SEED, Truth

# A block may be off by this share of its own length, or of FLOOR of the row's where it is smaller than that.
TOLERANCE = {torch.float32: 1e-2, torch.bfloat16: 0.3}
# Or by this many times what autograd itself loses in half precision: a ReLU near zero opens in one and not the other.
NOISE = 2.0
WRONG = "WRONG"


@dataclass(frozen=True)
class Verdict:
    """The word, and why.

    Attributes:
        word: "right" (a whole batch at once), "one at a time" (right, and slow), "refused" or "WRONG".
        reason: The collector's warnings, or its error.
        share: Of the trainable weights, how many the rows are gradients of.
        left_out: Names of targeted weights that the collector said it cannot have.
        error: Of the worst block of a row, or of a loss.
    """

    word: str
    reason: str = ""
    share: float = 0.0
    left_out: list[str] = field(default_factory=list)
    error: float = 0.0


def judge(family: Family, setting: Setting, batch: dict, truths: list[Truth], target: str) -> Verdict:
    """Checks and collects as a run does, and compares with every truth: any of them will do."""
    model = build(family, setting)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    with _Warnings() as warnings:
        try:
            collector = GradientCollector(model, target_modules=target, projection=None)
            torch.manual_seed(SEED)
            trusted = collector.check(batch)
            torch.manual_seed(SEED)
            rows, losses = collector.collect(batch)
        except SageError as error:
            return Verdict("refused", str(error))
    reason = " | ".join(warnings.messages)
    left_out = list(getattr(collector, "left_out", ()))
    covered = {block.name for block in collector.blocks} - set(left_out)
    share = sum(sizes[name] for name in covered) / sum(sizes.values())
    if not truths:
        return Verdict(WRONG, "rows where autograd gives none", share)
    error, where = min(_worst(collector, covered, rows, losses, truth, setting.dtype) for truth in truths)
    if error > TOLERANCE[setting.dtype]:
        said = f"the check said {trusted}; {where} is off by {error:.2g} | {reason}"
        return Verdict(WRONG, said, share, left_out, error)
    return Verdict("one at a time" if collector.one_at_a_time else "right", reason, share, left_out, error)


def _worst(
    collector: GradientCollector, covered: set[str], rows: Tensor, losses: Tensor, truth: Truth, dtype: torch.dtype
) -> tuple[float, str]:
    """(error, where) of the worst block of a row: |found - wanted| / max(|wanted|, floor * |wanted row|).

    Where autograd in this precision is far from float32 itself, an error counts for less.
    """
    if not (rows.isfinite().all() and losses.isfinite().all()):
        return torch.inf, "a value that is not finite"
    blocks = [block for block in collector.blocks if block.name in covered]
    found = [(0.0, "")]
    for row in range(ROWS):
        wanted = [truth.gradients[row][block.name].flatten().double() for block in blocks]
        length = torch.stack([each.norm() for each in wanted]).norm()
        for block, each in zip(blocks, wanted, strict=True):
            noise = max(1.0, NOISE * truth.noise.get(block.name, 0.0) / TOLERANCE[dtype])
            scale = noise * torch.maximum(each.norm(), FLOOR[dtype] * length).clamp(min=1e-12)
            error = (rows[row, block.columns].double() - each).norm() / scale
            found.append((float(error), f"{block.name} of row {row}"))
        loss = truth.losses[row]
        found.append((float((losses[row] - loss).abs() / loss.abs().clamp(min=1.0)), f"the loss of row {row}"))
    return max(found)


class _Warnings(logging.Handler):
    """Keeps what the collector warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self._logger = logging.getLogger("sage_hf")

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> "_Warnings":
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
