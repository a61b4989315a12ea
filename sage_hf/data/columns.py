"""What a model and a dataset are to each other: which columns feed the forward, and which one groups the rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from datasets import ClassLabel, Dataset, Features, IterableDataset, Value
from datasets.features.features import require_decoding
from torch import nn

from ..config import CLUSTERS, SageConfig
from ..errors import GroupError, LabelError
from ..gradients.model.state import num_weights, unwrap
from ..utils.columns import blocks
from ..utils.notices import warn_once
from .batches import Batcher, RowSource, sampled, with_texts
from .classes import Classes, class_ids, names_of, tells_classes_apart, text_classes
from .encoding import LABEL_COLUMNS, Collator, Encoder, Row
from .encoding.images import IMAGE_COLUMNS, brightest
from .encoding.model import ModelFacts
from .groups import Groups, say_if_many
from .stream import StreamSource, first_row

logger = logging.getLogger(__name__)


def open_source(
    model: nn.Module, dataset: Dataset, config: SageConfig, processing_class: Any, data_collator: Collator | None
) -> RowSource:
    """The dataset as batches for the model.

    Raises:
        DatasetError: No way is known from its columns to the forward's arguments.
        LabelError: It has no labels.
    """
    encoder = _encoder(model, sampled(dataset), dataset.features, config, processing_class, data_collator)
    batch_size = config.batch_size_for(num_weights(model))
    return RowSource(dataset, encoder, batch_size, config.shard_size, config.seed, encoder.columns)


def open_stream(
    model: nn.Module,
    stream: IterableDataset,
    config: SageConfig,
    processing_class: Any,
    data_collator: Collator | None,
) -> StreamSource:
    """A stream as batches for the model, and the column to group by; as `open_source` and `find_groups`.

    Raises:
        DatasetError: It has no rows, or no way is known from its columns to the forward's arguments.
        LabelError: It has no labels.
        GroupError: It has no such column.
    """
    features = stream.features
    example = first_row(stream if features is None or not require_decoding(features) else stream.decode(False))
    encoder = _encoder(model, [with_texts(example, features)], features, config, processing_class, data_collator)
    if features is None:  # after a map, nobody knows until rows come
        features = Features(
            {
                name: Value("string" if isinstance(value, str) else "int64")
                for name, value in example.items()
                if isinstance(value, (bool, int, str))
            }
        )
    column = class_column(features, model) if config.group_by == "auto" else config.group_by
    if column is not None:
        _check_column(column, list(example))
    names = names_of(features.get(column))
    batch_size = config.batch_size_for(num_weights(model))
    source = StreamSource(stream, encoder, batch_size, config.shard_size, column, names, config.seed, example)
    source.features, source.columns = features, encoder.columns
    return source


def _encoder(
    model: nn.Module,
    sample: list[Row],
    features: Features | None,
    config: SageConfig,
    processing_class: Any,
    data_collator: Collator | None,
) -> Encoder:
    """The encoder for a model of the dataset that a sample of rows, the first one first, is of."""
    model = unwrap(model)
    example = sample[0]
    image = next((name for name in IMAGE_COLUMNS if name in example), None)
    encoder = Encoder(
        example=example,
        model=ModelFacts.of(model),
        processing_class=processing_class,
        data_collator=data_collator,
        text_columns=config.text_columns,
        max_length=config.max_length,
        image_top=brightest(row[image] for row in sample) if image is not None else None,
    )
    labels = [name for name in LABEL_COLUMNS if name in example][:1]
    if not encoder.causal_lm:
        encoder.map_classes(class_ids(model, features, labels, as_they_are=encoder.hands_rows_on))
    return encoder


class StoredValues(Collection[Any]):
    """The values of a column as they are stored, read a block of rows at a time and each time anew.

    Args:
        dataset: The dataset.
        column: Its column.
    """

    def __init__(self, dataset: Dataset, column: str) -> None:
        self._stored, self._column = dataset.select_columns(column).with_format("arrow"), column

    def __len__(self) -> int:
        """N."""
        return len(self._stored)

    def __iter__(self) -> Iterator[Any]:
        """The values, as Python's own."""
        for block in blocks(len(self)):
            yield from self._stored[block][self._column].to_pylist()

    def __contains__(self, value: object) -> bool:
        """Whether a row has the value."""
        return any(value == other for other in self)


def find_groups(model: nn.Module, dataset: Dataset, group_by: str | None) -> Groups:
    """The groups of the rows: by a column, by the class label ("auto"), or all in one (None).

    Raises:
        GroupError: The column is missing, has nulls, or is no scalar.
        LabelError: Rows have no class label.
    """
    column = class_column(dataset.features, model) if group_by == "auto" else group_by
    if column == CLUSTERS and CLUSTERS in dataset.column_names:
        raise GroupError(
            'group_by="cluster" finds groups in the sketch, and the dataset has a column of this name',
            where="group_by",
            fix="Rename the column to group by it, or remove it to have clusters found.",
        )
    if column is None or column == CLUSTERS:
        if group_by == "auto":
            _say_if_floats(model, dataset.features)
        return Groups.single(len(dataset))
    _check_column(column, dataset.column_names)
    values = StoredValues(dataset, column)
    if group_by == "auto" and (nulls := [row for row, value in enumerate(values) if value is None]):
        raise LabelError(
            f"{len(nulls):,} rows have no label, first in rows {nulls[:5]}",
            where=f"column {column!r}",
            fix="Fill or filter these rows.",
        )
    groups = Groups.from_values(column, values, names_of(dataset.features.get(column)))
    say_if_many(logger, model, column, groups.count, len(values))
    return groups


def _say_if_floats(model: nn.Module, features: Features) -> None:
    """Says that rows are in one group where their classes are numbers with a fraction, as pandas makes of gaps."""
    name = next((name for name in LABEL_COLUMNS if name in features), None)
    config = getattr(unwrap(model), "config", None)
    is_single = getattr(config, "problem_type", None) in (None, "single_label_classification")
    if tells_classes_apart(model) and is_single and "float" in getattr(features.get(name), "dtype", ""):
        warn_once(
            logger,
            model,
            f"Column {name!r} holds floats, so rows are not grouped by class. If they are classes, make them whole "
            f"numbers: dataset.cast_column({name!r}, Value('int64')).",
        )


def find_labels(model: nn.Module, dataset: Dataset, groups: Groups) -> Groups | None:
    """The classes of all rows, whatever rows are grouped by; None where the task has none.

    The groups themselves, where rows are grouped by class.
    """
    column = class_column(dataset.features, model)
    if column is None:
        return None
    if column == groups.column:
        return groups
    values = StoredValues(dataset, column)
    if any(value is None for value in values):
        return None
    return Groups.from_values(column, values, names_of(dataset.features[column]))


def find_text_classes(
    model: nn.Module, features: Features | None, encoder: Batcher | None, values_of: Callable[[str], Iterable[Any]]
) -> Classes | None:
    """The classes of labels that are text, for the kept rows; None where they are no text, or a collator reads them.

    Args:
        model: Gives the numbers.
        features: Features of the dataset.
        encoder: Has read the rows; it refuses texts that the model does not know.
        values_of: Gives the values of a column, as far as they are known.
    """
    column = class_column(features, model) if features is not None else None
    if column is None or getattr(encoder, "hands_rows_on", True):
        return None
    return text_classes(model, column, features, values_of(column))


def _check_column(column: str, columns: list[str]) -> None:
    if column not in columns:
        raise GroupError(
            f"The dataset has no column {column!r}, only {columns}",
            where="group_by",
            fix='Name a column that it has, or use "auto" or None.',
        )


def class_column(features: Features, model: nn.Module) -> str | None:
    """The column of a class a row that the model's loss is over: names, text or whole numbers; None where none is."""
    if not tells_classes_apart(model):
        return None
    name = next((name for name in LABEL_COLUMNS if name in features), None)
    feature = features.get(name)
    is_class = isinstance(feature, Value) and feature.dtype.startswith(
        ("int", "uint", "string", "large_string", "bool")
    )
    return name if is_class or isinstance(feature, ClassLabel) else None
