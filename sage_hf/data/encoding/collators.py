"""The user's collator: what it gets, what becomes of its columns, and what is said where it fails."""

from __future__ import annotations

from functools import partial
from typing import Any

from ...errors import DatasetError, SageError
from .rows import Collator, Row

# Collators that take what the forward takes, as Trainer gives it to them; anybody else's gets all columns.
_LIBRARIES = ("transformers.", "trl.")


def is_of_library(collator: Collator) -> bool:
    """Whether a collator is one of those that Trainer gives the forward's columns alone."""
    function: Any = collator
    while isinstance(function, partial):
        function = function.func
    return f"{getattr(function, '__module__', '')}.".startswith(_LIBRARIES)


def collated(collator: Collator, features: list[Row], kept: list[str] | None) -> dict[str, Any]:
    """What a collator makes of rows: of all columns or, where it cannot use the others, of the forward's alone.

    Args:
        collator: The user's.
        features: Rows with all columns that the collator may read.
        kept: Those that the forward takes, and the labels; None where nobody knows.

    Raises:
        DatasetError: The collator fails.
    """
    if kept is None:
        kept = list(features[0])
    try:
        # A collator that stacks whatever it gets makes columns that the forward would take by mistake, or fail on.
        batch = collator([dict(feature) for feature in features])
        return {name: value for name, value in batch.items() if name in kept or name not in features[0]}
    except SageError:
        raise
    except Exception as error:
        if len(kept) < len(features[0]):
            try:
                return dict(collator([{name: feature[name] for name in kept} for feature in features]))
            except Exception:  # the first is what the user's own lines say
                pass
        raise DatasetError(
            f"The collator fails: {type(error).__name__}: {error}",
            where="data_collator",
            fix="The collator gets rows with all columns of the dataset: fix the collator, or the rows.",
        ) from error
