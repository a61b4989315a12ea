"""How trained models are judged: by anything with `compute`, as the modules of `evaluate` have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from ..errors import ConfigError
from ..gradients.losses.per_example import IGNORE_INDEX

LOSS = "loss"
# Names of which less is better; so are names that end in "loss" or "error".
LOWER_IS_BETTER = frozenset(("perplexity", "mse", "rmse", "mae", "mape", "smape", "wer", "cer", "ter", "brier_score"))


class Metric(Protocol):
    """What `evaluate.load(...)` gives; any object with this method will do."""

    def compute(self, *, predictions: Any, references: Any) -> Mapping[str, Any] | None:
        """{name: number} for predictions [N, ...] and references [N, ...]; the first number is the one that counts."""
        ...


class Accuracy:
    """The share of predictions that are right, in [0, 1]; as `evaluate.load("accuracy")`, without the network."""

    name = "accuracy"

    def compute(self, *, predictions: Any, references: Any) -> dict[str, float]:
        """{"accuracy": share} of the right classes, of any shape, but for those that are -100.

        Raises:
            ConfigError: The shapes differ, or nothing is to be predicted.
        """
        predicted, right = np.asarray(predictions), np.asarray(references)
        if predicted.shape != right.shape:
            raise ConfigError(
                f"There are predictions of shape {list(predicted.shape)} and references of shape {list(right.shape)}",
                where="metric",
                fix="Give one class for each reference.",
            )
        counted = right != IGNORE_INDEX
        if not counted.any():
            raise ConfigError("There is no reference", where="metric", fix="Give test rows with labels.")
        return {"accuracy": float((predicted == right)[counted].mean())}


def is_greater_better(name: str) -> bool:
    """Whether more of a metric is better, as far as its name tells."""
    return name not in LOWER_IS_BETTER and not name.endswith((LOSS, "error"))


def numbers_of(result: Any) -> dict[str, float]:
    """What a metric computed, as plain numbers; lists of numbers by class are left out.

    Raises:
        ConfigError: There is no number in it.
    """
    items = result.items() if isinstance(result, Mapping) else ()
    numbers = {str(name): float(value) for name, value in items if isinstance(value, (int, float, np.number))}
    if not numbers:
        raise ConfigError(
            f"The metric computed {result!r}, and no number", where="metric", fix="Return {name: number} from compute."
        )
    return numbers
