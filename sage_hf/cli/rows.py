"""The rows that the shell names: a file, a folder, or a dataset on the Hub.

`datasets` takes the names of data files as glob patterns, in which `a[x]` means `ax`. Here every path means itself.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, IterableDataset, load_dataset, load_from_disk
from datasets.config import HF_DATASETS_CACHE
from datasets.data_files import DataFilesDict, get_data_patterns, sanitize_patterns
from datasets.naming import camelcase_to_snakecase
from datasets.packaged_modules import _ALL_ALLOWED_EXTENSIONS
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from ..errors import DatasetError, SageError
from ..hub.checks import first_line
from ..hub.reach import check_reachable, obstacle
from .paths import FORMATS, PACKED, builder_of, check_local

# What datasets says of a file that holds no rows, such as a csv of a header alone.
_NO_ROWS = "corresponds to no data"
# What it says of a split that is not there, and of a stream's.
_NO_SPLIT = re.compile(
    r"(?:Unknown split \".*\"\. Should be one of|Bad split: .*\. Available splits:) (?P<known>\[.*\])"
    r"|Unrecognized instruction format"
)


def load_rows(
    path: str,
    split: str = "train",
    config_name: str | None = None,
    streaming: bool = False,
    revision: str | None = None,
    *,
    split_option: str = "--split",
) -> Dataset | IterableDataset:
    """A dataset from a json, csv or parquet file, packed or not, a folder of `save_to_disk` or of data, or the Hub.

    Arguments are those of the shell; `split_option` is the option that the split comes from.

    Raises:
        DatasetError: It is not there, is empty, cannot be read, or has no such split or revision.
    """
    with _reading(path, split, split_option):
        local = check_local(path)
        if local is not None and revision is not None:
            raise DatasetError("A file or folder has no revisions", where="--dataset-revision", fix="Leave it out.")
        if local is not None and _is_saved(local):
            rows = load_from_disk(str(local))
            if isinstance(rows, DatasetDict):
                if split not in rows:
                    raise _no_split(split, str(list(rows)), path, split_option)
                rows = rows[split]
            if streaming:
                rows = rows.to_iterable_dataset()
        else:
            if local is None and not _is_cached(path):
                check_reachable(path)
            source = _source(local, path, config_name)
            rows = load_dataset(**source, split=split, streaming=streaming, revision=revision)
        # A stream's first row is read now, with the path at hand, and not only when it is needed.
        if not (len(rows) if isinstance(rows, Dataset) else sum(1 for _ in rows.take(1))):
            raise DatasetError("The dataset has no rows", where=path, fix="Check how it was written, and the split.")
        return rows


def split_of(path: str, split: str) -> str:
    """The split to read where only other rows have the one that was named: of a file the one that it has."""
    return "train" if Path(path).expanduser().is_file() else split


def load_other_splits(path: str, split: str, config_name: str | None = None) -> dict[str, Dataset]:
    """The splits of a dataset besides one; none of a file.

    Raises:
        DatasetError: It is not there or cannot be read.
    """
    with _reading(path, split):
        local = check_local(path)
        if local is not None and local.is_file():
            return {}
        is_saved = local is not None and _is_saved(local)
        splits = load_from_disk(str(local)) if is_saved else load_dataset(**_source(local, path, config_name))
    return {} if isinstance(splits, Dataset) else {str(name): rows for name, rows in splits.items() if name != split}


@contextmanager
def _reading(path: str, split: str, split_option: str = "--split") -> Iterator[None]:
    """Turns what datasets says into one of our errors."""
    try:
        yield
    except SageError:
        raise
    except Exception as error:  # readers of files raise anything
        if _NO_ROWS in str(error):
            raise DatasetError("The dataset has no rows", where=path, fix="Check how it was written.") from error
        if found := _NO_SPLIT.search(str(error)):
            raise _no_split(split, found["known"], path, split_option) from error
        in_the_way = obstacle(error, path)
        if in_the_way is not None:
            raise DatasetError(in_the_way.what, where=path, fix=in_the_way.fix) from error
        raise DatasetError(
            f"The dataset cannot be loaded: {first_line(error.__cause__ or error)}",
            where=path,
            fix="Check the path or Hub id, --split, --dataset-config and --dataset-revision.",
        ) from error


def _no_split(split: str, splits: str | None, path: str, option: str) -> DatasetError:
    """The error of a split that is not there, as an option names it."""
    if Path(path).expanduser().is_file():
        fix = "A file has one split, train: leave the option out."
    else:
        fix = f"Use one of {splits}." if splits else "Give the name of a split, such as train, or a part: train[:100]."
    return DatasetError(f"There is no split {split!r} in {path}", where=option, fix=fix)


def _is_cached(name: str) -> bool:
    """Whether datasets has made a dataset of the Hub before, whose folder has its name at the end."""
    own = camelcase_to_snakecase(name.split("/")[-1])
    return any(Path(HF_DATASETS_CACHE).glob(f"*{glob.escape(own)}"))


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file()


def _source(local: Path | None, path: str, config_name: str | None) -> dict[str, Any]:
    """What `load_dataset` is to be given for a file, a folder of data files, or a repository on the Hub."""
    if local is None:
        return {"path": path, "name": config_name}
    if local.is_file():
        separator = {"sep": "\t"} if ".tsv" in local.suffixes else {}
        return {"path": _checked_builder(local), "data_files": glob.escape(str(local)), **separator}
    return {"path": str(local), "name": config_name, "data_files": _folder_files(local, config_name)}


def _checked_builder(file: Path) -> str:
    """The same of a file that is there, checked."""
    if file.stat().st_size == 0:
        raise DatasetError("The file is empty", where=str(file), fix="Check how it was written.")
    builder = builder_of(file)
    if builder is None:
        raise DatasetError(
            f"Files that end in {''.join(file.suffixes[-2:])!r} cannot be read",
            where=str(file),
            fix=f"Use one of {', '.join(FORMATS)} (also packed: {', '.join(PACKED)}), a save_to_disk folder, "
            "or a Hub id.",
        )
    if file.suffix.lower() in PACKED and {*"[]"} & {*file.name}:
        raise DatasetError(
            "datasets cannot unpack a file with brackets in its name", where=str(file), fix="Rename it, or unpack it."
        )
    return builder


def _folder_files(folder: Path, config_name: str | None) -> DataFilesDict | None:
    """The data files of a folder by split, found as datasets finds them; None where datasets can do so itself."""
    base = str(folder.resolve())
    if not glob.has_magic(base):
        return None
    base = glob.escape(base)
    patterns = _readme_patterns(folder, config_name) or get_data_patterns(base)
    return DataFilesDict.from_patterns(patterns, base_path=base, allowed_extensions=_ALL_ALLOWED_EXTENSIONS)


def _readme_patterns(folder: Path, config_name: str | None) -> dict[str, list[str]] | None:
    """The patterns of data files that a folder's README gives, relative to the folder."""
    card = folder / "README.md"
    if not card.is_file() or not (configs := MetadataConfigs.from_dataset_card_data(DatasetCard.load(card).data)):
        return None
    name = config_name or configs.get_default_config_name() or next(iter(configs))
    if name not in configs:
        raise DatasetError(
            f"There is no configuration {name!r}", where=str(folder), fix=f"Use one of {', '.join(configs)}."
        )
    files = configs[name].get("data_files")
    return None if files is None else sanitize_patterns(files)
