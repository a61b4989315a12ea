"""Rows as a training sees them: through the dataset and the collator of its own dataloader."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from datasets.fingerprint import Hasher
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.data import DataLoader, IterableDataset

from ..config import SageConfig
from ..data.batches import CHECKED_ROWS, BatchSource, Numbered, RowSource, check_dataset
from ..data.classes import class_ids, is_text
from ..data.encoding import LABEL_COLUMNS, Row
from ..data.groups import Groups
from ..errors import ConfigError, DatasetError
from ..gradients.losses.per_example import LossFunction
from ..passes.memory import plan_consensus
from ..selector.selector import SageSelector
from ..selector.stages import PREPARING
from ..strategies.quotas import resolve_budget
from ..utils.bars import stage
from ..utils.rng import isolated_rng

# Options of training arguments that join rows to one sequence.
_PACKING_OPTIONS = ("packing", "padding_free")
# Bytes of batches that are kept for the next refresh.
_KEPT_BYTES = 2**28


@dataclass
class TrainingBatcher:
    """Rows to batches by the collator alone, which is all that stands between them in a training.

    Attributes:
        collator: The dataloader's.
        is_tokens: Whether rows hold token ids.
    """

    collator: Callable[[list[Row]], Mapping[str, Any]]
    is_tokens: bool

    def encode(self, rows: list[Row], first: int = 0) -> list[Row]:
        """The rows."""
        return rows

    def length(self, feature: Row) -> int | None:
        """Tokens of a row."""
        ids = feature.get("input_ids")
        return None if ids is None else len(ids)

    def collate(self, features: list[Row]) -> dict[str, Any]:
        """A batch."""
        return dict(self.collator(features))


class TrainingRows(RowSource):
    """Reads rows as a dataloader does, in the dataset's own format, and keeps batches for the next refresh.

    What is drawn for a row is the same each time, so that kept batches are those that would be made again.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._kept: dict[tuple[range, int], list[Numbered]] = {}
        self._bytes = 0
        self._state: str | None = None

    def make(self, unit: range) -> Iterator[Numbered]:
        """See `BatchSource`."""
        key = (unit, self.batch_size)
        if key not in self._kept:
            made = list(super().make(unit))
            leaves = [leaf for _, batch in made for leaf in tree_leaves(batch)]
            size = sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))
            is_plain = all(isinstance(leaf, (Tensor, str, int, float, type(None))) for leaf in leaves)
            if self._state is None or not is_plain or self._bytes + size > _KEPT_BYTES:
                return iter(made)
            self._kept[key], self._bytes = made, self._bytes + size
        # Copies of tensors, because a model may write into what it is given.
        return ((rows, tree_map_only(Tensor, Tensor.clone, batch)) for rows, batch in self._kept[key])

    def forget_unless(self, state: str | None) -> None:
        """Drops the batches, unless what makes them is as it was; None is never as it was."""
        if state is None or state != self._state:
            self._kept.clear()
            self._bytes = 0
        self._state = state

    def _features(self, rows: range) -> list[Row]:
        return self.dataset.__getitems__(list(rows))


class TrainingSelector(SageSelector):
    """Scores what a training trains on: its dataloader gives the rows and the collator.

    Made once a training: rows in batches, groups and the collector are the same at every refresh, and the check
    against autograd is made once.

    Args:
        model: The model in training.
        dataloader: Over all rows, in any order.
        dataset: The same rows with all their columns.
        loss_function: As for `SageSelector`.
        config: As for `SageSelector`.
        progress: As for `SageSelector`.
    """

    def __init__(
        self,
        model: nn.Module,
        dataloader: DataLoader,
        dataset: Dataset,
        *,
        loss_function: LossFunction | None,
        config: SageConfig,
        progress: bool,
    ) -> None:
        super().__init__(model, loss_function=loss_function, config=config, progress=progress)
        missing = [name for name in ("dataset", "collate_fn") if getattr(dataloader, name, None) is None]
        if missing:
            raise DatasetError(
                f"Rows are scored through the training dataloader's {' and '.join(missing)}, which the "
                f"{type(dataloader).__name__} does not have",
                where="get_train_dataloader",
                fix="Return a torch DataLoader over train_dataset with a collate_fn, or choose rows before: "
                "SageSelector(...).select(dataset).dataset.",
            )
        self._dataset = dataset
        self._source: TrainingRows | None = None
        self._known_groups: Groups | None = None
        self._is_checked = False
        self._rows: Any = dataloader.dataset
        self._collator: Any = dataloader.collate_fn

    def check(self) -> None:
        """What can go wrong before the first step rather than in the middle: a few rows are scored and compared.

        Raises:
            SageError: As for `SageSelector.fit`.
        """
        if not isinstance(self._rows, Dataset):
            raise DatasetError(
                f"The training dataloader reads from a {type(self._rows).__name__}, not from the dataset",
                where="get_train_dataloader",
                fix="Leave the dataset as it is, and change rows with dataset.map or with_transform.",
            )
        dataset = check_dataset(self._dataset)
        resolve_budget(len(dataset), self.config.fraction, self.config.num_examples)
        with stage(PREPARING, shown=self._progress):
            self._check_rows(dataset)

    def _about_interruption(self) -> str:
        """Nothing: the Trainer knows how a training goes on."""
        return ""

    def _check_rows(self, dataset: Dataset) -> None:
        source = self._open(dataset)
        groups = self._groups(dataset)
        class_ids(self.collector.model, dataset.features, LABEL_COLUMNS, as_they_are=True)  # may have a word to say
        plan_consensus(self.config, self.collector.width, self.collector.device, len(source.shards()), groups.count)
        with isolated_rng(self.config.seed):
            source.sample(CHECKED_ROWS)  # the collator gives rows, and does not pack them
        self._check_gradients(source)

    def _open_source(self, dataset: Dataset) -> RowSource:
        is_own = dataset is self._dataset
        if is_own and self._source is not None:
            self._source.forget_unless(self._state())
            return self._source
        columns = self._rows.column_names
        rows = self._rows if is_own else _with_columns(dataset, columns)
        batcher = TrainingBatcher(self._collator, is_tokens="input_ids" in columns)
        source = TrainingRows(rows, batcher, int(self.config.batch_size), self.config.shard_size)
        if is_own:
            self._source = source
            source.forget_unless(self._state())
        return source

    def _state(self) -> str | None:
        """A hash of what makes batches; None where nobody can tell whether it is still the same."""
        try:
            return str(Hasher.hash((self._collator, self._rows.format, self._rows._fingerprint)))
        except Exception:  # of a user's object that has no pickle
            return None

    def score_by(self, loss_function: LossFunction | None) -> None:
        """Takes another loss function from now on."""
        self.collector.loss_function = self._outside[2] = loss_function

    def _groups(self, dataset: Dataset) -> Groups:
        if dataset is not self._dataset:
            return super()._groups(dataset)
        if self._known_groups is None:
            self._known_groups = super()._groups(dataset)
        return self._known_groups

    def _check_gradients(self, source: BatchSource) -> None:
        if not self._is_checked:
            super()._check_gradients(source)
        self._is_checked = True


def _with_columns(dataset: Dataset, columns: list[str]) -> Dataset:
    """Other rows, such as a target's, as the dataloader reads its own: with the columns that it has."""
    if lacking := sorted(set(columns) - set(dataset.column_names)):
        raise DatasetError(
            f"The rows have no columns {lacking}, which the training reads",
            where="dataset",
            fix="Prepare them as the training's rows are prepared.",
        )
    return dataset.select_columns(columns)


def check_trainable(dataset: Any, args: Any, sequence_parallel: int) -> None:
    """Refuses rows and options in which no row has a gradient of its own, before anything is computed.

    Args:
        dataset: What is trained on.
        args: The training's settings.
        sequence_parallel: Processes that a row is split between.

    Raises:
        DatasetError: The rows cannot be counted.
        ConfigError: An option joins rows, or splits them.
    """
    if isinstance(dataset, IterableDataset):
        raise DatasetError(
            "A stream has no length and no row numbers, which a schedule over a subset needs",
            where="train_dataset",
            fix="Choose from the stream before training (SageSelector(...).select(stream).dataset is a stream of the "
            "kept rows), or write it to a Dataset first (Dataset.from_generator), or train without sage_fraction.",
        )
    check_dataset(dataset)
    if sequence_parallel > 1:
        raise ConfigError(
            "Sequence parallelism splits every row between processes",
            where="parallelism_config",
            fix="Choose rows before: SageSelector(...).select(dataset).dataset.",
        )
    if packed := [name for name in _PACKING_OPTIONS if getattr(args, name, False)]:
        raise ConfigError(
            f"{' and '.join(packed)} joins rows to one sequence, in which no row has a gradient of its own",
            where=", ".join(packed),
            fix=f"Set {' and '.join(f'{name}=False' for name in packed)}, or choose rows before packing: "
            "SageSelector(...).select(dataset).dataset.",
        )


def check_encoded(dataset: Dataset, taken: Collection[str]) -> None:
    """Refuses raw rows, which Trainer does not encode: it would drop all that the model reads.

    Args:
        dataset: What is trained on.
        taken: Columns that the model's forward takes, and those of labels.

    Raises:
        DatasetError: Of the dataset's columns the model takes at most the labels.
    """
    labels = {*LABEL_COLUMNS}
    if not isinstance(dataset, Dataset) or ({*dataset.column_names} & {*taken}) - labels:
        return
    raw = [name for name in dataset.column_names if name not in labels]
    text = next((name for name in raw if is_text(dataset.features[name])), None)
    fix = "Encode the rows first, as for Trainer: train_dataset.map(...)."
    if text is not None:
        way = f"lambda rows: tokenizer(rows[{text!r}], truncation=True)"
        fix = f"Tokenise first: train_dataset.map({way}, batched=True)."
    raise DatasetError(
        f"The model takes none of the columns {raw}" if raw else "The rows have labels and nothing else",
        where="train_dataset",
        fix=f"{fix} Or pass remove_unused_columns=False and a data_collator that reads them.",
    )
