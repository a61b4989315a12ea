"""What was chosen, and why: the result of a selection, in memory and on disk."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset, load_from_disk
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from .errors import DatasetError, OutputError
from .fingerprint import dataset_digest

SCORE_COLUMN = "sage_score"
LOSS_COLUMN = "sage_loss"
FORMAT_VERSION = 1

# Why a row was set aside.
SCORED, NOT_FINITE, ZERO_GRADIENT = 0, 1, 2
REASONS = {NOT_FINITE: "gradient or loss not finite", ZERO_GRADIENT: "gradient exactly zero"}

_JSON, _ARRAYS = "selection.json", "selection.safetensors"


@dataclass
class Selection:
    """The rows that were kept, with every row's score.

    N rows of the source, K kept, G groups.

    Attributes:
        indices: [K] int64, the kept row numbers of the source, ascending.
        scores: [N] float32, agreement in [-1, 1]: 1 pulls the weights as its group does, 0 is unrelated, negative
            pulls against it. NaN where the row was set aside.
        losses: [N] float32, each row's own loss before training; NaN where the row was set aside.
        groups: [N] int32 in [0, G).
        group_names: [G].
        status: [N] uint8: 0 scored, 1 not finite, 2 gradient exactly zero.
        stats: What the run measured: rows, energy captured, error bound, seconds, per-group table, ...
        config: The settings, as `SageConfig.to_dict` gives them.
        source_fingerprint: The source dataset's fingerprint.
        source: The source dataset, if at hand.
    """

    indices: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    losses: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int32]
    group_names: list[str]
    status: npt.NDArray[np.uint8]
    stats: dict[str, Any]
    config: dict[str, Any]
    source_fingerprint: str
    source: Dataset | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """K."""
        return len(self.indices)

    @cached_property
    def dataset(self) -> Dataset:
        """The kept rows in the source's order, with their scores in a column `sage_score`.

        Raises:
            DatasetError: The selection was loaded without its source.
        """
        if self.source is None:
            raise DatasetError(
                "The selection was loaded without the rows it was made from",
                where="Selection.load",
                fix="Pass the source: Selection.load(path, source=dataset).",
            )
        source = self.source
        if SCORE_COLUMN in source.column_names:
            source = source.remove_columns(SCORE_COLUMN)
        # Before the rows are chosen: adding a column afterwards rewrites the table.
        return source.add_column(SCORE_COLUMN, self.scores).select(self.indices)

    @property
    def set_aside(self) -> dict[int, str]:
        """Row number to reason of every row that has no score."""
        return {int(row): REASONS[int(self.status[row])] for row in np.flatnonzero(self.status)}

    @property
    def group_table(self) -> list[dict[str, Any]]:
        """One entry a group: name, rows, kept, set_aside, and the mean scores of its scored and of its kept rows."""
        kept = np.zeros(len(self.scores), dtype=bool)
        kept[self.indices] = True
        table = []
        for code, name in enumerate(self.group_names):
            mine = self.groups == code
            scored, chosen = mine & (self.status == SCORED), mine & kept
            table.append(
                {
                    "name": name,
                    "rows": int(mine.sum()),
                    "kept": int(chosen.sum()),
                    "set_aside": int((mine & (self.status != SCORED)).sum()),
                    "mean_score": _mean(self.scores[scored]),
                    "mean_score_kept": _mean(self.scores[chosen]),
                }
            )
        return table

    # --------------------------------------------------------------------- disk
    def save(self, path: str | os.PathLike[str], *, include_dataset: bool = True, overwrite: bool = False) -> Path:
        """Writes the selection to a folder: JSON, safetensors and, for `datasets.load_from_disk`, the kept rows.

        Written beside the folder and renamed, so that a folder of this name is always whole.

        Args:
            path: The folder; it must not exist, or be empty.
            include_dataset: Whether to write the kept rows, too.
            overwrite: Whether a selection that is there already may be replaced.

        Raises:
            OutputError: The folder holds something, or cannot be written.
        """
        names = ("indices", "scores", "losses", "groups", "status")
        about = {
            "group_names": self.group_names,
            "stats": self.stats,
            "config": self.config,
            "source_fingerprint": self.source_fingerprint,
            "set_aside": {str(row): reason for row, reason in list(self.set_aside.items())[:1000]},
        }
        return write_selection(
            Path(path),
            overwrite,
            (lambda folder: self.dataset.with_format(None).save_to_disk(str(folder))) if include_dataset else None,
            {name: getattr(self, name) for name in names},
            about,
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str], source: Dataset | None = None) -> Selection:
        """Reads what `save` wrote.

        Args:
            path: The folder.
            source: The dataset that was selected from; when omitted, `dataset` gives the rows saved in the folder.

        Raises:
            OutputError: The folder holds no selection, or one of a later version.
            DatasetError: `source` is not the dataset that was selected from.
        """
        folder = Path(path)
        if not (folder / _JSON).is_file() or not (folder / _ARRAYS).is_file():
            raise OutputError(
                "The folder holds no selection", where=str(folder), fix=f"Name a folder with {_JSON} and {_ARRAYS}."
            )
        try:
            about = json.loads((folder / _JSON).read_text(encoding="utf-8"))
            arrays = load_file(folder / _ARRAYS)
        except (OSError, ValueError, SafetensorError) as error:
            raise OutputError(
                f"The selection cannot be read: {error}", where=str(folder), fix="Make it again, or restore its files."
            ) from error
        if isinstance(about, dict) and about.get("kind") == "stream":
            raise OutputError(
                "The folder holds a selection from a stream, which has no scores of the rows that were not kept",
                where=str(folder),
                fix="Read the kept rows with datasets.load_from_disk.",
            )
        version = about.get("format_version") if isinstance(about, dict) else None
        if version != FORMAT_VERSION:
            raise OutputError(
                f"The selection has format {version}, and this sage_hf reads {FORMAT_VERSION}",
                where=str(folder / _JSON),
                fix="Use the sage_hf that wrote it, or a newer one.",
            )
        try:
            selection = cls(
                **{name: arrays[name] for name in ("indices", "scores", "losses", "groups", "status")},
                group_names=about["group_names"],
                stats=about["stats"],
                config=about["config"],
                source_fingerprint=about["source_fingerprint"],
            )
        except KeyError as error:
            raise OutputError(
                f"The selection lacks {error}", where=str(folder), fix="Make it again, or restore its files."
            ) from error
        if source is not None:
            selection.attach(source)
        elif (folder / "dataset_info.json").is_file():
            try:
                selection.__dict__["dataset"] = load_from_disk(str(folder))
            except (OSError, ValueError) as error:
                raise OutputError(
                    f"The kept rows cannot be read: {error}", where=str(folder), fix="Pass the source instead."
                ) from error
        return selection

    def attach(self, source: Dataset) -> None:
        """Makes `dataset` choose from `source`.

        Raises:
            DatasetError: It is another dataset than the one that was selected from.
        """
        # The fingerprint tells how a dataset was made; where it differs, the rows decide.
        same = len(source) == len(self.scores) and (
            source._fingerprint == self.source_fingerprint or dataset_digest(source) == self.stats.get("source_digest")
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


def write_selection(
    target: Path,
    overwrite: bool,
    write_rows: Callable[[Path], None] | None,
    arrays: dict[str, npt.NDArray[Any]],
    about: dict[str, Any],
) -> Path:
    """Writes a selection's folder whole, or not at all.

    Args:
        target: The folder.
        overwrite: Whether a selection that is there already may be replaced.
        write_rows: Writes the kept rows to a folder, as `Dataset.save_to_disk` does.
        arrays: What goes into the safetensors file.
        about: What goes into the JSON file.

    Raises:
        OutputError: The folder holds something, or cannot be written.
    """
    check_output(target, overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        working = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise OutputError(f"{error}", where=str(target), fix="Choose a folder that can be written to.") from error
    try:
        if write_rows is not None:
            write_rows(working / "part")
            for file in (working / "part").iterdir():
                file.rename(working / file.name)
            (working / "part").rmdir()
        save_file(arrays, working / _ARRAYS)
        about = {"format_version": FORMAT_VERSION, **about}
        (working / _JSON).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        working.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        working.rename(target)
    except OSError as error:
        raise OutputError(
            f"The selection could not be written: {error}",
            where=str(target),
            fix="Free some space, or choose another folder.",
        ) from error
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return target


def check_output(path: Path, overwrite: bool = False) -> None:
    """Refuses a folder that something would be lost in; to be called before the long run, too.

    Raises:
        OutputError: The folder holds another selection, or anything else.
    """
    if not path.exists():
        nearest = next(parent for parent in path.absolute().parents if parent.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise OutputError(
                f"Nothing can be written to {nearest}", where=str(path), fix="Choose a folder that can be written to."
            )
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.is_dir() and (path / _JSON).is_file():
        if overwrite:
            return
        raise OutputError(
            "The folder holds another selection", where=str(path), fix="Choose another folder, or pass overwrite."
        )
    raise OutputError(
        "The folder holds something that is no selection", where=str(path), fix="Choose a new or empty folder."
    )


def _mean(values: npt.NDArray[np.float32]) -> float | None:
    return float(values.mean(dtype=np.float64)) if len(values) else None
