"""Where a training is in its course: a callback that goes in front of a Trainer's own."""

from __future__ import annotations

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler

from .timeline import Segment


class Pacer(TrainerCallback):
    """Ends a warm-up inside an epoch, and counts epochs from there.

    Attributes:
        segment: The one that is trained now; None where there is no selection.
    """

    def __init__(self) -> None:
        self.segment: Segment | None = None

    def join(self, handler: CallbackHandler, wanted: bool) -> None:
        """Becomes the first of the callbacks, or goes from among them."""
        handler.callbacks[:] = [self] * wanted + [each for each in handler.callbacks if each is not self]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> TrainerControl:
        """Trainer's epoch made ours, and the sign to end it."""
        segment = self.segment
        if segment is not None and state.epoch is not None:
            state.epoch += segment.start - segment.number
            if segment.is_cut and state.global_step >= segment.first_step + segment.steps:
                control.should_epoch_stop = True
        return control
