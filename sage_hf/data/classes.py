"""A model's classes and a dataset's: which number of the one is which of the other, told by their names."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import pyarrow
from datasets import ClassLabel, Dataset, Features, Value
from torch import nn

from ..gradients.model.state import unwrap
from ..utils.notices import warn_once

logger = logging.getLogger(__name__)

ClassOrder = Literal["same", "mapped by name", "differs", "unknown texts", "by number"]


class Classes(TypedDict):
    """The classes of a column of text labels.

    Attributes:
        column: Its name.
        names: Names of all classes, in the order of their numbers.
    """

    column: str
    names: list[str]


# Heads whose loss is over tokens, places, boxes or numbers: a class in a column `label` is none of theirs.
_NOT_OF_CLASSES = re.compile(
    "CausalLM|LMHead|DoubleHeads|MaskedLM|ConditionalGeneration|PreTraining|QuestionAnswering|MultipleChoice|CTC"
    "|TokenClassification|FrameClassification|Seq2Seq|MaskedImage|Segmentation|Detection|Estimation|Prediction"
    "|Regression|Reconstruction|TextToSpeech|Decoder$"
)
# Classes that a warning names of each list.
_NAMED = 8


def model_classes(model: nn.Module) -> list[str] | None:
    """The names of a model's classes by number; None where its config names none (LABEL_0, LABEL_1, ...)."""
    config = getattr(model, "config", None)
    numbers = {name: int(number) for number, name in (getattr(config, "id2label", None) or {}).items()}
    for ids in (getattr(config, "label2id", None), numbers):
        names = _in_order(ids)
        if names and names != [f"LABEL_{number}" for number in range(len(names))]:
            return names
    return None


def text_classes(
    model: nn.Module, column: str | None, features: Features | None, values: Iterable[Any]
) -> Classes | None:
    """The classes that a column of text labels stands for, in the order of their numbers; None where it is no text.

    All of the model's, by its numbers, where it knows each value; else the values, sorted.

    Args:
        model: A model with a config.
        column: The column of the labels, if there is one.
        features: Features of the dataset.
        values: The column's values, as far as they are known.
    """
    feature = (features or {}).get(column)
    if column is None or not is_text(feature):
        return None
    held = {value for value in values if value is not None}
    names = _in_order(getattr(getattr(unwrap(model), "config", None), "label2id", None)) or []
    names = names if held <= set(names) else sorted(held)
    return {"column": column, "names": names} if names else None


def is_text(feature: Any) -> bool:
    """Whether a column holds text, by its feature."""
    return isinstance(feature, Value) and "string" in feature.dtype


def with_class_names(rows: Dataset, classes: Classes | None) -> Dataset:
    """The rows with text labels as numbers that know the names of all classes, as a Trainer needs them.

    A dataset stays as it is where its labels are no text, or others, or where a transform of the user's reads them.
    """
    feature = rows.features.get(classes["column"]) if classes else None
    if classes is None or not is_text(feature) or rows.format["type"] == "custom":
        return rows
    column, number_of = classes["column"], {name: number for number, name in enumerate(classes["names"])}
    values = rows.with_format(None)[column]
    if not set(values) <= {*number_of, None}:
        return rows
    ids = pyarrow.array([number_of.get(value) for value in values], pyarrow.int64())
    made = rows.remove_columns(column).add_column(column, ids, feature=ClassLabel(names=classes["names"]))
    return made.select_columns(rows.column_names)


def tells_classes_apart(model: nn.Module) -> bool:
    """Whether a model's loss may be over a class a row: not with the head of a language model, say, or a regression.

    A model of the user's own may always.
    """
    model = unwrap(model)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    if getattr(getattr(base, "config", None), "num_labels", 2) == 1:
        return False
    heads = [kind.__name__ for kind in type(base).__mro__ if "For" in kind.__name__ or "LMHead" in kind.__name__]
    return not (heads and _NOT_OF_CLASSES.search(heads[0]))


def class_ids(
    model: nn.Module, features: Features | None, columns: Sequence[str], as_they_are: bool = False
) -> dict[str, dict[int, int]]:
    """By column, the model's number of each class of a dataset, where both name the same classes in another order.

    Says so, once a model; and where the names are others, that labels are taken by their numbers.

    Args:
        model: A model with a config.
        features: Features of the dataset.
        columns: Columns that may hold labels.
        as_they_are: Whether labels go to a training or a collator of the user's as they are: nothing is mapped then,
            and that is said.
    """
    known = model_classes(model)
    mapped = {}
    for column in columns:
        names = names_of((features or {}).get(column))
        if known is None or names is None or (order := class_order(names, known)) in ("same", "by number"):
            continue
        here, there = _listed(names), _listed(known)
        text = f"The classes of column {column!r} are {here}, and those of the model's config are {there}"
        align = f"dataset.align_labels_with_mapping(model.config.label2id, {column!r})"
        if order == "differs":
            text += (
                ": the names differ, and labels are taken by their numbers. If that is wrong, set label2id "
                "and id2label in the model's config, or rename the dataset's classes."
            )
        elif as_they_are:
            text += f": labels go by their numbers here, not by their names. Use {align} before."
        else:
            mapped[column] = by_name(names, known) or {}
            text += f": labels are mapped by name. A Trainer would not: use {align} for it."
        warn_once(logger, model, text)
    return mapped


def class_order(names: Sequence[str], known: Sequence[str]) -> ClassOrder:
    """How a dataset's class numbers become a model's.

    "same"; "mapped by name", where both name the same classes in another order; "by number", where the dataset's names
    are its numbers; "differs", where the names are others.
    """
    ids = by_name(names, known)
    if list(names) == list(known[: len(names)]) or ids == {number: number for number in range(len(names))}:
        return "same"
    if ids is not None:
        return "mapped by name"
    return "by number" if list(names) == [str(number) for number in range(len(names))] else "differs"


def by_name(names: Sequence[str], known: Sequence[str]) -> dict[int, int] | None:
    """The number in `known` of each of `names`, where the two are the same set; None where they are not.

    The case of letters counts only where two names would otherwise be one.
    """
    for fold in (str, str.casefold):
        here, there = [fold(name) for name in names], [fold(name) for name in known]
        if len(set(here)) == len(here) and sorted(here) == sorted(there):
            return {number: there.index(name) for number, name in enumerate(here)}
    return None


def renumbered(value: Any, ids: Mapping[int, int]) -> Any:
    """A label, or a list of them, by the model's numbers; what is no class (-100, null) stays."""
    if isinstance(value, list):
        return [renumbered(each, ids) for each in value]
    return ids.get(value, value) if isinstance(value, int) else value


def names_of(feature: Any) -> list[str] | None:
    """The names of a column's classes, or of those in its lists."""
    while not isinstance(feature, ClassLabel) and hasattr(feature, "feature"):
        feature = feature.feature
    return list(feature.names) if isinstance(feature, ClassLabel) and feature.names else None


def _in_order(ids: Mapping[str, int] | None) -> list[str] | None:
    """The names by their numbers, where these are 0, 1, ..."""
    if not ids or sorted(ids.values()) != list(range(len(ids))):
        return None
    return [str(name) for name in sorted(ids, key=ids.__getitem__)]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{list(names[:_NAMED])}{more}"
