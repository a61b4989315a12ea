"""What every kind of selection holds and can do: save, push, draw, and show itself in a notebook."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from datasets import Dataset, IterableDataset, load_from_disk
from huggingface_hub import CommitInfo

from ..config import SageConfig
from ..data.stats import GroupStats, SelectionStats
from ..errors import ConfigError, OutputError
from ..hub.files import check_digests, check_table_output, read_scores, write_scores, write_selection
from ..hub.held import save_checked
from ..hub.pictures import Seen, draw
from ..hub.push import Push, push
from ..hub.row_files import write_rows
from ..report import render_page, render_small
from ..utils.bars import at, is_wanted, stage
from ..utils.deprecation import warn_old
from ..utils.files import whole_file
from ..utils.interruption import told_if_interrupted
from ..utils.typed import fits
from .brief import about

# Files of `Dataset.save_to_disk` beside those that end in .arrow.
_OF_ROWS = ("dataset_info.json", "state.json")
# Bytes of kept rows whose checksums are looked at when a selection is loaded: a quarter of a second from a disk.
_CHECKED_BYTES = 2**28


class SelectionBase(ABC):
    """What was chosen; of a dataset a `Selection`, of a stream a `StreamSelection`.

    Both have `kept_scores` [K] and `kept_groups` [K] as well.

    Attributes:
        indices: [K] int64, numbers of the kept rows, ascending.
        group_names: [G].
        stats: What the run measured.
        config: The settings.
    """

    indices: npt.NDArray[np.int64]
    group_names: list[str]
    set_aside: Any
    stats: SelectionStats
    config: SageConfig
    _kind: ClassVar[str]  # what it is from: "dataset" or "stream"
    _arrays: ClassVar[tuple[str, ...]]  # those that are saved
    _fields: ClassVar[tuple[str, ...]] = ()  # what else is

    def __len__(self) -> int:
        """K."""
        return len(self.indices)

    def __repr__(self) -> str:
        stats = self.stats
        return f"{type(self).__name__}({stats.kept:,} of {stats.rows:,} rows, strategy={stats.strategy!r})"

    def __str__(self) -> str:
        """About five lines for a person: what is kept and by which rule, and how to go on."""
        return "\n".join(about(self.stats, type(self).__name__, type(self)._kind))

    @property
    def group_table(self) -> list[GroupStats]:
        """One entry a group."""
        return self.stats.groups

    def save_to_disk(
        self,
        path: str | os.PathLike[str],
        *,
        include_dataset: bool = True,
        keep_signals: bool = True,
        overwrite: bool = False,
    ) -> Path:
        """Writes the selection to a folder: JSON, safetensors and, for `datasets.load_from_disk`, the kept rows.

        Written beside the folder and renamed, so that a folder of this name is always whole.

        Args:
            path: The folder; it must not exist, or be empty.
            include_dataset: Whether to write the kept rows, too.
            keep_signals: Whether to write the signals of all rows, too, where there are any: 1 to 3 kB a row. Then
                `Selection.choose` takes every strategy of a selection that was loaded.
            overwrite: Whether a selection that is there already may be replaced.

        Raises:
            OutputError: The folder holds something, or cannot be written.
            DatasetError: A row names a file that is not there, or of another kind than its column.
        """
        write_rows = self._write_rows if include_dataset else None

        def write_more(folder: Path) -> None:
            at("scores and signals")
            digests = self._write_signals(folder) if keep_signals else {}
            write_scores(folder, *self._files(), digests)

        with stage("writing", shown=is_wanted()):
            return write_selection(Path(path), overwrite, write_rows, write_more)

    def save_rows(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes the kept rows alone to a file, with `sage_row` and `sage_score`.

        In text, class labels are their names, and images and sounds the paths of their files.

        Args:
            path: Ends in .csv, .json or .jsonl (a JSON object a line), or .parquet.
            overwrite: Whether a file that is there already may be replaced.

        Raises:
            OutputError: The ending is another, the file is there, or it cannot be written or hold the rows.
            DatasetError: The selection was loaded without its rows.
        """
        place = Path(path)
        check_table_output(place, overwrite)
        with stage("writing", shown=is_wanted()), tempfile.TemporaryDirectory(prefix=".sage_hf-") as cache:
            return write_rows(self._rows(Path(cache)), place, overwrite)

    @classmethod
    @abstractmethod
    def load_from_disk(cls, path: str | os.PathLike[str]) -> SelectionBase:
        """Reads what `save_to_disk` wrote."""

    @classmethod
    def _read(cls, folder: Path, name: str, field: Callable[[Any], Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """The fields of what a folder holds, one of them, `name`, as it is in the JSON file; and its files' digests.

        Raises:
            OutputError: The folder holds no selection of this kind, or one of another version.
        """
        arrays, values = read_scores(folder)
        if values.get("kind", cls._kind) != cls._kind:
            raise OutputError(
                f"The folder holds a selection from a {values['kind']}",
                where=str(folder),
                fix=f"Read it with {'StreamSelection' if values['kind'] == 'stream' else 'Selection'}.load_from_disk.",
            )
        try:
            return {
                **{name: arrays[name] for name in cls._arrays},
                "group_names": _names(values["group_names"]),
                "stats": SelectionStats.from_dict(values["stats"]),
                "config": SageConfig.from_dict(values["config"]),
                name: field(values[name]),
                **cls._read_more(arrays, values),
            }, values.get("files", {})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise OutputError(
                f"The selection {'lacks' if isinstance(error, KeyError) else 'cannot be read:'} {error}",
                where=str(folder),
                fix="Make it again, or restore its files.",
            ) from error

    @classmethod
    def _read_more(cls, arrays: dict[str, npt.NDArray[Any]], values: dict[str, Any]) -> dict[str, Any]:
        """Further fields of what a folder holds."""
        return {}

    @classmethod
    def _read_rows(cls, folder: Path, count: int, digests: Mapping[str, str]) -> Dataset:
        """The kept rows of a folder; their checksums are looked at where that takes no time.

        Raises:
            OutputError: They cannot be read, are not so many, or not what was written.
        """
        files = [path for path in folder.iterdir() if path.suffix == ".arrow" or path.name in _OF_ROWS]
        try:
            if sum(path.stat().st_size for path in files) <= _CHECKED_BYTES:
                check_digests(folder, [path.name for path in files], digests)
            rows = load_from_disk(str(folder.absolute()))
            if not isinstance(rows, Dataset) or len(rows) != count:
                raise ValueError(f"they are {len(rows)}, and {count} were kept")
            return rows
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(
                f"The kept rows cannot be read: {error}",
                where=str(folder),
                fix="Restore its files, make the selection again, or pass the source of a dataset.",
            ) from error

    def save(self, *args: Any, **options: Any) -> Path:
        """`save_to_disk` as it was called before 0.2.0, for one version."""
        warn_old("Selection.save", "Selection.save_to_disk")
        return self.save_to_disk(*args, **options)

    @classmethod
    def load(cls, *args: Any, **options: Any) -> Any:
        """`load_from_disk` as it was called before 0.2.0, for one version."""
        warn_old("Selection.load", "Selection.load_from_disk")
        return cls.load_from_disk(*args, **options)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        config_name: str = "default",
        other_splits: Mapping[str, Dataset | IterableDataset] | None = None,
        scores_only: bool = False,
        private: bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        overwrite: bool = False,
        token: str | None = None,
        license: str | None = None,
    ) -> CommitInfo | None:
        """Pushes the kept rows with their scores, and a card that tells how they were chosen.

        The repository gets the rows as parquet with a column `sage_score`, the source's other splits with a null
        there, a card with pictures, and the scores of all rows, which `Selection.from_hub` reads. Rows are pushed
        before the card. Pushing again replaces both; what else the card says stays. In a run of several processes the
        main one pushes.

        Args:
            repo_id: "owner/name", or a name of your own.
            config_name: The configuration of the repository that the rows are.
            other_splits: The source's other splits. None takes those of a source from the Hub from there; {} pushes
                none.
            scores_only: Push no rows, only their scores: 13 bytes a row, 22 with a gate.
            private: Whether a new repository is private; None is as your account has it.
            revision: The branch to push to; a new one is made from main.
            create_pr: Whether to open a pull request instead.
            overwrite: Whether a configuration that holds other data than rows of the same source may be replaced.
            token: Token of the Hub; the one of your login by default.
            license: Licence of what is pushed; the source's by default.

        Returns:
            The last commit, with its address and that of the pull request; None in other processes than the main one.

        Raises:
            HubError: Nobody is logged in, the repository cannot be written, or the Hub does not answer. Says what is
                there by then.
            DatasetError: The other splits are not known, or have other columns.
            ConfigError: `config_name` cannot be one, or a stream has no scores of the rows that were not kept.
        """
        if scores_only and self._kind == "stream":
            raise ConfigError(
                "A selection from a stream has no scores of the rows that were not kept",
                where="scores_only",
                fix="Push the kept rows, or select from a dataset.",
            )
        what = Push(
            self.stats,
            self.config,
            self.seen(),
            lambda place: write_scores(place, *self._files()),
            None if scores_only else self._rows,
            self._kind == "dataset",
            getattr(self, "source_fingerprint", None),
        )
        with stage("pushing to the Hub", shown=is_wanted()), told_if_interrupted(_about_push):
            return push(
                what,
                repo_id,
                config_name=config_name,
                other_splits=other_splits,
                private=private,
                revision=revision,
                create_pr=create_pr,
                overwrite=overwrite,
                token=token,
                license=license,
            )

    def plot(self, name: str | None = None) -> Any:
        """A matplotlib figure.

        Args:
            name: "scores" (agreement by group, kept against not kept), "spectrum" (what the sketch holds) or "groups"
                (share of each that was kept); None draws all three.

        Raises:
            ConfigError: The name is unknown, or matplotlib is not installed.
        """
        return draw(self.seen(), name)

    def report(self, path: str | os.PathLike[str] | None = None) -> str:
        """The whole story as one page of HTML, which needs no network: it opens from a file, and can be sent as one.

        What was chosen and why, the share kept of each group, scores, the sketch's spectrum, rows as they are (of a
        loaded selection those that are at hand), rows that were set aside, and the facts of the run.

        Args:
            path: File to write it to; what is there is replaced. None writes none.

        Returns:
            The page.

        Raises:
            OutputError: The file cannot be written.
        """
        from .html_report import report_facts  # knows both kinds of selection

        with stage("the report", shown=is_wanted()):
            page = render_page(report_facts(self))
        if path is not None:
            with whole_file(Path(path), "Choose a folder that can be written to.") as part:
                part.write_text(page, encoding="utf-8")
        return page

    def _repr_html_(self) -> str:
        from .html_report import brief_facts

        return render_small(brief_facts(self))

    @abstractmethod
    def seen(self) -> Seen:
        """What pictures show of it."""

    def _files(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """What goes into the safetensors file and the JSON file."""
        values = {
            **{name: getattr(self, name) for name in self._fields},
            "kind": self._kind,
            "group_names": self.group_names,
            "stats": self.stats.to_dict(),
            "config": self.config.to_dict(),
            "set_aside": {str(row): reason for row, reason in list(self.set_aside.items())[:1000]},
        }
        return {name: getattr(self, name) for name in self._arrays}, values

    @abstractmethod
    def _write_signals(self, folder: Path) -> dict[str, str]:
        """Writes what further choices need to a folder that is there; digests of its files that are known."""

    def _write_rows(self, folder: Path) -> None:
        at("rows")
        with tempfile.TemporaryDirectory(prefix=".sage_hf-", dir=folder.parent) as cache:
            save_checked(self._rows(Path(cache)).with_format(None), folder)

    @abstractmethod
    def _rows(self, folder: Path) -> Dataset:
        """The kept rows with their scores; what is written for it goes to the folder."""


def _about_push() -> str:
    return (
        "What was sent stays there and is not sent again; no card tells of rows that are not there. The same push "
        "goes on with overwrite=True."
    )


def _names(value: Any) -> list[str]:
    """Names as a file holds them.

    Raises:
        TypeError: They are none.
    """
    if not fits(value, list[str]):
        raise TypeError("names are no list of texts")
    return list(value)
