"""Paths that the shell is given, looked at before anything slow is imported."""

from __future__ import annotations

import glob
from difflib import get_close_matches
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..errors import ConfigError, DatasetError

# Endings of a file and the builder of `datasets` that reads it.
FORMATS = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
# Endings after these, of which datasets unpacks the file.
PACKED = (".gz", ".bz2", ".xz", ".zst")


def check_local(path: str) -> Path | None:
    """The file or folder that a path names, absolute; None where it is the id of a repository on the Hub.

    Raises:
        DatasetError: It is neither, or datasets could not read it.
    """
    local = Path(path).expanduser()
    if local.exists():
        if "::" in str(local.absolute()):
            raise DatasetError(
                "datasets reads :: in a path as a file inside another", where=path, fix="Rename the file or folder."
            )
        return local.absolute()
    if meant := meant_by(path):
        raise DatasetError("There is no such file or folder", where=path, fix=meant)
    try:
        validate_repo_id(path)
        is_repository = builder_of(local) is None and not path.startswith(".")
    except HFValidationError:
        is_repository = False
    if is_repository:
        return None
    is_pattern = glob.has_magic(path) and glob.glob(path)
    raise DatasetError(
        "There is no such file or folder",
        where=path,
        fix="Name the folder that holds the files: patterns are not read." if is_pattern else "Check the path.",
    )


def meant_by(path: str) -> str:
    """A question after the name that is meant, where a path is not there and its folder holds a like name; else empty.

    `models/bret` beside `models/bert` is no repository on the Hub.
    """
    place = Path(path).expanduser()
    if glob.has_magic(path) or place.parent == Path() or not place.parent.is_dir():
        return ""
    close = get_close_matches(place.name, [each.name for each in place.parent.iterdir()], 1)
    return f"Did you mean {place.parent / close[0]}?" if close else ""


def check_folder(path: str) -> None:
    """Refuses a model that is neither a folder nor may be the id of a repository on the Hub.

    Raises:
        ConfigError: There is no such folder.
    """
    if Path(path).is_file():
        raise ConfigError("The model is a file", where=path, fix="Name the folder that holds it.")
    if Path(path).exists():
        return
    if meant := meant_by(path):
        raise ConfigError("There is no such folder", where=path, fix=meant)
    try:
        validate_repo_id(path)
    except HFValidationError:
        pass
    else:
        if not path.startswith("."):
            return
    raise ConfigError("There is no such folder", where=path, fix="Check the path, or name a model on the Hub.")


def builder_of(file: Path) -> str | None:
    """The builder of `datasets` for a file, by its ending; of a zip, by the files in it. None where there is none."""
    endings = [ending.lower() for ending in file.suffixes]
    if endings and endings[-1] in PACKED:
        endings.pop()
    if endings[-1:] == [".zip"] and file.is_file():
        try:
            names = ZipFile(file).namelist()
        except BadZipFile:
            return None
        builders = {FORMATS[ending] for name in names if (ending := Path(name).suffix.lower()) in FORMATS}
        return builders.pop() if len(builders) == 1 else None
    return FORMATS.get(endings[-1]) if endings else None
