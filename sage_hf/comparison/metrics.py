"""How trained models are judged: by anything with `compute`, as the modules of `evaluate` have it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..gradients.losses.per_example import IGNORE_INDEX

LOSS = "loss"
# Names of which less is better; so are names that end in "loss" or "error".
LOWER_IS_BETTER = frozenset(("perplexity", "mse", "rmse", "mae", "mape", "smape", "wer", "cer", "ter", "brier_score"))


# Names, or their endings, of metrics within [0, 1].
_SHARES = ("accuracy", "f1", "precision", "recall", "auc")


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


def bounds(name: str) -> tuple[float, float]:
    """The least and the most that a metric can be, as far as its name tells."""
    if name.endswith(_SHARES):
        return 0.0, 1.0
    return (0.0 if name in LOWER_IS_BETTER or name.endswith((LOSS, "error")) else -math.inf), math.inf


def guessing(metric: Metric | None, classes: npt.NDArray[np.integer[Any]]) -> dict[str, float]:
    """What always guessing the commonest class comes to; nothing where the metric cannot say.

    Args:
        metric: Judges predictions; None where the loss judges.
        classes: [N] of the test rows.
    """
    if metric is None or not len(classes):
        return {}
    values, counts = np.unique(classes, return_counts=True)
    guess = np.full_like(classes, values[counts.argmax()])
    try:
        return numbers_of(metric.compute(predictions=guess, references=classes))
    except (ValueError, TypeError, KeyError):  # wants other predictions than classes
        return {}


def numbers_of(result: Any) -> dict[str, float]:
    """What a metric computed, as plain numbers; lists of numbers by class are left out.

    Raises:
        ConfigError: There is no number in it.
    """
    items = result.items() if isinstance(result, Mapping) else ()
    numbers = {str(name): float(value) for name, value in items if isinstance(value, (int, float, np.number))}
    if not numbers:
        raise ConfigError(
            f"The metric computed {result!r}, which is not a number",
            where="metric",
            fix="Return {name: number} from compute.",
        )
    return numbers
