"""A selection's folder: its files by name, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..errors import OutputError
from ..utils.checksums import CHECKSUM, UNSEALED, check_seal, file_digest, seal
from ..utils.files import check_name, recover, whole_folder

FORMAT_VERSION = 3
# 2 has no checksums.
_READ = (2, FORMAT_VERSION)
JSON_NAME, ARRAYS_NAME = "selection.json", "selection.safetensors"
# What looks like the ending of a file, and not like a number or a version in a folder's name.
_ENDING = re.compile(r"\.(?![vV]\d)[A-Za-z][A-Za-z0-9]{0,7}")
# Endings of a file that holds rows, and what writes it, of `datasets.Dataset`.
TABLE_WRITERS = {".csv": "to_csv", ".json": "to_json", ".jsonl": "to_json", ".parquet": "to_parquet"}


def write_scores(
    folder: Path,
    arrays: dict[str, npt.NDArray[Any]],
    facts: dict[str, Any],
    digests: Mapping[str, str] | None = None,
) -> None:
    """Writes the two files of scores and settings to a folder that is there, and the checksums of all that it holds.

    Args:
        folder: The folder, with all other files of the selection.
        arrays: Of the rows.
        facts: JSON-ready.
        digests: Those of files in the folder that are known by now.
    """
    save_file(arrays, folder / ARRAYS_NAME)
    known = digests or {}
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != JSON_NAME)
    files = {name: known.get(name) or file_digest(folder / name) for name in names}
    head = {"format_version": FORMAT_VERSION, CHECKSUM: UNSEALED}
    text = json.dumps({**head, **facts, "files": files}, indent=2, ensure_ascii=False)
    (folder / JSON_NAME).write_text(text + "\n", encoding="utf-8")
    seal(folder / JSON_NAME)


def read_scores(folder: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Reads what `write_scores` wrote, or an earlier version of it.

    Raises:
        OutputError: The folder holds no selection, a damaged one, or one of a later version.
    """
    check_name(folder)
    recover(folder)
    if not folder.exists():
        raise OutputError("There is no such folder", where=str(folder), fix="Check the path.")
    if not (folder / JSON_NAME).is_file() or not (folder / ARRAYS_NAME).is_file():
        raise OutputError(
            "The folder holds no selection",
            where=str(folder),
            fix=f"Name a folder with {JSON_NAME} and {ARRAYS_NAME}.",
        )
    at = folder / JSON_NAME
    try:
        facts = json.loads(at.read_text(encoding="utf-8"))
        version = facts.get("format_version") if isinstance(facts, dict) else None
        if version in _READ:
            check_seal(at, is_needed=version == FORMAT_VERSION)
            at = folder / ARRAYS_NAME
            check_digests(folder, [ARRAYS_NAME], facts.get("files", {}))
            arrays = load_file(at)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"The selection cannot be read: {error}", where=str(at), fix="Make it again, or restore its files."
        ) from error
    if version not in _READ:
        raise OutputError(
            f"The selection has format {version}, and this sage_hf reads {' and '.join(map(str, _READ))}",
            where=str(folder / JSON_NAME),
            fix="Select again, or use the version of sage_hf that wrote it.",
        )
    return arrays, facts


def check_digests(folder: Path, names: Iterable[str], digests: Mapping[str, str]) -> None:
    """Refuses files of a selection that are not what was written; of a selection without checksums none is.

    Raises:
        OutputError: One was changed, cut, or exchanged for another selection's.
    """
    for name in names:
        if digests.get(name, UNSEALED) not in (UNSEALED, file_digest(folder / name)):
            raise OutputError(
                f"The selection is damaged: {name} is not the file that {JSON_NAME} tells of",
                where=str(folder / name),
                fix="It was changed, cut or exchanged: restore it, or make the selection again.",
            )


def write_selection(
    folder: Path,
    overwrite: bool,
    write_rows: Callable[[Path], None] | None,
    write_more: Callable[[Path], None],
) -> Path:
    """Writes a selection's folder whole, or not at all.

    Args:
        folder: The folder.
        overwrite: Whether a selection that is there already may be replaced.
        write_rows: Writes the kept rows to a folder, as `Dataset.save_to_disk` does.
        write_more: Writes the scores, and what else there is, to a folder that is there.

    Raises:
        OutputError: The folder holds something, or cannot be written.
    """
    check_output(folder, overwrite)
    folder = folder.absolute()  # datasets would take a:/b for an address
    with whole_folder(folder, "The selection") as working:
        if write_rows is not None:
            write_rows(working / "part")
            for file in (working / "part").iterdir():
                file.rename(working / file.name)
            (working / "part").rmdir()
        write_more(working)
    return folder


def check_output(path: Path, overwrite: bool = False) -> None:
    """Refuses a folder that something would be lost in; to be called before the long run, too.

    Raises:
        OutputError: The folder holds another selection, or anything else.
    """
    check_name(path)
    recover(path)
    if not path.exists():
        check_place(path)
        return
    if path.resolve() == Path.cwd():  # a new folder takes the place of the old one
        raise OutputError("The current folder cannot be replaced", where=str(path), fix="Name a new folder.")
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.is_dir() and (path / JSON_NAME).is_file():
        if overwrite:
            return
        raise OutputError(
            "The folder holds another selection", where=str(path), fix="Choose another folder, or pass overwrite=True."
        )
    raise OutputError(
        "The folder is not empty, and what it holds is not a selection",
        where=str(path),
        fix="Choose a new or empty folder.",
    )


def check_table_file(path: str | os.PathLike[str]) -> Path:
    """Refuses a file whose ending no table is written by; to be called before the long run, too.

    Raises:
        OutputError: The ending is another.
    """
    place = Path(path)
    if place.suffix not in TABLE_WRITERS:
        raise OutputError(
            f"The file {place.name!r} cannot be written",
            where="output",
            fix=f"End its name in one of {', '.join(TABLE_WRITERS)}.",
        )
    return place


def check_place(path: Path) -> None:
    """Refuses a path in a folder that nothing can be written to.

    Raises:
        OutputError: It is one.
    """
    check_name(path)
    try:
        nearest = next(parent for parent in path.absolute().parents if parent.exists())
    except OSError as error:
        raise OutputError(f"{error.strerror}", where=str(path), fix="Choose another name.") from error
    if "::" in str(path.absolute()):
        raise OutputError("datasets takes :: apart", where=str(path), fix="Choose another name.")
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise OutputError(
            f"Nothing can be written to {nearest}", where=str(path), fix="Choose a folder that can be written to."
        )


def is_row_file(path: Path) -> bool:
    """Whether an output is one file: its name ends as files do, not in a number or a version, and is no folder's."""
    return bool(_ENDING.fullmatch(path.suffix)) and not path.is_dir()


def check_rows_output(path: Path, overwrite: bool = False) -> None:
    """Refuses a folder or a file, as its name has it, that something would be lost in, or that cannot be written.

    Raises:
        OutputError: As of `check_output` and `check_table_output`.
    """
    check_name(path)
    (check_table_output if is_row_file(path) else check_output)(path, overwrite)


def check_table_output(path: Path, overwrite: bool = False) -> None:
    """Refuses a file that something would be lost in, or that cannot be written; also to be called before a long run.

    Raises:
        OutputError: The ending is none that a table is written by, it is there, or its folder cannot be written to.
    """
    check_table_file(path)
    check_name(path)
    if path.is_dir() or (path.exists() and not overwrite):
        fix = "Choose another name." if path.is_dir() else "Choose another name, or pass overwrite=True."
        raise OutputError("The file already exists", where=str(path), fix=fix)
    check_place(path)
