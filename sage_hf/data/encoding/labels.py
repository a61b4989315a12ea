"""Labels as the model's loss takes them: class numbers, floats, or a zero or one for each class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...errors import LabelError
from ...gradients.losses.per_example import IGNORE_INDEX
from ..classes import renumbered
from .rows import Row, Unfit, each, is_list, plain, shown

# What a model makes of a row, as far as its labels depend on it.
Task = Literal["causal", "seq2seq", "classifier", "choice", "other"]

_MULTI_LABEL, _REGRESSION = "multi_label_classification", "regression"
_FILL = "Filter or fill such rows."


@dataclass(frozen=True)
class Labels:
    """Casts labels to what the model's loss takes, or refuses them.

    Attributes:
        task: What the model makes of a row.
        names: The model's number of each class name.
        classes: Number of classes of the model, if it has any.
        problem_type: As in the model's config.
        class_ids: By column, the model's number of each of the dataset's, where the two number the same classes
            differently.
    """

    task: Task = "other"
    names: Mapping[str, int] = field(default_factory=dict)
    classes: int | None = None
    problem_type: str | None = None
    class_ids: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    def cast(self, rows: list[Row], column: str, first: int) -> list[Any]:
        """The labels of rows.

        Args:
            rows: Rows with the column.
            column: Column of the labels.
            first: Number of the first row in the dataset.

        Raises:
            LabelError: Some are null, of no class, or of another kind than the model's loss takes.
        """
        values, ids = (row.get(column) for row in rows), self.class_ids.get(column)
        if ids is not None:
            values = (renumbered(value, ids) for value in values)
        made = each(self._one, values, LabelError, column, first)
        if self.task == "choice":
            each(_check_choice, zip(rows, made, strict=True), LabelError, column, first)
        return made

    def _one(self, value: Any) -> Any:
        value = plain(value)
        if value is None:
            raise Unfit("The label is null", _FILL)
        if self.problem_type == _MULTI_LABEL:
            return self._each_class(value)
        if self.task == "classifier":
            if self.problem_type == _REGRESSION or (self.problem_type is None and self.classes == 1):
                return self._numbers(value)
            if is_list(value) and self.problem_type is None:
                return self._each_class(value)
            if is_list(value):
                raise Unfit(
                    f"The label is the list {shown(value)}, but the model takes one class a row",
                    "Give each row one class; for several, load the model with "
                    'problem_type="multi_label_classification".',
                )
            return self._class(value)
        if self.task == "choice":
            return _whole(value)
        if isinstance(value, (str, bool, int)):
            return self._class(value)
        return value

    def _class(self, value: Any) -> int:
        if isinstance(value, str):
            if value in self.names:
                return self.names[value]
            is_unnamed = all(name == f"LABEL_{i}" for name, i in self.names.items())
            if not (value.strip().isdigit() and is_unnamed):
                fix = (
                    "If the classes only have other names, set label2id in the model's config. Else load the model "
                    "with a head for these classes (from_pretrained(..., num_labels=N, id2label=..., label2id=...); "
                    "in the shell, name a checkpoint without this head), or leave the rows of other classes out."
                )
                if is_unnamed:
                    fix = (
                        "The checkpoint's config.json does not name its classes: write their names into its id2label "
                        "and label2id, or the classes' numbers into the column."
                    )
                raise Unfit(f"The model knows no class {value!r}, only {list(self.names)[:12]}", fix)
            value = int(value)
        number = _whole(value)
        classes = self.classes
        if classes is not None and classes > 1 and not 0 <= number < classes and number != IGNORE_INDEX:
            raise Unfit(
                f"The label is {number}, and the model has the classes 0 to {classes - 1}",
                "Load the model with the right num_labels, or number the classes from 0.",
            )
        return number

    def _each_class(self, value: Any) -> list[float]:
        numbers = [_number(item) for item in value] if is_list(value) else []
        if len(numbers) != self.classes or not all(0 <= number <= 1 for number in numbers):
            raise Unfit(
                f"The label is {value!r}, but a model with several labels a row takes a list of {self.classes} "
                "zeros and ones, one for each class",
                "Make such lists with dataset.map, or load the model with the right num_labels; for one class a row, "
                'with problem_type="single_label_classification".',
            )
        return numbers

    def _numbers(self, value: Any) -> float | list[float]:
        if isinstance(value, str) and not _is_number(value):
            raise Unfit(
                f"The label is the text {shown(value)}, but the model predicts numbers (a regression)",
                "Give numbers; for classes, load the model with num_labels=2, or as many as there are.",
            )
        if not is_list(value):
            if (self.classes or 1) > 1:
                raise Unfit(
                    f"The label is {value!r}, and the model predicts {self.classes} numbers",
                    "Give each row a list of them, or load the model with num_labels=1.",
                )
            return _number(value)
        numbers = [_number(item) for item in value]
        if len(numbers) != (self.classes or 1):
            raise Unfit(
                f"The label holds {len(numbers)} numbers, and the model predicts {self.classes}",
                "Give each row as many, or load the model with the right num_labels.",
            )
        return numbers if len(numbers) > 1 else numbers[0]


def _check_choice(row_and_label: tuple[Row, int]) -> None:
    row, label = row_and_label
    choices = len(row["input_ids"]) if "input_ids" in row else None
    if choices is not None and not 0 <= label < choices and label != IGNORE_INDEX:
        raise Unfit(
            f"The label is {label}, but the row has the choices 0 to {choices - 1}", "Number the choices from 0."
        )


def _whole(value: Any) -> int:
    """A class number: whole, whatever its type."""
    number = _number(value)
    if number != int(number) if abs(number) < float("inf") else True:
        raise Unfit(
            f"The label is {value!r}, but the model predicts classes, which are numbered 0, 1, ...",
            "Number the classes; or, for numbers to predict, load the model with num_labels=1.",
        )
    return int(number)


def _number(value: Any) -> float:
    value = plain(value)
    if not (isinstance(value, (bool, int, float)) or (isinstance(value, str) and _is_number(value))):
        raise Unfit(
            f"The label is {shown(value)}, a {type(value).__name__}, and the model's loss takes numbers",
            "Turn such labels into numbers.",
        )
    return float(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
