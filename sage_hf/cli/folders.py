"""Folders that `sage-hf select` wrote: which rows they were made from, and the selection with these rows again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import SageConfig
from ..errors import ConfigError, DatasetError, OutputError, SageError
from ..hub.files import read_scores
from ..utils.checksums import CHECKSUM, UNSEALED, check_seal, seal
from ..utils.files import whole_file
from ..utils.locks import only_run
from .options import Sources, main_console
from .output import is_quiet, was_said

if TYPE_CHECKING:
    from ..selection.selection import Selection
    from ..selection.stream_selection import StreamSelection

# Beside the scores, and never pushed: it names a place on this machine.
_SOURCE_NAME = "source.json"


@dataclass(frozen=True)
class NotedSource:
    """How rows were read: options of the shell by their names, a file or folder by its absolute path.

    Of --exclude, the row numbers that were left out: its list may be edited again.
    """

    dataset: str
    split: str = "train"
    dataset_config: str | None = None
    dataset_revision: str | None = None
    label_column: str | None = None
    column_mapping: str | None = None
    drop_missing: bool = False
    text_columns: list[str] | None = None
    excluded: list[int] | None = None


def note_source(folder: Path, inputs: Sources, config: SageConfig, excluded: list[int] | None = None) -> None:
    """Writes down, in a selection's folder, how its rows were read."""
    own = {each.name for each in fields(NotedSource)} & {each.name for each in fields(Sources)}
    shared = {name: getattr(inputs, name) for name in own}
    shared["dataset"] = _absolute(inputs.dataset)
    _write_source(folder, NotedSource(**shared, text_columns=config.text_columns, excluded=excluded))


def pass_source_on(folder: Path, output: Path, dataset: str | None) -> None:
    """Writes down, in the folder of another choice, how the rows of the first are read.

    Args:
        folder: The selection's folder.
        output: The folder of what was chosen from it.
        dataset: File, folder or Hub id of the rows, where the user named it.
    """
    noted = _source_of(folder, dataset)
    if noted is not None:
        _write_source(output, noted)


def open_selection(folder: Path, dataset: str | None) -> Selection:
    """The selection of a folder, with the rows that it was made from where these are found.

    Args:
        folder: What `sage-hf select` or `Selection.save_to_disk` wrote.
        dataset: File, folder or Hub id of these rows; None takes what `sage-hf select` wrote down. If they are not
            there any more, that is said, and only the kept rows are at hand.

    Raises:
        OutputError: The folder holds no selection.
        DatasetError: `dataset` cannot be read, or has other rows.
        ConfigError: The selection is from a stream.
    """
    if folder.is_file():
        raise OutputError(
            "A file holds the kept rows alone",
            where=str(folder),
            fix="Name the folder of a selection.",
        )
    if read_scores(folder)[1].get("kind") == "stream":
        raise ConfigError(
            "A selection from a stream knows only the rows that it kept",
            where=str(folder),
            fix="Open them with datasets.load_from_disk, or select without --streaming.",
        )
    from ..selection.selection import Selection

    noted = _source_of(folder, dataset)
    try:
        selection = Selection.load_from_disk(folder)
    except OutputError:
        if noted is None:
            raise
        return Selection.load_from_disk(folder, source=_load(noted))  # the kept rows alone may be damaged
    if noted is None:
        return selection
    try:
        selection.attach(_load(noted))
    except SageError as error:
        if dataset is not None:
            raise
        text = f"The original dataset is not available: {error.what}. Name it with --dataset."
        main_console().print(text, markup=False)
    return selection


@contextmanager
def holding(output: Path) -> Iterator[None]:
    """Keeps other commands from an output while this one runs; in a launch the main process does.

    Raises:
        OutputError: Another command is writing there.
    """
    if os.environ.get("RANK", "0") != "0":  # before torch is imported
        yield
        return
    place = output.absolute()
    new = [parent for parent in place.parents if not parent.exists()]
    try:
        with only_run(place.with_name(f".{place.name}.lock"), output, "Wait until it ends, or name another --output."):
            yield
    finally:
        for parent in new:
            with suppress(OSError):  # it is not empty
                parent.rmdir()


def print_kept(selection: Selection | StreamSelection, output: Path) -> None:
    """Prints what was kept and where it is: a summary, or one line where --quiet was given."""
    from ..selection.report import summary

    console = main_console(stderr=False)
    if is_quiet():
        console.print(f"Kept {len(selection):,} of {selection.stats.rows:,} rows.", end=" ")
    else:
        console.print(summary(selection, was_said))
    console.print(f"Written to {output}.", markup=False, soft_wrap=True)


def with_rows(folder: Path, dataset: str | None) -> Selection:
    """As `open_selection`, for what needs all rows.

    Raises:
        DatasetError: The rows are not at hand.
    """
    selection = open_selection(folder, dataset)
    if selection.source is None:
        raise DatasetError(
            "The original dataset is needed: the folder of a selection holds only the kept rows",
            where=str(folder),
            fix="Name the file, folder or Hub id of all rows with --dataset.",
        )
    return selection


def _source_of(folder: Path, dataset: str | None) -> NotedSource | None:
    """What is noted in a folder, of the dataset that the user names if any; None where nothing is known."""
    noted = _read_source(folder)
    if dataset is None:
        return noted
    dataset = _absolute(dataset)
    return replace(noted, dataset=dataset) if noted is not None else NotedSource(dataset)


def _absolute(dataset: str) -> str:
    """A file or folder by its absolute path; the id of a repository as it is."""
    place = Path(dataset).expanduser()
    return str(place.absolute()) if place.exists() else dataset


def _write_source(folder: Path, noted: NotedSource) -> None:
    with whole_file(folder / _SOURCE_NAME, "Free some space, and name the dataset with --dataset.") as part:
        part.write_text(json.dumps({CHECKSUM: UNSEALED, **asdict(noted)}, indent=2) + "\n", encoding="utf-8")
        seal(part)


def _read_source(folder: Path) -> NotedSource | None:
    try:
        values = json.loads((folder / _SOURCE_NAME).read_text(encoding="utf-8"))
        check_seal(folder / _SOURCE_NAME, is_needed=False)  # folders of older versions have none
        values.pop(CHECKSUM, None)
        return NotedSource(**values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(
            f"The record of the original dataset cannot be read: {error}",
            where=str(folder / _SOURCE_NAME),
            fix="Delete the file, and name the dataset with --dataset. If you edited it, delete its line checksum.",
        ) from error


def _load(noted: NotedSource):  # type: ignore[no-untyped-def]  # a Dataset, which is not imported for help
    from datasets import Dataset

    from ..selector.cleaning import without_rows
    from .rows import split_of

    values, excluded = asdict(noted), noted.excluded
    del values["excluded"]
    config = SageConfig(text_columns=values.pop("text_columns"))
    values["split"] = split_of(noted.dataset, noted.split)  # --dataset may name a file of the rows of a split
    rows = Sources(model="", **values).load_rows(config)
    assert isinstance(rows, Dataset)
    return rows if excluded is None else without_rows(rows, excluded)
