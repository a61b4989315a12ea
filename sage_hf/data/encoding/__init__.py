"""From rows of a dataset, raw or prepared, to batches that a model's forward takes."""

from .encoder import INPUT_COLUMNS, TEXT_COLUMNS, TEXT_PAIR, Encoder
from .rows import LABEL_COLUMNS, Collator, Row

__all__ = ["INPUT_COLUMNS", "LABEL_COLUMNS", "TEXT_COLUMNS", "TEXT_PAIR", "Collator", "Encoder", "Row"]
