"""What was chosen of a stream: the kept rows' numbers and scores, and the stream of the kept rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import ClassLabel, Dataset, DatasetInfo, Features, IterableDataset, Value
from datasets.iterable_dataset import ExamplesIterable
from torch.utils.data import get_worker_info

from ..config import SageConfig
from ..data.classes import Classes
from ..data.stats import SelectionStats
from ..data.status import ROW_COLUMN, SCORE_COLUMN
from ..data.stream import to_disk
from ..errors import DatasetError
from ..hub.pictures import Seen
from ..utils.columns import places_by_code
from ..utils.deprecation import warn_old
from .base import SelectionBase


@dataclass(repr=False)
class StreamSelection(SelectionBase):
    """The rows of a stream that were kept; of the others, counts alone.

    K kept rows, G groups.

    Attributes:
        indices: [K] int64, the kept rows' numbers in the order of the stream, ascending.
        kept_scores: [K] float32, their agreement in [-1, 1].
        kept_groups: [K] int32 in [0, G).
        group_names: [G].
        set_aside: Row number to reason, of the first 1,000 rows without a score; `stats.set_aside` counts all.
        stats: As of a `Selection`.
        config: The settings.
        source: The stream; None where the selection was loaded.
        saved: The kept rows, where the selection was loaded.
    """

    indices: npt.NDArray[np.int64]
    kept_scores: npt.NDArray[np.float32]
    kept_groups: npt.NDArray[np.int32]
    group_names: list[str]
    set_aside: dict[int, str]
    stats: SelectionStats
    config: SageConfig
    source: IterableDataset | None = field(default=None, repr=False)
    saved: Dataset | None = field(default=None, repr=False)

    _kind, _arrays = "stream", ("indices", "kept_scores", "kept_groups")

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """`kept_scores` as they were called before 0.2.0, for one version."""
        warn_old("StreamSelection.scores", "StreamSelection.kept_scores")
        return self.kept_scores

    @property
    def groups(self) -> npt.NDArray[np.int32]:
        """`kept_groups` as they were called before 0.2.0, for one version."""
        warn_old("StreamSelection.groups", "StreamSelection.kept_groups")
        return self.kept_groups

    @property
    def dataset(self) -> IterableDataset:
        """The kept rows as a stream, with their scores in a column `sage_score`; it reads the source as it goes.

        Class labels that are text become numbers, as of a `Selection`.

        Raises:
            DatasetError: While it is read: the source has fewer rows than it had, or several workers of a DataLoader
                would each read a part of it.
        """
        if self.source is None:
            return self._saved().to_iterable_dataset()
        features, classes = self.source.features, self.stats.classes
        if features is not None:
            named = {classes["column"]: ClassLabel(names=classes["names"])} if classes else {}
            features = Features({**features, **named, ROW_COLUMN: Value("int64"), SCORE_COLUMN: Value("float32")})
        # The constructor, not from_generator: that one pickles the whole source to name a cache that it never uses.
        return IterableDataset(
            ExamplesIterable(_KeptRows(self.source.with_format(None), self.indices, self.kept_scores, classes), {}),
            info=DatasetInfo(features=features),
            split=self.source.split,
        )

    @classmethod
    def load_from_disk(cls, path: str | os.PathLike[str]) -> StreamSelection:
        """Reads what `save_to_disk` wrote; `dataset` then streams the rows of the folder.

        Raises:
            OutputError: The folder holds no selection from a stream.
        """
        folder = Path(path)
        fields, digests = cls._read(
            folder, "set_aside", lambda rows: {int(row): reason for row, reason in rows.items()}
        )
        return cls(**fields, saved=cls._read_rows(folder, len(fields["indices"]), digests))

    # ------------------------------------------------------------------ sharing
    def _saved(self) -> Dataset:
        assert self.saved is not None
        return self.saved

    def _write_signals(self, folder: Path) -> dict[str, str]:
        return {}  # a stream keeps nothing of the kind

    def _rows(self, folder: Path) -> Dataset:
        if self.source is None:
            return self._saved()
        rows, classes = to_disk(self.dataset, folder), self.stats.classes
        if classes and not isinstance(rows.features[classes["column"]], ClassLabel):  # nothing knew the features
            rows = rows.cast_column(classes["column"], ClassLabel(names=classes["names"]))
        return rows

    def seen(self) -> Seen:
        """What pictures show of it."""
        kept = [self.kept_scores[places] for places in places_by_code(self.kept_groups, len(self.group_names))]
        stats = self.stats
        return Seen(stats.group_by, stats.groups, kept, None, stats.spectrum, stats.squared_norm)


class _KeptRows:
    """Makes (key, row) of a source's kept rows; an object, so that workers of a DataLoader can be given it."""

    def __init__(
        self,
        source: IterableDataset,
        indices: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float32],
        classes: Classes | None,
    ) -> None:
        self.source, self.indices, self.scores = source, indices, scores
        self.column = classes["column"] if classes else None
        self.number_of = {name: number for number, name in enumerate(classes["names"])} if classes else {}

    def __call__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        worker = get_worker_info()
        if worker is not None and worker.num_workers > 1 and self.source.num_shards > 1:
            raise DatasetError(
                f"{worker.num_workers} workers would each read a part of the source, and rows are known by their "
                "numbers in the whole",
                where="num_workers",
                fix="Use one worker, or none; or save the selection and load it as a Dataset.",
            )
        place = count = 0
        for number, row in enumerate(self.source):
            if place == len(self.indices):
                return
            count = number + 1
            if number == self.indices[place]:
                if self.column is not None:
                    row = {**row, self.column: self.number_of.get(row[self.column], row[self.column])}
                yield number, {**row, ROW_COLUMN: row.get(ROW_COLUMN, number), SCORE_COLUMN: float(self.scores[place])}
                place += 1
        if place < len(self.indices):
            raise DatasetError(
                f"The stream has {count} rows now, and row {self.indices[place]} was chosen",
                where="dataset",
                fix="Give the stream that was selected from.",
            )
