"""What was chosen, and why: the result of a selection, in memory and on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset

from ..config import SageConfig
from ..data.batches import check_dataset
from ..data.classes import with_class_names
from ..data.groups import Groups
from ..data.stats import GroupStats, SelectionStats
from ..data.status import REASONS, ROW_COLUMN, SCORE_COLUMN, SCORED
from ..errors import DatasetError, OutputError
from ..hub.pictures import Seen
from ..hub.provenance import describe_dataset
from ..hub.push import fetch
from ..strategies.quotas import resolve_budget
from ..utils.bars import is_wanted, stage
from ..utils.columns import places_by_code
from ..utils.fingerprint import dataset_digest
from ..utils.typed import fits
from .base import SelectionBase
from .choice import choose_rows, lost_groups
from .outcomes import Choice, RowVerdicts, outcomes_of
from .resolve import resolve
from .signal_files import read_signals, write_signals
from .signals import RowSignals

# Fields of `RowVerdicts`, as they are saved.
_VERDICTS = tuple(each.name for each in fields(RowVerdicts))


@dataclass(repr=False)
class Selection(SelectionBase):
    """The rows that were kept, with every row's score.

    N rows of the source, K kept, G groups.

    Attributes:
        indices: [K] int64, the kept row numbers of the source, ascending.
        scores: [N] float32, agreement in [-1, 1]: 1 pulls the weights as its group does, 0 is unrelated, negative
            pulls against it. NaN where the row was set aside.
        losses: [N] float32, each row's own loss before training; NaN where the row was set aside.
        groups: [N] int32 in [0, G).
        group_names: [G].
        status: [N] uint8: 0 scored, 1 not finite, 2 gradient exactly zero, 3 no tokens.
        stats: What the run measured: rows, energy captured, error bound, seconds, per-group table, ...
        config: The settings.
        source_fingerprint: The source dataset's fingerprint.
        source: The source dataset, if at hand.
        verdicts: What the gate found of every row; None where there was no gate.
        label_names: The class of each number in `suggested_labels`; None where rows have no classes.
        signals: What the passes kept of every row, in a file; None where nothing was kept. `choose` needs it for
            strategies that compare rows. Set it to None to let go of the file.
    """

    indices: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    losses: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int32]
    group_names: list[str]
    status: npt.NDArray[np.uint8]
    stats: SelectionStats
    config: SageConfig
    source_fingerprint: str
    source: Dataset | None = field(default=None, repr=False)
    verdicts: RowVerdicts | None = field(default=None, repr=False)
    label_names: list[str] | None = field(default=None, repr=False)
    signals: RowSignals | None = field(default=None, repr=False)

    _kind, _fields = "dataset", ("source_fingerprint",)
    _arrays = ("indices", "scores", "losses", "groups", "status")

    @classmethod
    def of(
        cls,
        config: SageConfig,
        signals: RowSignals,
        dataset: Dataset,
        choice: Choice,
        say: bool = True,
    ) -> Selection:
        """The selection of a choice.

        Args:
            config: Settings of the choice.
            signals: What is known of the rows, with the statistics of the passes.
            dataset: The source.
            choice: What `choose_rows` returned.
            say: Whether to log a warning of groups that lose every row: one process does.
        """
        assert signals.stats is not None
        indices, gate = choice.indices, choice.gate
        usable, scores = signals.usable, signals.scores
        table = group_table(signals.groups, signals.status, scores, indices)
        stats = SelectionStats(
            **vars(signals.stats),
            strategy=config.strategy,
            rows=len(usable),
            kept=len(indices),
            set_aside=int((~usable).sum()),
            groups=table,
            lost_groups=lost_groups(table, config, say),
            mean_score=float(_at(scores, usable).mean(dtype=np.float64)),
            mean_score_kept=float(scores[indices].mean(dtype=np.float64)),
            mean_loss=float(_at(signals.losses, usable).mean(dtype=np.float64)),
            gate=gate,
        )
        return cls(
            indices=indices,
            scores=scores,
            losses=signals.losses,
            groups=signals.groups.codes.astype(np.int32),
            group_names=signals.groups.names,
            status=signals.status,
            stats=stats,
            config=config,
            source_fingerprint=dataset._fingerprint,
            source=dataset,
            verdicts=choice.verdicts,
            label_names=signals.label_names,
            signals=signals if signals.records is not None else None,
        )

    @property
    def kept_scores(self) -> npt.NDArray[np.float32]:
        """[K] agreement of the kept rows."""
        return self.scores[self.indices]

    @property
    def kept_groups(self) -> npt.NDArray[np.int32]:
        """[K] groups of the kept rows."""
        return self.groups[self.indices]

    @property
    def outcomes(self) -> npt.NDArray[np.uint8]:
        """[N] what became of every row, by its number in `sage_hf.data.status.OUTCOMES`."""
        return outcomes_of(self.status, Choice(self.indices, self.stats.gate, self.verdicts))

    @property
    def label_doubts(self) -> npt.NDArray[np.float32] | None:
        """[N] in [0, 1], how likely a label is wrong: above 0.5 another class is likelier; NaN where nobody judged it.

        Of rows without classes, how likely a row is of the kind that is harder to learn. None where there was no gate.
        """
        return None if self.verdicts is None else self.verdicts.doubts

    @property
    def suggested_labels(self) -> npt.NDArray[np.int32] | None:
        """[N] the likeliest other class of every row, a number in `label_names`; -1 where none is known."""
        return None if self.verdicts is None else self.verdicts.suggested

    @cached_property
    def dataset(self) -> Dataset:
        """The kept rows in the source's order, with their scores in a column `sage_score`.

        A column `sage_row` has their row numbers in the source; of a source that has such a column, as what was
        selected before, it stays, and tells where the rows came from at first.

        Class labels that are text become numbers with the names of all classes (`ClassLabel`), also of those that lost
        every row, in the order of the model's numbers, so that a Trainer can train on them. They stay text where a
        collator or a transform of the user's reads them.

        Raises:
            DatasetError: The selection was loaded without its source.
        """
        if self.source is None:
            raise DatasetError(
                "The selection was loaded without the rows it was made from",
                where="Selection.load_from_disk",
                fix="Pass the source: Selection.load_from_disk(path, source=dataset).",
            )
        source = self.source
        if SCORE_COLUMN in source.column_names:
            source = source.remove_columns(SCORE_COLUMN)
        source = with_class_names(source, self.stats.classes)
        # Before the rows are chosen: adding a column afterwards rewrites the table.
        if ROW_COLUMN not in source.column_names:
            source = source.add_column(ROW_COLUMN, np.arange(len(source)))
        return source.add_column(SCORE_COLUMN, self.scores).select(self.indices)

    @property
    def set_aside(self) -> dict[int, str]:
        """Row number to reason of every row that has no score."""
        return {int(row): REASONS[int(self.status[row])] for row in np.flatnonzero(self.status)}

    def choose(
        self,
        *,
        fraction: float | None = None,
        num_examples: int | None = None,
        strategy: str | None = None,
        gate: str | float | None = "same",
        balance: str | None = None,
        min_per_group: int | None = None,
    ) -> Selection:
        """Other rows by what is known of all, without a model: those that a selection with these settings keeps.

        Args:
            fraction: Share of the rows to keep, or
            num_examples: number of rows to keep. With neither, the budget stays as it was.
            strategy: As of `SageConfig`; as it was by default.
            gate: As of `SageConfig`; "same" leaves it as it was.
            balance: As of `SageConfig`; as it was by default.
            min_per_group: As of `SageConfig`; as it was by default.

        Raises:
            BudgetError: The budget is impossible, or given twice.
            ConfigError: A setting is unknown, or the strategy or the gate needs what `signals` lacks.
            OutputError: The signals of a loaded selection are damaged.
        """
        changes: dict[str, Any] = {"strategy": strategy, "balance": balance, "min_per_group": min_per_group}
        changes = {name: value for name, value in changes.items() if value is not None}
        if gate != "same":
            changes["gate"] = gate
        if fraction is not None or num_examples is not None:
            changes |= {"fraction": fraction, "num_examples": num_examples}
        config = resolve(replace(self.config, **changes), has_target=self.stats.targets is not None)
        budget = resolve_budget(len(self.scores), config.fraction, config.num_examples)
        signals = self.signals or self._plain_signals()
        with stage("choosing rows", unit="parts", shown=is_wanted()):
            if signals.records is not None:
                signals.records.check()
            choice = choose_rows(config, signals, budget)
        indices = choice.indices
        table = group_table(signals.groups, self.status, self.scores, indices)
        stats = replace(
            self.stats,
            strategy=config.strategy,
            kept=len(indices),
            groups=table,
            lost_groups=lost_groups(table, config),
            mean_score_kept=float(self.scores[indices].mean(dtype=np.float64)),
            gate=choice.gate,
            command=None,
        )
        return replace(self, indices=indices, config=config, stats=stats, verdicts=choice.verdicts)

    def _fault(self) -> str:
        """What cannot be of its columns as they were read; empty where all can."""
        rows = len(self.scores)
        columns = (self.scores, self.losses, self.groups, self.status)
        if any(column.shape != (rows,) for column in columns) or self.stats.rows != rows or self.indices.ndim != 1:
            return "its columns are not of the same rows"
        if rows and not 0 <= self.groups.min() <= self.groups.max() < len(self.group_names):
            return "a row is of no group"
        if len(self.indices) and not (self.indices[0] >= 0 and self.indices[-1] < rows):
            return "a kept row is none of its rows"
        return ""

    def _plain_signals(self) -> RowSignals:
        """What every selection knows of its rows."""
        groups = Groups(self.stats.group_by, self.groups, self.group_names, {})
        shares = None if self.stats.target_shares is None else np.array(self.stats.target_shares)
        names = self.label_names
        return RowSignals(groups, self.status, self.scores, self.losses, label_names=names, shares=shares)

    # --------------------------------------------------------------------- disk
    @classmethod
    def load_from_disk(cls, path: str | os.PathLike[str], source: Dataset | None = None) -> Selection:
        """Reads what `save_to_disk` wrote.

        Args:
            path: The folder.
            source: The dataset that was selected from; when omitted, `dataset` gives the rows saved in the folder.

        Raises:
            OutputError: The folder holds no selection, a damaged one, or one of a later version.
            DatasetError: `source` is not the dataset that was selected from.
        """
        folder = Path(path)
        values, digests = cls._read(folder, "source_fingerprint", str)
        selection = cls(**values)
        if fault := selection._fault():
            raise OutputError(
                f"The selection cannot be read: {fault}", where=str(folder), fix="Make it again, or restore its files."
            )
        signals = selection._plain_signals()
        selection.signals = signals if read_signals(folder, signals, digests) else None
        if source is not None:
            selection.attach(source)
        elif (folder / "dataset_info.json").exists():
            selection.__dict__["dataset"] = cls._read_rows(folder, len(selection), digests)
        return selection

    @classmethod
    def from_hub(
        cls,
        repo_id: str,
        source: Dataset | None = None,
        *,
        config_name: str = "default",
        revision: str | None = None,
        token: str | None = None,
    ) -> Selection:
        """Reads the scores that `push_to_hub` pushed; `choose` and `dataset` then work as after the selection.

        Args:
            repo_id: "owner/name" of a dataset repository.
            source: The dataset that was selected from; needed for `dataset`.
            config_name: The configuration of the repository.
            revision: A branch, tag or commit.
            token: Token of the Hub; the one of your login by default.

        Raises:
            HubError: The repository is not there, may not be read, or holds no such scores.
            DatasetError: `source` is not the dataset that was selected from, or another revision of it.
            OutputError: The scores are of a stream, or of a later version.
        """
        return cls.load_from_disk(fetch(repo_id, config_name, revision, token), source=source)

    def attach(self, source: Dataset) -> None:
        """Makes `dataset` choose from `source`.

        Raises:
            DatasetError: It is no dataset, another than the one that was selected from, or another revision of it.
        """
        check_dataset(source, "source")
        here, then = describe_dataset(source)["revision"], self.stats.source.get("revision")
        # The fingerprint tells how a dataset was made, the digest, for which a part is read, what the rows are now.
        is_made_so = source._fingerprint == self.source_fingerprint
        same = len(source) == len(self.scores) and (
            (is_made_so or here is None or then is None or here == then)
            and dataset_digest(source) == self.stats.source_digest
        )
        if not same and here and then and here != then:
            raise DatasetError(
                f"The selection was made from revision {then} of its source, and this dataset is of revision {here}",
                where="source",
                fix=f'Load it with revision="{then}".',
            )
        if not same:
            raise DatasetError(
                f"The selection was made from {len(self.scores)} rows with fingerprint {self.source_fingerprint}, and "
                f"this dataset has {len(source)} rows and fingerprint {source._fingerprint}",
                where="source",
                fix="Pass the same dataset, loaded and processed the same way; or use the saved rows.",
            )
        self.source = source
        self.__dict__.pop("dataset", None)

    @classmethod
    def _read_more(cls, arrays: dict[str, npt.NDArray[Any]], values: dict[str, Any]) -> dict[str, Any]:
        parts = {name: arrays[name] for name in _VERDICTS if name in arrays}
        verdicts = RowVerdicts(**parts) if len(parts) == len(_VERDICTS) else None
        return {"verdicts": verdicts, "label_names": _label_names(values)}

    def _files(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        arrays, values = super()._files()
        if self.verdicts is not None:
            arrays |= {name: getattr(self.verdicts, name) for name in _VERDICTS}
        return arrays, values | {"label_names": self.label_names}

    def _write_signals(self, folder: Path) -> dict[str, str]:
        return {} if self.signals is None else write_signals(folder, self.signals)

    # ------------------------------------------------------------------ sharing
    def _rows(self, folder: Path) -> Dataset:
        return self.dataset

    def seen(self) -> Seen:
        """What pictures show of it."""
        kept = np.zeros(len(self.scores), dtype=bool)
        kept[self.indices] = True
        is_other = (self.status == SCORED) & ~kept
        parts = places_by_code(self.groups, len(self.group_names))
        return Seen(
            self.stats.group_by,
            self.stats.groups,
            [self.scores[part[kept[part]]] for part in parts],
            [self.scores[part[is_other[part]]] for part in parts],
            self.stats.spectrum,
            self.stats.squared_norm,
        )


def _label_names(values: dict[str, Any]) -> list[str] | None:
    found = values.get("label_names")
    if not fits(found, list[str] | None):
        raise TypeError("label_names are no list of texts")
    return found


def group_table(
    groups: Groups, status: npt.NDArray[np.uint8], scores: npt.NDArray[np.float32], indices: npt.NDArray[np.int64]
) -> list[GroupStats]:
    """One entry a group.

    Args:
        groups: Groups of the rows.
        status: [N].
        scores: [N].
        indices: [K], the kept rows.
    """
    kept = np.zeros(len(scores), dtype=bool)
    kept[indices] = True
    table = []
    for name, rows in zip(groups.names, places_by_code(groups.codes, groups.count), strict=True):
        mine, scored, chosen = scores[rows], status[rows] == SCORED, kept[rows]
        aside = len(rows) - int(scored.sum())
        means = (_mean(_at(mine, scored)), _mean(mine[chosen]))
        table.append(GroupStats(name, len(rows), int(chosen.sum()), aside, *means))
    return table


def _at(values: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Values under a mask; without a copy where these are all."""
    return values if mask.all() else values[mask]


def _mean(values: npt.NDArray[np.float32]) -> float | None:
    return float(values.mean(dtype=np.float64)) if len(values) else None
