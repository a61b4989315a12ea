"""What the short trainings of the library's own share: batches without rows that teach nothing, and their loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..errors import DatasetError, LabelError, SageError
from ..gradients.losses.per_example import Batch, accepted, output_field
from .batches import RowSource, is_labelled
from .encoding import Row
from .encoding.rows import Offence


class TrainingBatches:
    """A collator of raw rows for a training: without those that have nothing to learn from.

    A batch of them alone would have no loss, or one that is no number; then the last batch that had some comes again.

    Args:
        source: The dataset that the rows are of.
    """

    def __init__(self, source: RowSource) -> None:
        self._source, self._encoder = source, source.encoder
        self._last: list[Row] = []

    def __call__(self, rows: list[Row]) -> dict[str, Any]:
        """A batch.

        Raises:
            DatasetError: No row until now has anything to learn from.
        """
        try:
            encoded = self._encoder.encode(rows)
        except SageError as error:
            if isinstance(error.__cause__, Offence):  # rows of a training come in any order
                raise self._source.counted(error.__cause__, []) from error
            raise
        teaching = [each for each in encoded if self._encoder.length(each) != 0 and is_labelled(each)]
        self._last = teaching or self._last or [each for each in self._source.telling() if is_labelled(each)]
        if not self._last:
            raise DatasetError(
                "No row of the first batches has tokens and labels to learn from",
                where="dataset",
                fix="Filter such rows out, or check the text column, the labels and the tokenizer.",
            )
        return self._encoder.collate(self._last)


def training_loss(model: nn.Module, batch: Batch, where: str) -> Tensor:
    """The model's own loss of a batch, a single number.

    Args:
        model: In the mode to be trained in.
        batch: On the model's device.
        where: The user's arguments that model and rows came by, for the message.

    Raises:
        LabelError: The model gives no loss.
    """
    loss = output_field(model(**accepted(model, batch)), "loss")
    if not isinstance(loss, Tensor):
        raise LabelError(
            f"{type(model).__name__} returns no loss to train with for the columns {sorted(batch)}",
            where=where,
            fix="Give the rows labels, or return a loss from the model's forward.",
        )
    return loss.mean()
