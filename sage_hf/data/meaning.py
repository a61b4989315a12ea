"""Does a score mean anything? What the passes show of the model that scored, and of the scores themselves.

A fresh head, a constant gradient or groups of one row each give every row a number, too. What is judged here is known
after the passes anyway, and is summed as rows come, so that a stream is judged like a dataset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn
from transformers import PreTrainedModel

from ..gradients.layers.targets import part_of
from .classes import tells_classes_apart

# Of a normal distribution, what lies beyond: chance gives more once in twenty times.
BEYOND_CHANCE = 1.645
# Of the way from guessing to being always right, what a model that has learned something has gone. A random head on
# good features is off guessing, either way, by some per cent, and with few classes by much; it has no lower loss than
# guessing, and then it takes the other share: a model that is sure of itself has a high loss on wrong labels, too.
_LEAST_GAIN, _LEAST_GAIN_ALONE = 0.1, 0.5
# The same of the loss: a fresh head on rows that are all alike to it is below guessing by less, and by no chance.
_LEAST_FALL = 0.01
# Scores that differ by less are one score: fresh models of the tests and of the demo have 0.0004 and less.
_LEAST_DEVIATION = 0.001
# Fewer rows show nothing.
_LEAST_ROWS = 10
# Rows a group on average, below which a consensus is of hardly anything but the row itself.
_SMALL_GROUP = 2.0
_WARM_UP = (
    "Warm the model up, or for longer: warm_up(model, dataset, steps=200), --warmup-steps 200 in the shell; a model "
    "from a config takes a larger learning rate (learning_rate=0.001, --warmup-learning-rate 0.001). Or take a "
    "checkpoint that was trained on the task."
)


@dataclass(frozen=True)
class Meaning:
    """What speaks for or against the scores of a selection.

    Attributes:
        rows: Number of rows that have a score.
        groups: Number of groups.
        judged: Number of rows whose label the model was held against; 0 where it tells no classes apart.
        accuracy: Share of these whose label is the model's likeliest class; None without any.
        majority: What always guessing the commonest class gets; None without any.
        mean_loss: Mean loss of the rows; None where it cannot be held against guessing.
        guessing_loss: Mean loss of guessing: by the frequency of each class, or any word of the vocabulary alike.
        loss_deviation: Standard deviation of the rows' losses.
        score_deviation: Standard deviation of the rows' scores.
    """

    rows: int
    groups: int
    judged: int
    accuracy: float | None
    majority: float | None
    mean_loss: float | None
    guessing_loss: float | None
    loss_deviation: float
    score_deviation: float

    @property
    def is_above_chance(self) -> bool | None:
        """Whether the model knows more of the labels than guessing does; None where that cannot be told."""
        answers = [answer for answer in (self._by_accuracy, self._by_loss) if answer is not None]
        return any(answers) if answers else None

    @property
    def _by_accuracy(self) -> bool | None:
        if self.accuracy is None or self.majority is None or self.judged < _LEAST_ROWS:
            return None
        room, share = 1.0 - self.majority, _LEAST_GAIN_ALONE if self._by_loss is False else _LEAST_GAIN
        needed = max(share * room, self._luck)
        if room <= needed:  # even a model that is always right could not show it
            return None
        return self.accuracy - self.majority > needed

    @property
    def _luck(self) -> float:
        """What chance may add to an accuracy of guessing."""
        majority = self.majority or 0.0
        return BEYOND_CHANCE * math.sqrt(majority * (1.0 - majority) / max(1, self.judged))

    @property
    def _by_loss(self) -> bool | None:
        if self.mean_loss is None or self.guessing_loss is None or self.rows < _LEAST_ROWS:
            return None
        if self.guessing_loss <= 0.0:  # a single class
            return None
        error = self.loss_deviation / math.sqrt(self.rows)
        return self.guessing_loss - self.mean_loss > max(_LEAST_FALL * self.guessing_loss, BEYOND_CHANCE * error)

    @property
    def differs(self) -> bool | None:
        """Whether scores tell rows apart; None where there are too few rows."""
        return None if self.rows < _LEAST_ROWS else self.score_deviation >= _LEAST_DEVIATION

    @property
    def warning(self) -> str:
        """What a person is told, with the numbers and what to do; empty where nothing speaks against the scores."""
        if self.is_above_chance is False:
            return f"The scores mean little: {self._chance}{self._sameness}. {_WARM_UP}"
        if self.differs is False:
            return f"The scores mean little: {self._same}. {self._apart}"
        return ""

    @property
    def _chance(self) -> str:
        if self.accuracy is not None and self.majority is not None:
            if self.accuracy > self.majority:
                by_luck = self.accuracy - self.majority <= self._luck
                return (
                    f"the model predicts the label of {self.accuracy:.1%} of {self.judged:,} rows, "
                    f"{'no more than chance may give above' if by_luck else 'only a little more than'} the "
                    f"{self.majority:.1%} of always guessing the commonest class"
                )
            return (
                f"the model predicts the label of {self.accuracy:.1%} of {self.judged:,} rows, and always guessing "
                f"the commonest class would get {self.majority:.1%}"
            )
        return (
            f"the model's mean loss is {self.mean_loss:.3f}, and guessing without a look at the row would have "
            f"{self.guessing_loss:.3f}"
        )

    @property
    def _same(self) -> str:
        return (
            f"the scores of all {self.rows:,} rows are nearly equal (standard deviation {self.score_deviation:.4f}, "
            "on a scale from -1 to 1)"
        )

    @property
    def _sameness(self) -> str:
        return f"; and {self._same}" if self.differs is False else ""

    @property
    def _apart(self) -> str:
        if self.rows < _SMALL_GROUP * self.groups:
            return (
                f"{self.groups:,} groups have {self.rows / self.groups:.1f} rows each on average, and a row agrees "
                "with itself: group by a column with fewer values, or by none (group_by=None, --group-by none)."
            )
        if self.is_above_chance:
            return (
                "Rows are alike to a model that has learned all of them, as copies of each other are to any: score "
                "with an earlier checkpoint or a shorter warm-up."
            )
        return f"{_WARM_UP} Rows that are copies of each other score alike, too."


@dataclass
class Spread:
    """Mean and spread of numbers that come part by part (Chan, Golub and LeVeque, 1979).

    Attributes:
        count: Number of numbers.
        mean: Their mean; 0 of none.
        squares: Sum of their squared distances from the mean.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: npt.NDArray[np.floating[Any]]) -> None:
        """The next part; numbers that are not finite do not count."""
        values = values[np.isfinite(values)].astype(np.float64)
        if not len(values):
            return
        mean, total = float(values.mean()), self.count + len(values)
        apart = mean - self.mean
        self.squares += float(((values - mean) ** 2).sum()) + apart**2 * self.count * len(values) / total
        self.mean += apart * len(values) / total
        self.count = total

    @property
    def deviation(self) -> float:
        """Standard deviation; 0 of none."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0


@dataclass
class MeaningTally:
    """What is summed of rows for a `Meaning`, part by part.

    Attributes:
        scores: Of the rows that have one.
        losses: Of the same; where there are classes, of the rows that have one.
        classes: [C] number of rows of each class.
        judged: Number of rows whose label the model was held against.
        right: Number of these whose label is the model's likeliest class.
    """

    scores: Spread = field(default_factory=Spread)
    losses: Spread = field(default_factory=Spread)
    classes: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    judged: int = 0
    right: int = 0

    def add(
        self,
        scores: npt.NDArray[np.float32],
        losses: npt.NDArray[np.float32],
        labels: npt.NDArray[np.integer[Any]] | None,
        doubts: npt.NDArray[np.float32] | None,
    ) -> None:
        """Counts rows.

        Args:
            scores: [M], NaN where a row is set aside.
            losses: [M], the same.
            labels: [M] classes, negative where a row has none; None where the task has none.
            doubts: [M] how the model doubts each label, above 0.5 where it thinks another class likelier; NaN where it
                does not say. None where nobody asked.
        """
        scored = np.isfinite(scores)
        self.scores.add(scores[scored])
        has_class = scored if labels is None else scored & (labels >= 0)
        if doubts is not None and labels is not None:
            has_class = has_class & np.isfinite(doubts)
            self.judged += int(np.count_nonzero(has_class))
            self.right += int(np.count_nonzero(doubts[has_class] <= 0.5))
        self.losses.add(losses[has_class])
        if labels is not None:
            counts = np.bincount(labels[has_class], minlength=len(self.classes))
            counts[: len(self.classes)] += self.classes
            self.classes = counts

    def finish(self, groups: int, model: nn.Module, is_own_loss: bool) -> Meaning:
        """What the rows so far come to.

        Args:
            groups: Number of groups.
            model: That scored, unwrapped.
            is_own_loss: Whether losses are the model's own, a mean over a row's tokens: others cannot be held against
                guessing, nor can those of a model that transformers does not know.
        """
        shares = self.classes[self.classes > 0] / max(1, self.classes.sum())
        guessing = loss_of_guessing(model) if is_own_loss else None
        if guessing is not None and tells_classes_apart(model):  # known better, by how often each class is
            guessing = float(-(shares * np.log(shares)).sum()) if len(shares) else None
        return Meaning(
            rows=self.scores.count,
            groups=groups,
            judged=self.judged,
            accuracy=self.right / self.judged if self.judged else None,
            majority=float(shares.max()) if self.judged else None,
            mean_loss=None if guessing is None else self.losses.mean,
            guessing_loss=guessing,
            loss_deviation=self.losses.deviation,
            score_deviation=self.scores.deviation,
        )


def loss_of_guessing(model: nn.Module) -> float | None:
    """Loss of a model of transformers that knows nothing of a row; None where its loss is of another kind.

    Any class or any word alike: a model that reads sound or pixels and writes no text token by token (one with a CTC
    loss, which is a sum) is none.
    """
    config = getattr(model, "config", None)
    if isinstance(model, PreTrainedModel) and tells_classes_apart(model):
        is_single = getattr(config, "problem_type", None) in (None, "single_label_classification")
        labels = getattr(config, "num_labels", 0)
        return math.log(labels) if is_single and labels > 1 else None
    writes = getattr(model, "main_input_name", None) == "input_ids" or getattr(config, "is_encoder_decoder", False)
    words = getattr(part_of(model, "get_output_embeddings"), "out_features", None)
    return math.log(words) if writes and words and words > 1 else None
