"""Rows of a batch against the same rows alone, by plain autograd and without hooks on layers.

Catches what no look at the model can: a layer with the batch on another axis, batch statistics, a loss that mixes
rows, padding that shows, a layer that a rule takes for another kind, a weight that is used behind its layer's back.

Axes: S rows compared, D row width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..errors import BatchAxisError, GradientError, LabelError, SageError
from .batch_axis import Batch, batch_rows, rows_of
from .losses.per_example import HALF_LOSS_TOLERANCE, LOSS_TOLERANCE

if TYPE_CHECKING:
    from .collector import GradientCollector

# How far a block of a row's gradient may be from the truth, as a share of its length. Rounding stays below 1e-4 in
# float32 and 5e-2 in bfloat16; a mixed-up batch axis is off by about 1.
_TOLERANCE = 1e-2
_HALF_TOLERANCE = 0.3
# Of float64 models, parts of which may compute in float32.
_DOUBLE_TOLERANCE = 1e-4
# Blocks shorter than this share of the row are compared as if they were as long: on 297 model classes no right one
# became refused, and wrong ones that passed fell from 47 to 5, against a comparison of whole rows.
_FLOOR = 1e-3
_HALF_FLOOR = 1e-1
# Rows shorter than this share of the longest beside them are compared as if they were as long: what is left of a
# gradient that cancels out (of queries, where a token sees itself alone) is rounding, some 1e-7 of the others' length.
_NOTHING = 3e-4
# Batch sizes to take, so that no axis of positions passes for a multiple of the rows.
_SIZES = (4, 5, 7, 3)


class NoPartError(GradientError):
    """No targeted layer has a part in the loss, as far as hooks on layers tell."""


class Truth(NamedTuple):
    """What plain autograd gives of rows alone."""

    gradients: Tensor  # [S, D] float64
    losses: Tensor  # [S] float64


def check_batch(collector: GradientCollector, batch: Batch, alone: Mapping[int, Batch] | None) -> bool:
    """Settles how the collector takes rows from then on; see `GradientCollector.check`."""
    if alone is None:
        alone = {index: rows_of(batch, slice(index, index + 1)) for index in range(batch_rows(batch))}
    rows = list(alone)
    truth = truth_of(collector, list(alone.values()))
    if unseen := _never_called(collector, alone[rows[0]], truth):
        collector.give_up_on(unseen)
    if _is_drawn(collector, alone[rows[0]], truth):
        collector.take_one_at_a_time("the model draws at random while it computes, for every batch anew")
    else:
        _check_not_contrastive(collector, batch, truth)
    wrong, reason = _in_batch(collector, _uneven(batch), rows, truth)
    if wrong or reason:
        gradients, losses = _taken_alone(collector, alone)
        if unseen := differing_blocks(collector, gradients, truth.gradients):
            collector.give_up_on(unseen)
            wrong, reason = _in_batch(collector, _uneven(batch), rows, truth)
            gradients, losses = _taken_alone(collector, alone)
            unseen = differing_blocks(collector, gradients, truth.gradients)
        if unseen or differing_losses(collector, losses, truth.losses):
            raise GradientError(
                f"The gradients of {unseen[:6] or 'one row'}, or the loss, differ from what autograd gives",
                where="target_modules",
                fix="Leave these modules out, or register_rule(...) a rule for their kind.",
            )
    if wrong:
        reason = f"the gradients of {wrong[:6]} differ when rows share a batch"
    if reason:
        collector.take_one_at_a_time(reason)
    return not collector.one_at_a_time


def _taken_alone(collector: GradientCollector, alone: Mapping[int, Batch]) -> tuple[Tensor, Tensor]:
    """Gradients [S, D] and losses [S] of rows alone, as the collector takes them."""
    taken = [collector.collect(row) for row in alone.values()]
    return torch.cat([gradients for gradients, _ in taken]), torch.cat([losses for _, losses in taken])


def _never_called(collector: GradientCollector, row: Batch, truth: Truth) -> list[str]:
    """Names of weights that have a gradient, however small, though no layer that holds them is called.

    Raises:
        NoPartError: No targeted weight has a gradient.
    """
    used = {block.name for block in collector.blocks if truth.gradients[:, block.columns].nan_to_num().any()}
    try:
        collector.collect(row)
    except NoPartError:
        if not used:
            raise
        return sorted(used)
    return sorted(used & collector.silent)


def truth_of(collector: GradientCollector, rows: Sequence[Batch]) -> Truth:
    """Gradients and losses of rows alone."""
    truths = [collector.truth(row) for row in rows]
    return Truth(torch.stack([row for row, _ in truths]), torch.stack([loss for _, loss in truths]))


def _in_batch(collector: GradientCollector, batch: Batch, rows: list[int], truth: Truth) -> tuple[list[str], str]:
    """Names of weights that are wrong when rows share a batch, and what else is; empty where all is right."""
    if collector.one_at_a_time:
        return [], collector.why_one_at_a_time
    try:
        gradients, losses = collector.collect(batch)
    except (BatchAxisError, GradientError, LabelError):
        raise
    except SageError as error:
        return [], str(error)
    if collector.one_at_a_time:  # found out while they were taken
        return [], collector.why_one_at_a_time
    if wrong := differing_blocks(collector, gradients[rows], truth.gradients):
        return wrong, ""
    off = differing_losses(collector, losses[rows], truth.losses)
    return [], "the losses differ when rows share a batch" if off else ""


def differing_blocks(collector: GradientCollector, rows: Tensor, truth: Tensor, longest: float = 0.0) -> list[str]:
    """Names of the weights whose gradients [B, D] are off by more than rounding, the most wrong first.

    `truth` is float64, and `longest` the length of the longest gradient that is known of other rows.
    """
    exact = _DOUBLE_TOLERANCE if collector.dtype is torch.float64 else _TOLERANCE
    tolerance, floor = (_HALF_TOLERANCE, _HALF_FLOOR) if collector.is_half else (exact, _FLOOR)
    # What is not finite is set aside later, and tells nothing here.
    usable = truth.isfinite() & rows.isfinite()
    wanted = torch.where(usable, truth, 0.0)
    error = torch.where(usable, rows.double() - truth, 0.0)
    lengths = wanted.norm(dim=1)
    least = (floor * lengths).clamp(min=_NOTHING * max(longest, float(lengths.max())))
    share = {}
    for block in collector.blocks:
        if block.name in collector.left_out:
            continue
        length = torch.maximum(wanted[:, block.columns].norm(dim=1), least)
        off = error[:, block.columns].norm(dim=1)
        share[block.name] = float(torch.where(off > 0, off / length, 0.0).max())
    return sorted((name for name in share if share[name] > tolerance), key=lambda name: -share[name])


def differing_losses(collector: GradientCollector, losses: Tensor, truth: Tensor) -> bool:
    """Whether a row's loss in a batch is another than alone."""
    tolerance = HALF_LOSS_TOLERANCE if collector.is_half else LOSS_TOLERANCE
    both = losses.isfinite() & truth.isfinite()
    off = (losses.double() - truth).abs() > tolerance * truth.abs().clamp(min=1e-2)
    return bool((off & both).any())


def _is_drawn(collector: GradientCollector, row: Batch, truth: Truth) -> bool:
    """Whether a row alone gives another loss when torch's random state is another."""
    devices = [collector.device] if collector.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(torch.initial_seed() + 1)
        loss = collector.truth(row)[1]
    return bool(loss.isfinite()) and differing_losses(collector, loss.reshape(1), truth.losses[:1])


def _uneven(batch: Batch) -> Batch:
    """The batch with rows repeated at its end, so that their number divides no axis of positions."""
    size = batch_rows(batch)
    lengths = {
        length for value in batch.values() if isinstance(value, Tensor) for length in value.shape[1:] if length > 1
    }
    for wanted in _SIZES:
        if wanted >= size and all(math.gcd(wanted, length) == 1 for length in lengths):
            return batch if wanted == size else rows_of(batch, [index % size for index in range(wanted)])
    return batch


def _check_not_contrastive(collector: GradientCollector, batch: Batch, truth: Truth) -> None:
    """A loss that compares the rows of a batch is constant for one row, whatever the row is."""
    if truth.gradients.nan_to_num().any() or batch_rows(batch) < 2:
        return
    if collector.truth(batch)[0].nan_to_num().any():
        raise BatchAxisError(
            "Rows have a gradient in a batch but none alone: the loss compares the rows of a batch (in-batch "
            "negatives, contrastive), so no row has a loss of its own",
            where="model.forward or loss_function",
            fix="Use a loss of single rows: pass loss_function, or a model with another head.",
        )
