"""Which labels of a dataset are likely wrong: a product of its own, by one forward pass and no gradients."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from rich.table import Table
from rich.text import Text
from torch import nn

from ..config import SageConfig
from ..data.batches import check_dataset
from ..data.classes import names_of
from ..data.columns import class_column, open_source
from ..data.encoding import Collator
from ..data.groups import Groups, name_of
from ..data.status import ROW_COLUMN, SCORED
from ..errors import LabelError, printable
from ..gradients.model.state import unwrap
from ..hub.files import check_table_file
from ..hub.tables import write_table
from ..passes.check import check_embeddings, reader_of, sample_of
from ..passes.consensus import keep_only, keep_rows
from ..passes.extractor import EmbeddingExtractor
from ..passes.job import PassSettings
from ..passes.run import Passes
from ..selection.gate import label_doubts
from ..selection.report import NOTHING_TOLD
from ..strategies.base import PartOf
from ..utils.bars import planned, stage
from ..utils.given import given_config
from ..utils.interruption import told_if_interrupted
from ..utils.rng import isolated_rng
from ..utils.shown import ShortRepr
from .argilla import argilla_records
from .issue_list import (
    ACTION_COLUMN,
    DOUBT_COLUMN,
    LABEL_COLUMN,
    SUGGESTION_COLUMN,
    IssueList,
    content_columns,
    guarded,
    issue_list,
    own_numbers,
)
from .stages import PREPARING

ISSUE_STAGES = (PREPARING, "reading embeddings", "doubting labels")
# Characters of a row's text that the table shows.
_SHOWN = 60


@dataclass(frozen=True, repr=False)
class LabelIssues(ShortRepr):
    """How likely each label is wrong.

    Attributes:
        dataset: The N rows.
        column: Column of the labels.
        label_doubt: [N] in [0, 1]: p_other / (p_other + p_own), by the scoring model and by classifiers that have not
            seen the row; above 0.5, another class is likelier.
        suggested_label: [N] the likeliest other class, as the column holds it.
        rows: [S] row numbers of the label issues, the most doubted first: as many as the share says.
        wrong_share: Estimated share of wrong labels, in [0, 0.5]; 0 where the labels may well be clean; None where it
            cannot be estimated, because classifiers find too little about the classes: then the list is empty, too.
    """

    dataset: Dataset
    column: str
    label_doubt: npt.NDArray[np.float64]
    suggested_label: list[Any]
    rows: npt.NDArray[np.int64]
    wrong_share: float | None

    def __len__(self) -> int:
        """S."""
        return len(self.rows)

    def to_dataset(self) -> Dataset:
        """The label issues as a list to read and edit, the most doubted first.

        The first columns are `sage_row` (the row's number in the source; for a dataset that already has such a column,
        as an earlier selection has, its values), `sage_label_doubt`, `sage_label` and `sage_suggested_label` (names of
        classes), and `sage_action`, empty, for a person to fill in: `apply_label_issues` reads it. The columns of the
        dataset follow. Images and sounds are given by their paths; bytes and lists of numbers are left out, see
        `left_out`.
        """
        return self._list(self.rows).rows

    @property
    def left_out(self) -> dict[str, str]:
        """For each column that is missing from the list: why it is, or for how many rows."""
        return self._list(self.rows).left_out

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the list to a file: .csv, .jsonl or .parquet; what is nested is JSON in a csv.

        In a csv, text that a spreadsheet would take for a formula begins with an apostrophe.

        Raises:
            OutputError: The ending is another, or the file cannot be written.
        """
        place = check_table_file(path)
        rows = self.to_dataset()
        write_table(guarded(rows) if place.suffix == ".csv" else rows, place)
        return place

    def to_argilla(self, question: str | None = None) -> list[Any]:
        """The label issues as Argilla records, to be checked there: the suggested label is a suggestion.

        Fields are the text of the list, images and paths, by the names of their columns; the row number, the doubt and
        the given label are metadata. `sage_row` is the record's id, too.

        Args:
            question: Name of the label question in the settings of the Argilla dataset; the label's column by default.

        Returns:
            [S] `argilla.Record`, for `dataset.records.log`.

        Raises:
            ConfigError: Argilla is not installed.
        """
        found = self._list(self.rows)
        fields = content_columns(found.rows, self.column)
        return argilla_records(found.rows, self.dataset.select(self.rows), fields, question or self.column)

    def table(self, most: int = 20) -> Table:
        """The most doubted rows, as something `rich` prints."""
        share = len(self) / len(self.label_doubt)
        title = f"{len(self):,} of {len(self.label_doubt):,} labels are likely wrong ({share:.1%})"
        untold = f"The share of wrong labels is not known: {NOTHING_TOLD}." if self.wrong_share is None else None
        table = Table(title=title, title_justify="left", caption=untold, caption_justify="left")
        for name, justify in (("row", "right"), ("doubt", "right"), ("label", "left"), ("suggested", "left")):
            table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        rows = self._list(self.rows[:most]).rows
        content = next(iter(content_columns(rows, self.column)), None)
        if content is not None:
            # The column that gives way on a narrow screen.
            table.add_column(Text(printable(content)), max_width=_SHOWN)
        for row in rows:
            cells = [f"{row[ROW_COLUMN]:,}", f"{row[DOUBT_COLUMN]:.3f}", row[LABEL_COLUMN], row[SUGGESTION_COLUMN]]
            if content is not None:
                cells.append(" ".join(str(row[content]).split())[: 2 * _SHOWN])
            table.add_row(*(Text(printable(cell), no_wrap=True, overflow="ellipsis") for cell in cells))
        return table

    def _list(self, rows: npt.NDArray[np.int64]) -> IssueList:
        found = self.dataset.with_format(None).select(rows)
        names = names_of(self.dataset.features[self.column])
        told = {
            ROW_COLUMN: rows if (numbers := own_numbers(found)) is None else numbers,
            DOUBT_COLUMN: self.label_doubt[rows],
            LABEL_COLUMN: [name_of(value, names) for value in found[self.column]],
            SUGGESTION_COLUMN: [name_of(self.suggested_label[row], names) for row in rows],
            ACTION_COLUMN: [""] * len(rows),
        }
        return issue_list(found, told)


def find_label_issues(
    model: nn.Module,
    dataset: Dataset,
    *,
    processing_class: Any = None,
    data_collator: Collator | None = None,
    config: SageConfig | None = None,
    progress: bool = True,
) -> LabelIssues:
    """Which labels are likely wrong, by a model that was trained on them for a little.

    One forward pass, and ten logistic regressions (of 256 classes and more, linear discriminants) on the model's
    embeddings and on the rows' inputs. How many labels are wrong is estimated from them, and the list ends there: of
    clean labels it is empty. A label that a class often has by mistake for one other is harder to find than one that
    is wrong by chance; a label of a class with fewer than 10 rows is not doubted at all, nor is one of a row of which
    the model makes NaN.

    Args:
        model: As for `SageSelector`, with a classification head; it comes back as it was given.
        dataset: Raw or prepared rows with class labels.
        processing_class: As for `SageSelector`.
        data_collator: As for `SageSelector`.
        config: How rows are encoded, the batch size and the seed.
        progress: Whether to show progress, on the main process.

    Raises:
        LabelError: The dataset has no column of class labels, or one with nulls, or the model makes NaN of all rows.
        DatasetError: As for `SageSelector.fit`.
        ConfigError: The model shows no vector of a row.

    Example:
        >>> issues = find_label_issues(model, dataset, processing_class=tokenizer)
        >>> issues.to_dataset()                     # the most doubted first
    """
    with planned(ISSUE_STAGES, shown=progress), told_if_interrupted(lambda: "Nothing of it is kept; it starts anew."):
        return _find(model, dataset, processing_class, data_collator, given_config(config), progress)


def _find(
    model: nn.Module,
    dataset: Dataset,
    processing_class: Any,
    data_collator: Collator | None,
    config: SageConfig,
    progress: bool,
) -> LabelIssues:
    column = class_column(check_dataset(dataset).features, model)
    if column is None:
        raise LabelError(
            f"The dataset has no column of class labels, only {dataset.column_names}",
            where="dataset",
            fix="Name the column label or labels; rows without classes have no label issues.",
        )
    own_numbers(dataset)  # which the list will name rows by
    values = list(dataset.with_format(None)[column])
    if nulls := [row for row, value in enumerate(values) if value is None]:
        raise LabelError(
            f"{len(nulls)} rows have no label, first {nulls[:5]}", where=f"column {column!r}", fix="Filter them out."
        )
    groups = Groups.from_values(column, values)
    classes = list(groups.code_of)
    model = unwrap(model)
    with stage(PREPARING, shown=progress):
        with isolated_rng(config.seed):
            source = open_source(model, dataset, config, processing_class, data_collator)
        device = next(model.parameters()).device
        sample = sample_of(source)
        reader = reader_of(model, device, sample, config.seed)
        check_embeddings(reader, source, sample)
    passes = Passes(EmbeddingExtractor(reader), PassSettings(config.seed, progress, config.num_workers))
    kept, _, piece = keep_rows(passes, source, torch.zeros(0, 0), keep_only(ISSUE_STAGES[1]))
    embeddings, inputs, own = kept.embeddings, kept.inputs, kept.numbers("doubt")
    assert embeddings is not None and inputs is not None and own is not None
    # Of a row without tokens, or of which a model makes NaN, nothing can be told.
    rows, doubts = np.flatnonzero(piece.status == SCORED), np.zeros(len(dataset))
    if not len(rows):
        raise LabelError(
            "Of no row the model gives a finite embedding",
            where="model",
            fix="Check the model's weights (is one of them NaN?), and that rows have tokens.",
        )
    views = [PartOf(embeddings, rows), PartOf(inputs, rows)]
    with stage(ISSUE_STAGES[2], unit="parts", shown=progress):
        found = label_doubts(views, groups.codes[rows], own[rows], config.seed)
    others = groups.codes.astype(np.int64)
    others[rows] = np.unique(groups.codes[rows])[found.folds.others]
    doubts[rows] = found.doubts
    wrong = rows[found.wrong]
    wrong = wrong[np.argsort(-doubts[wrong], kind="stable")]
    return LabelIssues(dataset, column, doubts, [classes[code] for code in others], wrong, found.share)
