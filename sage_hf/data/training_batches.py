"""Batches for the short trainings of the library's own, without rows that teach nothing."""

from __future__ import annotations

from typing import Any

from ..errors import DatasetError, SageError
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
