"""Looks at a model and a dataset as a selection would, without one, and tells all that it finds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset, IterableDataset
from torch import nn

from ..config import SageConfig
from ..data.batches import RowSource, check_dataset
from ..data.columns import open_source
from ..data.encoding import LABEL_COLUMNS, Collator, Encoder
from ..data.encoding.rows import named
from ..errors import DatasetError
from ..gradients import GradientCollector
from ..gradients.losses.per_example import LossFunction
from ..gradients.model.state import check_model, num_weights
from ..strategies.quotas import resolve_budget
from ..utils.given import given_config
from ..utils.notices import silent
from ..utils.rng import isolated_rng
from .diagnosis import Diagnosis, by_severity
from .findings import CheckFindings, Problem, RowFindings, Space, TimeFindings
from .labels import class_problems, count_groups, find_classes, first_of_each_class, label_column, null_labels
from .model import find_model, model_problems
from .run import Clock, collected, run_check
from .sample import Sample, look_at
from .spaces import find_spaces, space_problems
from .text import percent

# Share of rows without tokens, or cut, from which on it is more than a note.
_MANY = 0.1


def diagnose(
    model: nn.Module,
    dataset: Dataset | None = None,
    *,
    processing_class: Any = None,
    data_collator: Collator | None = None,
    loss_function: LossFunction | None = None,
    config: SageConfig | None = None,
) -> Diagnosis:
    """Finds out what a selection with this model and these rows would be like: targets, costs, time, and problems.

    Nothing is chosen, trained or written, and the model is not changed. All problems that can be found are listed,
    instead of raised one at a time: some thousand rows from all parts of the dataset are looked at one by one, and
    the check and the timing use those that are fine. What a selection would log is in the report, and not logged.

    Args:
        model: As for `SageSelector`.
        dataset: The rows; None to look at the model alone.
        processing_class: As for `SageSelector`.
        data_collator: As for `SageSelector`.
        loss_function: As for `SageSelector`.
        config: The settings that a selection would have; a budget may be missing.

    Returns:
        The diagnosis: print it, look into `problems`, or write `to_dict()` as JSON.

    Raises:
        ConfigError: The model is none, or the strategy is unknown.
        DatasetError: The dataset is a stream, has several splits, or is none.

    Example:
        >>> print(diagnose(model, dataset, processing_class=tokenizer, config=SageConfig(fraction=0.1)))
    """
    config = given_config(config)
    check_model(model)
    if isinstance(dataset, IterableDataset):
        raise DatasetError(
            "A stream cannot be looked at: it gives its rows only in order",
            where="dataset",
            fix="Look at its beginning: Dataset.from_list(list(stream.take(1000))).",
        )
    with isolated_rng(config.seed), silent(), _in_the_report():
        problems: list[Problem] = []
        collector = None
        with collected(problems, "model"):
            collector = GradientCollector.of(model, config, loss_function)
        config = config.settled(collector.width if collector is not None else 0, num_weights(model))
        examined = _Examined(model, collector, config, problems)
        if dataset is not None:
            examined.look_into(dataset, processing_class, data_collator)
        return examined.report(None if dataset is None else len(dataset))


@dataclass
class _Examined:
    """A diagnosis in the making; `collector` is None where nothing can be targeted."""

    model: nn.Module
    collector: GradientCollector | None
    config: SageConfig
    problems: list[Problem]
    rows: RowFindings | None = None
    check: CheckFindings | None = None
    time: TimeFindings | None = None
    groups: int = 1
    embedding: int = 0

    def look_into(self, dataset: Dataset, processing_class: Any, data_collator: Collator | None) -> None:
        """The dataset, then model and dataset together."""
        with collected(self.problems, "dataset"):
            check_dataset(dataset)
        if not isinstance(dataset, Dataset):
            problem = self.problems[-1]
            raise DatasetError(problem.what, where=problem.where, fix=problem.fix)
        if not len(dataset):
            self.rows = RowFindings(unread=tuple(dataset.column_names), label_column=label_column(dataset, None))
            self.check = CheckFindings("not run", "the dataset has no rows")
            return
        if (self.config.fraction, self.config.num_examples) != (None, None):
            with collected(self.problems, "num_examples"):
                resolve_budget(len(dataset), self.config.fraction, self.config.num_examples)
        source: RowSource | None = None
        with collected(self.problems, "dataset"):
            source = open_source(self.model, dataset, self.config, processing_class, data_collator)
        encoder = source.encoder if source is not None else None
        assert encoder is None or isinstance(encoder, Encoder)
        sample = Sample()
        if encoder is not None:
            sample = look_at(dataset, encoder, first_of_each_class(self.model, dataset))
        self._look_at_rows(dataset, encoder, sample)
        if source is None or self.collector is None:
            self.check = CheckFindings("not run", "fix the errors below first")
        elif not sample.good:
            self.check = CheckFindings("not run", "none of the rows looked at can be used")
        else:
            usable = (
                source if len(sample.good) == len(dataset) else replace(source, dataset=dataset.select(sample.good))
            )
            self._run(self.collector, usable, len(dataset))

    def _look_at_rows(self, dataset: Dataset, encoder: Encoder | None, sample: Sample) -> None:
        column = label_column(dataset, encoder)
        nulls = null_labels(dataset, column)
        for key, fault in list(sample.faults.items()):  # told once, of all rows
            if fault.column == column and set(fault.rows) <= set(nulls):
                del sample.faults[key]
        if nulls:
            where = f"column {column!r}, {named(nulls)}"
            self.problems.append(Problem("error", "The label is null", where, "Filter or fill such rows."))
        self.problems += sample.problems(len(dataset))
        self.groups = count_groups(self.model, dataset, self.config, nulls, self.problems)
        classes = find_classes(self.model, dataset, self.config)
        if classes is not None:
            self.problems += class_problems(self.model, classes, encoder, self.config)
        read, unread = _columns(dataset, encoder, column)
        self.rows = RowFindings(
            rows=len(dataset),
            looked_at=sample.looked_at,
            read=read,
            unread=unread,
            label_column=column,
            null_labels=len(nulls),
            unusable=sample.looked_at - len(sample.good) - len(sample.empty),
            empty=len(sample.empty),
            classes=classes,
            lengths=sample.token_lengths(encoder.max_length) if encoder is not None else None,
        )
        self.problems += _length_problems(self.rows, sample)

    def _run(self, collector: GradientCollector, source: RowSource, rows: int) -> None:
        if self.config.check_gradients:
            self.check = run_check(collector, source, self.problems)
            if self.check.verdict == "refused":
                return
        else:
            self.check = CheckFindings("not run", "check_gradients is off")
        memory = find_spaces(self.config, collector, rows, self.groups, 0)[0]
        if not memory.fits:  # told below; the clock would take it
            return
        clock = Clock(collector, self.config, source, self.groups)
        with collected(self.problems, "the forward pass, or the collator"):
            self.time = clock.measure(rows, self.problems)
        self.embedding = clock.width

    def report(self, rows: int | None) -> Diagnosis:
        """The diagnosis of a dataset of so many rows; None without one."""
        findings = find_model(self.model, self.collector)
        spaces: tuple[Space, ...] = ()
        if self.collector is not None:
            spaces = find_spaces(self.config, self.collector, rows, self.groups, self.embedding)
            self.problems += space_problems(spaces)
            self.problems += model_problems(findings, self.collector, self.config)
        return Diagnosis(findings, spaces, self.rows, self.check, self.time, by_severity(self.problems))


def _columns(dataset: Dataset, encoder: Encoder | None, label: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns that are read, and the others."""
    if encoder is None:
        return (), tuple(dataset.column_names)
    read = [
        name
        for name in encoder.example
        if encoder.columns is None or (name in encoder.columns and (name not in LABEL_COLUMNS or name == label))
    ]
    return tuple(read), tuple(name for name in dataset.column_names if name not in read)


def _length_problems(rows: RowFindings, sample: Sample) -> Iterator[Problem]:
    """Rows without tokens, and rows that are cut."""
    if rows.empty:
        first = ", ".join(map(str, sample.empty[:5]))
        every = not sample.good and not rows.unusable
        yield Problem(
            "error" if every else "warning",
            f"{rows.empty:,} of {rows.looked_at:,} rows have no tokens"
            + ("" if every else ": they are set aside, and never chosen"),
            f"row{'' if rows.empty == 1 else 's'} {first}" + (", ..." if rows.empty > 5 else ""),
            "Check the text column and the tokenizer." if every else "Nothing; or filter these rows.",
        )
    if rows.lengths is not None and rows.lengths.cut:
        share = rows.lengths.cut / max(1, rows.looked_at)
        yield Problem(
            "warning" if share > _MANY else "note",
            f"{percent(share)} of the rows are cut at {rows.lengths.max_length:,} tokens, and only the rest is scored",
            "max_length",
            "Raise max_length, up to the model's limit; or split such rows.",
        )


@contextmanager
def _in_the_report() -> Iterator[None]:
    """What sage_hf warns of is part of the report, and logged no second time."""
    logger = logging.getLogger("sage_hf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
