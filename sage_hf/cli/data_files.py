"""What a path of a dataset names: this one file, the files of this one folder, or a repository on the Hub.

`datasets` takes the names of data files as glob patterns, in which `a[x]` means `ax`. Here every path means itself.
"""

from __future__ import annotations

import glob
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from datasets.data_files import DataFilesDict, get_data_patterns, sanitize_patterns
from datasets.packaged_modules import _ALL_ALLOWED_EXTENSIONS
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..errors import DatasetError

# Endings of a file and the builder of `datasets` that reads it.
FORMATS = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
# Endings after these, of which datasets unpacks the file.
_PACKED = (".gz", ".bz2", ".xz", ".zst")


def find_local(path: str) -> Path | None:
    """The file or folder that a path names, absolute; None where it is the id of a repository on the Hub.

    Raises:
        DatasetError: It can be neither, or datasets could not read it by its name.
    """
    local = Path(path).expanduser()
    if local.exists():
        if "::" in str(local.absolute()):
            raise DatasetError(
                "datasets reads :: in a path as a file inside another", where=path, fix="Rename the file or folder."
            )
        return local.absolute()
    try:
        validate_repo_id(path)
        is_repository = file_format(local) is None and not path.startswith(".")
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


def file_format(file: Path) -> str | None:
    """The builder of `datasets` for a file, by its ending; of a zip, by the files in it. None where there is none."""
    endings = [ending.lower() for ending in file.suffixes]
    if endings and endings[-1] in _PACKED:
        endings.pop()
    if endings[-1:] == [".zip"] and file.is_file():
        try:
            names = ZipFile(file).namelist()
        except BadZipFile:
            return None
        found = {FORMATS[ending] for name in names if (ending := Path(name).suffix.lower()) in FORMATS}
        return found.pop() if len(found) == 1 else None
    return FORMATS.get(endings[-1]) if endings else None


def check_file(file: Path) -> str:
    """The builder of `datasets` for a file.

    Raises:
        DatasetError: The file is empty, of a kind that is not read, or cannot be unpacked under its name.
    """
    if file.stat().st_size == 0:
        raise DatasetError("The file is empty", where=str(file), fix="Check how it was written.")
    builder = file_format(file)
    if builder is None:
        raise DatasetError(
            f"Files that end in {''.join(file.suffixes[-2:])!r} cannot be read",
            where=str(file),
            fix=f"Use one of {', '.join(FORMATS)} (also packed: {', '.join(_PACKED)}), a save_to_disk folder, "
            "or a Hub id.",
        )
    if file.suffix.lower() in _PACKED and {*"[]"} & {*file.name}:
        raise DatasetError(
            "datasets cannot unpack a file with brackets in its name", where=str(file), fix="Rename it, or unpack it."
        )
    return builder


def exactly(file: Path) -> str:
    """The pattern that matches a file and no other."""
    return glob.escape(str(file))


def folder_files(folder: Path, name: str | None) -> DataFilesDict | None:
    """The data files of a folder by split, found as datasets finds them; None where datasets can do so itself.

    Args:
        folder: Absolute.
        name: The configuration, where its README names several.

    Raises:
        DatasetError: Its README names no such configuration.
        FileNotFoundError: It holds no data files.
    """
    base = str(folder.resolve())
    if not glob.has_magic(base):
        return None
    base = glob.escape(base)
    patterns = _own_patterns(folder, name) or get_data_patterns(base)
    return DataFilesDict.from_patterns(patterns, base_path=base, allowed_extensions=_ALL_ALLOWED_EXTENSIONS)


def _own_patterns(folder: Path, name: str | None) -> dict[str, list[str]] | None:
    """The patterns of data files that a folder's README gives, relative to the folder."""
    card = folder / "README.md"
    if not card.is_file() or not (configs := MetadataConfigs.from_dataset_card_data(DatasetCard.load(card).data)):
        return None
    name = name or configs.get_default_config_name() or next(iter(configs))
    if name not in configs:
        raise DatasetError(
            f"There is no configuration {name!r}", where=str(folder), fix=f"Use one of {', '.join(configs)}."
        )
    files = configs[name].get("data_files")
    return None if files is None else sanitize_patterns(files)
