"""The course of a training: warm-up on all rows, then passes over subsets, counted in epochs and optimizer steps.

Everything here is known before the first step, because the size of a subset is, so that the learning rate schedule,
the progress bar and a resumed run can be right from the start. One epoch of warm-up is a pass over all rows, one
epoch after it a pass over the subset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ConfigError
from .arguments import SageTrainingArguments

# Steps are whole numbers; 0.1 * 30 epochs must not become 4 steps.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class PassSize:
    """One whole pass over some rows.

    Attributes:
        rows: Number of rows.
        batches: Batches in this process.
        updates: Optimizer steps.
    """

    rows: int
    batches: int
    updates: int


@dataclass(frozen=True)
class Segment:
    """One turn of Trainer's loop over epochs.

    Attributes:
        number: 0-based; what Trainer calls the epoch.
        is_warmup: Over all rows, not the subset.
        selects: Whether a new subset is chosen before it.
        start: Epochs done before it.
        first_step: Optimizer steps done before it.
        steps: Optimizer steps in it.
        size: The whole pass that it is, or is the beginning of.
    """

    number: int
    is_warmup: bool
    selects: bool
    start: float
    first_step: int
    steps: int
    size: PassSize

    @property
    def is_cut(self) -> bool:
        """Whether it ends before the pass does."""
        return self.steps < self.size.updates


@dataclass(frozen=True)
class Timeline:
    """All segments of a training.

    Attributes:
        segments: In their order; the last one may be longer than the training.
        max_steps: Optimizer steps in all.
        epochs: Epochs in all, rounded up.
        samples: Rows seen in all.
    """

    segments: tuple[Segment, ...]
    max_steps: int
    epochs: int
    samples: float

    def chosen_at(self, number: int) -> int:
        """Optimizer steps after which the subset of a segment is chosen."""
        return max(each.first_step for each in self.segments[: number + 1] if each.selects)

    def locate(self, global_step: int) -> tuple[int, int]:
        """(segment, optimizer steps done in it) after so many optimizer steps; past the last one at its end.

        After a training that ended inside a segment, this is that segment: Trainer goes into it again.
        """
        for segment in self.segments:
            if global_step < segment.first_step + segment.steps:
                return segment.number, global_step - segment.first_step
        return len(self.segments), 0


def plan(everything: PassSize, subset: PassSize, args: SageTrainingArguments, step_rows: int) -> Timeline:
    """The course of a training.

    Fractions of an epoch are rounded up to whole optimizer steps. Where the subset is all rows, the warm-up ends with
    an epoch, so that the order of the rows is that of a training without selection.

    Args:
        everything: A pass over all rows.
        subset: A pass over the subset.
        args: Give the epochs and steps; `max_steps` overrides the epochs when positive.
        step_rows: Rows an optimizer step, over all processes.

    Raises:
        ConfigError: The warm-up leaves no step for the subset.
    """
    warmup_epochs, refresh_epochs = args.sage_warmup_epochs, args.sage_refresh_epochs
    epochs, max_steps, accumulation = args.num_train_epochs, args.max_steps, args.gradient_accumulation_steps
    if subset.rows == everything.rows:
        most = max_steps if max_steps > 0 else _steps(epochs * everything.updates)
        is_room = math.ceil(warmup_epochs) * everything.updates < most
        warmup_epochs = math.ceil(warmup_epochs) if is_room else math.floor(warmup_epochs)
    whole = math.floor(warmup_epochs)
    part = _steps((warmup_epochs - whole) * everything.updates)
    segments = [
        Segment(number, True, False, number, number * everything.updates, everything.updates, everything)
        for number in range(whole)
    ]
    warmup_steps, warmed = whole * everything.updates, float(whole)
    if part:
        segments.append(Segment(whole, True, False, whole, warmup_steps, part, everything))
        warmup_steps += part
        warmed += min(part * accumulation, everything.batches) / everything.batches
    if max_steps > 0:
        total, samples = max_steps, float(max_steps * step_rows)
    else:
        total = warmup_steps + _steps((epochs - warmed) * subset.updates)
        samples = warmed * everything.rows + (epochs - warmed) * subset.rows
    if warmup_steps >= total:
        length = f"{max_steps} steps" if max_steps > 0 else f"{epochs:g} epochs"
        raise ConfigError(
            f"The warm-up of {warmup_epochs:g} epochs ({warmup_steps} steps) is not shorter than the training of "
            f"{length}, so no step is left for the subset",
            where="sage_warmup_epochs",
            fix="Lower sage_warmup_epochs (a fraction of an epoch is allowed), or train longer.",
        )
    passes = 0
    while (done := warmup_steps + passes * subset.updates) < total:
        selects = passes % refresh_epochs == 0 if refresh_epochs else passes == 0
        segments.append(Segment(len(segments), False, selects, warmed + passes, done, subset.updates, subset))
        passes += 1
    last = segments[-1]
    reached = last.start + (total - last.first_step) / subset.updates if max_steps > 0 else epochs
    return Timeline(tuple(segments), total, math.ceil(reached - _ROUNDING), samples)


def _steps(share: float) -> int:
    """Optimizer steps, rounded up as Trainer does, but for what is only rounding."""
    return max(0, math.ceil(share - _ROUNDING))
