"""From rows of a dataset, raw or prepared, to batches that a model's forward takes."""

from .encoder import Encoder
from .rows import LABEL_COLUMNS, Collator, Row

__all__ = ["LABEL_COLUMNS", "Collator", "Encoder", "Row"]
