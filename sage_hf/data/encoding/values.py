"""What a prepared column of a row may hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from .rows import Row, Unfit, is_list, plain


def check_column(name: str, row: Row) -> None:
    """Refuses a row without a column."""
    if name not in row:
        raise Unfit(
            f"The row has no column {name!r}, only {sorted(row)}",
            "Give every row the same columns, or filter such rows.",
        )


def check_filled(value: Any) -> None:
    """Refuses null."""
    if value is None:
        raise Unfit("The row holds null, but the model needs a value", "Filter or fill such rows.")


def check_tokens(value: Any) -> None:
    """Refuses what is no list of tokens, or of such lists (choices)."""
    check_filled(value)
    if isinstance(value, (np.ndarray, Tensor)):
        is_float = value.dtype.is_floating_point if isinstance(value, Tensor) else value.dtype.kind == "f"
        kinds: set[type] = {float} if is_float else {int}
    elif is_list(value):
        inner = [token for part in value for token in part] if any(is_list(part) for part in value) else value
        kinds = {type(plain(token)) for token in inner}
    else:
        kinds = {type(value)}
    if not kinds <= {int, bool}:
        odd = sorted(kind.__name__ for kind in kinds - {int, bool})
        raise Unfit(
            f"The row holds {', '.join(odd)} where tokens are needed",
            "Give each row a list of whole numbers, or raw text and a tokenizer.",
        )
