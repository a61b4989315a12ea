"""Which labels of a dataset are likely wrong: a product of its own, by one forward pass and no gradients."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import ClassLabel, Dataset, Features, Value
from rich.table import Table
from rich.text import Text
from torch import nn

from ..config import SageConfig
from ..data.batches import CHECKED_ROWS, check_dataset
from ..data.columns import class_column, open_source
from ..data.encoding import Collator
from ..data.groups import Groups
from ..data.status import NO_TOKENS, ROW_COLUMN
from ..errors import LabelError
from ..gradients.model.state import unwrap
from ..hub.files import TABLE_WRITERS, check_table_file
from ..passes.consensus import keep_only, keep_rows
from ..passes.embeddings import EmbeddingReader
from ..passes.extractor import EmbeddingExtractor
from ..passes.job import PassSettings
from ..passes.run import Passes
from ..selection.gate import label_doubts
from ..selection.report import NOTHING_TOLD
from ..strategies.base import PartOf
from ..utils.files import whole_file
from ..utils.rng import isolated_rng
from ..utils.shown import ShortRepr

DOUBT_COLUMN, SUGGESTION_COLUMN = "sage_label_doubt", "sage_suggested_label"
# Characters of a row's text that the table shows.
_SHOWN = 60


@dataclass(frozen=True, repr=False)
class LabelIssues(ShortRepr):
    """How likely each label is wrong.

    Attributes:
        dataset: The N rows.
        column: Column of the labels.
        label_doubt: [N] in [0, 1]: p_other / (p_other + p_own), of the scoring model and of classifiers that have not
            seen the row; above 0.5 another class is likelier.
        suggested_label: [N] the likeliest other class, as the column holds it.
        rows: [S] row numbers of the label issues, the most doubted first: as many as the share says.
        wrong_share: Estimated share of wrong labels, in [0, 0.5]; 0 where the labels may as well be clean, None where
            nothing can be told, because classifiers know too little of the classes: then the list is empty, too.
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
        """The label issues, the most doubted first, with their row numbers, doubts and suggestions.

        Columns `sage_row`, `sage_label_doubt` and `sage_suggested_label` come before those of the dataset; a column
        `sage_row` that is there already stays, as of `Selection.dataset`.
        """
        source = self.dataset.with_format(None)
        columns = {
            ROW_COLUMN: source.select(self.rows)[ROW_COLUMN] if ROW_COLUMN in source.column_names else self.rows,
            DOUBT_COLUMN: self.label_doubt[self.rows],
            SUGGESTION_COLUMN: [self._name(self.suggested_label[row]) for row in self.rows],
        }
        rows = source.select(self.rows)
        rows = rows.remove_columns([name for name in columns if name in rows.column_names])
        if not len(self):  # added columns keep their rows when none is selected
            kinds = {ROW_COLUMN: "int64", DOUBT_COLUMN: "float64", SUGGESTION_COLUMN: "string"}
            features = Features({name: Value(kind) for name, kind in kinds.items()} | dict(rows.features))
            return Dataset.from_dict({name: [] for name in features}, features=features)
        rows = rows.flatten_indices()
        order = [*columns, *rows.column_names]
        for name, values in columns.items():
            rows = rows.add_column(name, values)
        return rows.select_columns(order)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the label issues to a file: .csv, .jsonl or .parquet.

        Raises:
            OutputError: The ending is another, or the file cannot be written.
        """
        place = check_table_file(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(place, "Free some space and start again.") as part:
            getattr(self.to_dataset(), TABLE_WRITERS[place.suffix])(str(part))
        return place

    def table(self, most: int = 20) -> Table:
        """The most doubted rows, as something `rich` prints."""
        share = len(self) / len(self.label_doubt)
        title = f"{len(self):,} of {len(self.label_doubt):,} labels are likely wrong ({share:.1%})"
        untold = f"Of wrong labels {NOTHING_TOLD}." if self.wrong_share is None else None
        table = Table(title=title, title_justify="left", caption=untold, caption_justify="left")
        for name, justify in (("row", "right"), ("doubt", "right"), ("label", "left"), ("rather", "left")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        texts = [name for name, value in self.dataset.features.items() if getattr(value, "dtype", "") == "string"]
        text = next((name for name in texts if name != self.column), None)
        if text is not None:
            table.add_column(text, no_wrap=True, overflow="ellipsis", max_width=_SHOWN)
        labels = self.dataset.with_format(None)[self.column]
        for row in self.rows[:most].tolist():
            names = (self._name(value) for value in (labels[row], self.suggested_label[row]))
            cells = [f"{row:,}", f"{self.label_doubt[row]:.3f}", *names]
            if text is not None:
                cells.append(" ".join(str(self.dataset.with_format(None)[text][row]).split())[: 2 * _SHOWN])
            table.add_row(*(Text(cell) for cell in cells))
        return table

    def _name(self, value: Any) -> str:
        feature = self.dataset.features[self.column]
        if isinstance(feature, ClassLabel) and isinstance(value, int) and 0 <= value < len(feature.names):
            return str(feature.int2str(value))
        return str(value)


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

    One forward pass, and ten logistic regressions on the model's embeddings and on the rows' inputs. How many labels
    are wrong is estimated from them, and the list ends there: of clean labels it is empty. A label that a class often
    has by mistake for one other is harder to find than one that is wrong by chance; a label of a class with fewer than
    10 rows is not doubted at all.

    Args:
        model: As for `SageSelector`, with a classification head; it comes back as it was given.
        dataset: Raw or prepared rows with class labels.
        processing_class: As for `SageSelector`.
        data_collator: As for `SageSelector`.
        config: How rows are encoded, the batch size and the seed.
        progress: Whether to show progress, on the main process.

    Raises:
        LabelError: The dataset has no column of class labels, or one with nulls.
        DatasetError: As for `SageSelector.fit`.
        ConfigError: The model shows no vector of a row.

    Example:
        >>> issues = find_label_issues(model, dataset, processing_class=tokenizer)
        >>> issues.to_dataset()                     # the most doubted first
    """
    config = config or SageConfig()
    column = class_column(check_dataset(dataset).features, model)
    if column is None:
        raise LabelError(
            f"The dataset has no column of class labels, only {dataset.column_names}",
            where="dataset",
            fix="Name the column label or labels; rows without classes have no wrong ones.",
        )
    values = list(dataset.with_format(None)[column])
    if nulls := [row for row, value in enumerate(values) if value is None]:
        raise LabelError(
            f"{len(nulls)} rows have no label, first {nulls[:5]}", where=f"column {column!r}", fix="Filter them out."
        )
    groups = Groups.from_values(column, values)
    classes = list(groups.code_of)
    model = unwrap(model)
    with isolated_rng(config.seed):
        source = open_source(model, dataset, config, processing_class, data_collator)
    device = next(model.parameters()).device
    reader = EmbeddingReader(model, device, source.sample(CHECKED_ROWS)[0], config.seed)
    passes = Passes(EmbeddingExtractor(reader), PassSettings(config.seed, progress, config.num_workers))
    kept, _, piece = keep_rows(passes, source, torch.zeros(0, 0), keep_only("reading embeddings"))
    embeddings, inputs, own = kept.embeddings, kept.inputs, kept.numbers("doubt")
    assert embeddings is not None and inputs is not None and own is not None
    # Of a row without tokens nothing can be told.
    rows, doubts = np.flatnonzero(piece.status != NO_TOKENS), np.zeros(len(dataset))
    views = [PartOf(embeddings, rows), PartOf(inputs, rows)]
    found = label_doubts(views, groups.codes[rows], own[rows], config.seed)
    others = groups.codes.astype(np.int64)
    others[rows] = np.unique(groups.codes[rows])[found.folds.others]
    doubts[rows] = found.doubts
    wrong = rows[found.wrong]
    wrong = wrong[np.argsort(-doubts[wrong], kind="stable")]
    return LabelIssues(dataset, column, doubts, [classes[code] for code in others], wrong, found.share)
