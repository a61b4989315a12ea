"""Rows of uneven length as one batch: what holds a value a token is filled up to the longest row, on the right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import DatasetError
from ...gradients.losses.per_example import IGNORE_INDEX
from .limits import row_length
from .rows import LABEL_COLUMNS, Row, is_list

MASK = "attention_mask"
# Columns whose first axis is the row's tokens.
TOKENS = ("input_ids", "inputs_embeds")


@dataclass(frozen=True)
class Padding:
    """What rows are filled up with.

    Attributes:
        token: The id that stands for nothing; None where the model would take any for one of the row's own.
        token_type: Its type.
        adds_mask: Whether the model is told which tokens are a row's own, if rows do not tell.
        always_masks: Whether it is told so where nothing was filled up, too.
    """

    token: int | None = None
    token_type: int = 0
    adds_mask: bool = False
    always_masks: bool = False

    def batch(self, features: list[Row]) -> dict[str, Tensor]:
        """Features of rows of tokens as tensors [B, ...].

        Raises:
            DatasetError: They have different shapes, and nothing to fill them up with.
        """
        name = next(name for name in TOKENS if name in features[0])
        lengths = [tokens_in(feature[name], name) for feature in features]
        longest = max(*lengths, 1)
        axis = int(name == "input_ids" and _holds_lists(features))  # of several choices, the tokens come second
        choices = [len(choice) for feature in features for choice in feature["input_ids"]] if axis else lengths
        is_uneven = any(length != longest for length in choices)
        if MASK not in features[0] and self.adds_mask and (is_uneven or self.always_masks):
            features = [{**feature, MASK: _ones(feature[name], name)} for feature in features]
        if is_uneven and self.token is None and MASK not in features[0]:
            raise DatasetError(
                f"The rows have {min(lengths)} to {longest} tokens, and it is not known how to pad them",
                where=f"columns {sorted(features[0])}",
                fix="Pass processing_class=tokenizer to pad them, or a data_collator.",
            )
        fills = {"token_type_ids": self.token_type, "special_tokens_mask": 1, "labels": IGNORE_INDEX}
        fills |= dict.fromkeys(("input_ids", "decoder_input_ids"), self.token or 0)
        made = {}
        for column in features[0]:
            values = [feature[column] for feature in features]
            if isinstance(values[0], (str, bytes, Mapping)) or any(value is None for value in values):
                continue  # for models whose forward takes anything
            kind = "labels" if column in LABEL_COLUMNS else column
            if kind == "labels" and not is_list(values[0]):
                made[kind] = torch.tensor(values)
                continue
            fill = fills.get(kind, 0)
            parts = [_tensor(value, fill, axis, column) for value in values]
            sizes = [part.shape[axis] if part.ndim > axis else -1 for part in parts]
            if sizes == lengths:
                made[kind] = _joined(parts, longest, axis, fill, column)
            else:
                has_own_length = kind == "labels" or kind.startswith("decoder_")
                made[kind] = _joined(parts, max(*sizes, 1) if has_own_length else None, axis, fill, column)
        for row, length in enumerate(lengths):
            if not length and MASK in made:
                made[MASK][row].view(-1)[0] = 1  # models fail on nothing at all
        return made


def tokens_in(values: Any, name: str) -> int:
    """How many tokens a column of `TOKENS` holds for a row."""
    return row_length(values) if name == "input_ids" else len(values)


def has_any(mask: Any) -> bool:
    """Whether a mask of a row, or of its choices, lets any token be seen."""
    if isinstance(mask, (list, tuple)):
        return any(has_any(part) if is_list(part) else part for part in mask)
    return bool(mask.any())


def _holds_lists(features: list[Row]) -> bool:
    first = next((feature["input_ids"][0] for feature in features if len(feature["input_ids"])), 0)
    return is_list(first)


def _ones(values: Any, name: str) -> Any:
    """A mask of all of a row's tokens."""
    if name == "input_ids" and len(values) and is_list(values[0]):
        return [[1] * len(choice) for choice in values]
    return [1] * len(values)


def _tensor(value: Any, fill: int, axis: int, column: str) -> Tensor:
    """A row's values; of choices of uneven length, the shorter are filled up."""
    try:
        if axis and isinstance(value, list) and value and all(is_list(choice) for choice in value):
            choices = [torch.as_tensor(choice) for choice in value]
            return _joined(choices, max(len(choice) for choice in choices), 0, fill, column)
        made = torch.as_tensor(value)
        return made.long() if made.numel() == 0 else made
    except (ValueError, TypeError, RuntimeError) as error:
        raise _uneven(column, str(error)) from error


def _joined(parts: list[Tensor], size: int | None, axis: int, fill: int, column: str) -> Tensor:
    """[B, ...], filled up to `size` along an axis of the rows; as they are where it is None."""
    shapes = {part.shape[:axis] + part.shape[axis + 1 :] for part in parts}
    if len(shapes) > 1 or (size is None and len({part.shape for part in parts}) > 1):
        raise _uneven(column, f"their shapes are {sorted({tuple(part.shape) for part in parts})[:4]}")
    if size is None or all(part.shape[axis] == size for part in parts):
        return torch.stack(parts)
    shape = list(parts[0].shape)
    shape[axis] = size
    made = parts[0].new_full((len(parts), *shape), fill)
    for row, part in enumerate(parts):
        made[row].narrow(axis, 0, part.shape[axis]).copy_(part)
    return made


def _uneven(column: str, why: str) -> DatasetError:
    return DatasetError(
        f"The rows do not make a batch: {why}",
        where=f"column {column!r}",
        fix="Give each row as many values as it has tokens, or all rows as many; or pass a data_collator.",
    )
