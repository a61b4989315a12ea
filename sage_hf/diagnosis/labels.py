"""The labels of a dataset: their column, those that are missing, and the classes against the model's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from datasets import Dataset
from torch import nn

from ..config import CLUSTERS, SageConfig
from ..data.classes import ClassOrder, class_order, model_classes, names_of
from ..data.columns import class_column, find_groups
from ..data.encoding import LABEL_COLUMNS, Encoder
from ..data.encoding.rows import is_list
from ..data.groups import name_of
from ..errors import BudgetError, SageError
from ..gradients.model.state import unwrap
from ..selection.choice import quotas_for
from ..strategies.quotas import resolve_budget
from .findings import ClassCount, ClassFindings, Problem
from .text import listed, plural

# Classes of which a row is looked at.
_CLASSES = 1_000


def label_column(dataset: Dataset, encoder: Encoder | None) -> str | None:
    """The column of labels that the loss sees."""
    name = next((name for name in LABEL_COLUMNS if name in dataset.column_names), None)
    if name is not None and encoder is not None and encoder.causal_lm:
        return name if is_list(encoder.example.get(name)) else None  # a class is none for a language model
    return name


def null_labels(dataset: Dataset, column: str | None) -> list[int]:
    """Numbers of all rows whose label is null."""
    if column is None:
        return []
    return [row for row, value in enumerate(dataset.with_format(None)[column]) if value is None]


def first_of_each_class(model: nn.Module, dataset: Dataset) -> list[int]:
    """The number of the first row of each class, so that a class that the model does not know is found anywhere."""
    column = class_column(dataset.features, model)
    values = dataset.with_format(None)[column] if column is not None else []
    first: dict[int | str, int] = {}
    for row, value in enumerate(values):
        if value is not None:
            first.setdefault(value, row)
    return list(first.values())[:_CLASSES]


def count_groups(
    model: nn.Module, dataset: Dataset, config: SageConfig, nulls: list[int], problems: list[Problem]
) -> int:
    """Number of groups of a selection; adds what is wrong with them. Rows without a label have been told of."""
    column = class_column(dataset.features, model) if config.group_by == "auto" else config.group_by
    if column is None or (column == CLUSTERS and CLUSTERS not in dataset.column_names):
        return 1
    if nulls and config.group_by == "auto":
        return max(1, len(set(dataset.with_format(None)[column]) - {None}))
    try:
        groups = find_groups(model, dataset, config.group_by)
    except SageError as error:
        problems.append(Problem("error", error.what, error.where, error.fix))
        return 1
    if groups.count > max(2, len(dataset) / 2):
        what = f"There are {groups.count:,} groups of {len(dataset):,} rows, and rows are only compared within a group"
        fix = "Group by a column with few values, or by none (group_by=None, --group-by none)."
        problems.append(Problem("warning", what, f"column {column!r}", fix))
    return groups.count


def find_classes(model: nn.Module, dataset: Dataset, config: SageConfig) -> ClassFindings | None:
    """The classes with their rows, and what a budget leaves of each where rows are grouped by class."""
    column = class_column(dataset.features, model)
    if column is None:
        return None
    values = [value for value in dataset.with_format(None)[column] if value is not None]
    counts = Counter(values)
    names = names_of(dataset.features[column])
    distinct = sorted(counts, key=lambda value: (isinstance(value, str), value))
    sizes = np.array([counts[value] for value in distinct], dtype=np.int64)
    kept: list[int | None] = [None] * len(distinct)
    grouped = config.group_by in ("auto", column) and config.balance != "none"
    if grouped and distinct and (config.fraction, config.num_examples) != (None, None):
        try:
            budget = resolve_budget(len(dataset), config.fraction, config.num_examples)
            kept = quotas_for(config, sizes, budget).tolist()
        except BudgetError:  # told of elsewhere
            pass

    classes = [
        ClassCount(name_of(value, names), counts[value], left) for value, left in zip(distinct, kept, strict=True)
    ]
    empty = [name for number, name in enumerate(names or []) if number not in counts]
    order = _order(model, dataset, column, distinct)
    return ClassFindings(column, tuple(sorted(classes, key=lambda each: each.rows)), tuple(empty), order)


def class_problems(
    model: nn.Module, findings: ClassFindings, encoder: Encoder | None, config: SageConfig
) -> Iterator[Problem]:
    """Classes that would lose every row, or get fewer than was asked for, and an order that is not the model's."""
    classes, where, least = findings.classes, f"column {findings.column!r}", config.min_per_group
    short = [each for each in classes if each.kept is not None and each.kept < min(each.rows, least)]
    if short and least > 1:
        what = f"The budget leaves {len(short)} of {len(classes)} classes fewer than min_per_group={least} rows"
        yield Problem("warning", what, where, "Raise the budget, or lower min_per_group.")
    if lost := [each for each in classes if each.kept == 0]:
        rows = listed((f"{each.name!r} ({plural(each.rows, 'row')})" for each in lost), 5)
        yield Problem(
            "warning",
            f"No row would be kept of {len(lost)} of {len(classes)} classes: {rows}",
            where,
            "Keep more rows." if least else "Use min_per_group=1 (--min-per-group 1), or keep more rows.",
        )
    theirs = listed(map(repr, model_classes(unwrap(model)) or []), 5)
    if findings.order == "mapped by name":
        align = f"dataset.align_labels_with_mapping(model.config.label2id, {findings.column!r})"
        what = f"The model numbers the same classes differently ({theirs})"
        if encoder is not None and encoder.hands_rows_on:
            yield Problem("warning", f"{what}, and labels go to the collator by number", where, f"Use {align} first.")
        else:
            fix = f"Nothing for a selection. Trainer does not map them: use {align} before training."
            yield Problem("note", f"{what}: labels are mapped by name", where, fix)
    if findings.order == "differs":
        yield Problem(
            "warning",
            f"The model's classes have other names ({theirs}), and labels are taken by their numbers",
            where,
            "If that is wrong, set label2id and id2label in the model's config, or rename the dataset's classes.",
        )


def _order(model: nn.Module, dataset: Dataset, column: str, values: list[int | str]) -> ClassOrder:
    known, names = model_classes(unwrap(model)), names_of(dataset.features[column])
    if texts := {value for value in values if isinstance(value, str)}:
        of_numbers = known is None and all(text.strip().isdigit() for text in texts)
        return "by number" if of_numbers else "same" if texts <= set(known or []) else "unknown texts"
    return "by number" if known is None or names is None else class_order(names, known)
