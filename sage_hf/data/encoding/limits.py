"""Numbers that a model has no place for: a token beyond its table, a row longer than its positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...errors import DatasetError, LabelError
from ...gradients.losses.per_example import IGNORE_INDEX
from .rows import Row, Unfit, each, is_list

_FIXES = {
    "input_ids": "Call model.resize_token_embeddings(len(tokenizer)), or use the model's own tokenizer.",
    "labels": "Use the model's own tokenizer or classes; what is to be left out of the loss is -100.",
}
_TRUNCATE = "Truncate the rows, or use a model with more positions."


@dataclass(frozen=True)
class Limits:
    """What a model has places for.

    Attributes:
        counts: Number of different values that each column may hold: tokens, token types, positions, classes.
        positions: The most tokens of a row, where the model looks positions up in a table.
        per_token: Columns that hold a number for each token.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    positions: int | None = None
    per_token: tuple[str, ...] = ("attention_mask", "token_type_ids")

    def check(self, features: list[Row], first: int) -> None:
        """Refuses features that the model would fail on.

        Args:
            features: Features of each row.
            first: Number of the first row in the dataset.

        Raises:
            DatasetError: Some hold numbers beyond the model's tables, or are too long.
            LabelError: The same of labels.
        """
        if not features:
            return
        for column, count in self.counts.items():
            if column in features[0]:
                fix = _FIXES.get(column, "Use the model's own tokenizer or processor.")
                values = (feature.get(column) for feature in features)
                check = partial(_check, column=column, count=count, fix=fix)
                each(check, values, LabelError if column == "labels" else DatasetError, column, first)
        if "input_ids" not in features[0]:
            return
        if self.positions is not None:
            each(self._check_length, (feature["input_ids"] for feature in features), DatasetError, "input_ids", first)
        for column in self.per_token:
            if column in features[0]:
                pairs = ((feature["input_ids"], feature[column]) for feature in features)
                each(_check_alike, pairs, LabelError if column == "labels" else DatasetError, column, first)

    def _check_length(self, ids: Any) -> None:
        length = row_length(ids)
        if self.positions is not None and length > self.positions:
            raise Unfit(f"The row has {length} tokens, but the model has {self.positions} positions", _TRUNCATE)


def row_length(values: Any) -> int:
    """How many tokens a row has: of several choices, the longest."""
    if isinstance(values, Tensor):
        return values.shape[-1]
    if len(values) and is_list(values[0]):
        return max(len(choice) for choice in values)
    return len(values)


def _check_alike(ids_and_values: tuple[Any, Any]) -> None:
    ids, values = ids_and_values
    if len(ids) and is_list(ids[0]):
        for choice, numbers in zip(ids, values, strict=False):
            _check_alike((choice, numbers))
    elif is_list(values) and len(ids) != len(values):
        raise Unfit(f"The row has {len(ids)} tokens and {len(values)} numbers for them", "Give each token one number.")


def _check(values: Any, column: str, count: int, fix: str) -> None:
    try:
        low, high = _ends(values, column == "labels")
    except TypeError:
        raise Unfit("A null or a text is among the row's numbers", "Filter or fill such rows.") from None
    if low < 0 or high >= count:
        raise Unfit(f"The row holds {low if low < 0 else high}, but the model knows only 0 to {count - 1}", fix)


def _ends(values: Any, may_ignore: bool) -> tuple[int, int]:
    """The lowest and the highest of numbers in lists, or lists of lists; what the loss leaves out does not count."""
    if not is_list(values):
        return 0, 0
    if isinstance(values, (list, tuple)):
        if values and is_list(values[0]):
            ends = [_ends(part, may_ignore) for part in values]
            return min(low for low, _ in ends), max(high for _, high in ends)
        if may_ignore:
            values = [value for value in values if value != IGNORE_INDEX]
        return min(values, default=0), max(values, default=0)
    numbers = torch.as_tensor(values).flatten()
    if may_ignore:
        numbers = numbers[numbers != IGNORE_INDEX]
    return (int(numbers.min()), int(numbers.max())) if numbers.numel() else (0, 0)
