"""What files of rows cannot hold, and what must not get into them, told by column and row."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Audio, Dataset, Features, Image, Translation, TranslationVariableLanguages
from datasets.features.features import require_decoding

from ..errors import DatasetError

# How files of sounds and films begin, and what else a column of files may be of.
_SOUND = re.compile(
    rb"RIFF|fLaC|OggS|ID3|FORM|\.snd|caff|wvpk|#!AMR|\xff[\xe2-\xff]|.{4}ftyp|\x1aE\xdf\xa3", re.DOTALL
)
_FILM = re.compile(
    rb"RIFF|OggS|FLV|G.{187}G|0&\xb2u|.{4}(?:ftyp|moov|mdat|wide)|\x1aE\xdf\xa3|\x00\x00\x01[\xb3\xba]", re.DOTALL
)
_PAGES = re.compile(rb".{0,1019}%PDF-", re.DOTALL)
_SCAN = re.compile(rb"\x1f\x8b|\x5c\x01\x00\x00|\x00\x00\x01\x5c|\x1c\x02\x00\x00|\x00\x00\x02\x1c")
_BEGINNINGS = {"Audio": _SOUND, "Video": _FILM, "Pdf": _PAGES, "Nifti": _SCAN}
_HEAD = 1024
_BLOCK = 256


def check_parquet(features: Features, where: str) -> None:
    """Refuses columns of types that parquet, and so the Hub, cannot hold.

    Args:
        features: Of all columns.
        where: What they are of.

    Raises:
        DatasetError: Names the first.
    """
    for column in features.arrow_schema:
        try:
            schema = pa.schema([column])
            with pq.ParquetWriter(io.BytesIO(), schema) as writer:
                writer.write_table(schema.empty_table())
        except (pa.ArrowException, NotImplementedError) as error:
            raise DatasetError(
                f"Parquet cannot hold the type of a column: {str(error).splitlines()[0].rstrip('.')}",
                where=f"column {column.name!r} of {where}",
                fix="Remove the column, or cast it to another type.",
            ) from error


def check_files(rows: Dataset) -> None:
    """Refuses rows that name files which are none of the column's kind.

    Whoever made a dataset wrote the paths in it. Where rows are written or pushed, the bytes of these files go along:
    a path to a key of this machine would publish it.

    Raises:
        DatasetError: Names the column, the first such row and the path.
    """
    for name, feature in rows.features.items():
        if (kinds := _kinds(feature)) is None:
            continue
        stored = rows.select_columns(name).with_format("arrow")
        row = 0
        for block in stored.iter(_BLOCK):
            for value in block[name].to_pylist():
                for path, is_one in _paths(value, kinds):
                    _check_file(path, is_one, f"column {name!r}, row {row}")
                row += 1


def check_saved(features: Features) -> None:
    """Refuses decoded columns beside translations: datasets 5.2 fails to measure them, and so to save or push them.

    Raises:
        DatasetError: Names the column.
    """
    kinds = (Translation, TranslationVariableLanguages)
    named = [name for name, feature in features.items() if isinstance(feature, kinds)]
    if named and any(require_decoding(each, ignore_decode_attribute=True) for each in features.values()):
        raise DatasetError(
            "datasets cannot save translations beside images, sounds, JSON or other columns that are decoded",
            where=f"column {named[0]!r}",
            fix="Cast the column to a dictionary of texts, or write a file.",
        )


def save_checked(rows: Dataset, folder: Path) -> None:
    """`Dataset.save_to_disk`, of rows that can be saved and whose files are of their columns' kinds.

    Raises:
        DatasetError: They are not.
    """
    check_saved(rows.features)
    check_files(rows)
    rows.save_to_disk(str(folder))


def _kinds(feature: Any) -> Any:
    """Of a feature, what tells a file of its kind, in the place of each column of files; None where there is none."""
    if isinstance(feature, Image):
        return _is_image
    if isinstance(feature, Audio) or type(feature).__name__ in _BEGINNINGS:
        beginning = _BEGINNINGS[type(feature).__name__]
        return lambda path: beginning.match(_head(path)) is not None
    if isinstance(feature, dict):
        parts = {name: kinds for name, part in feature.items() if (kinds := _kinds(part)) is not None}
        return parts or None
    inner = getattr(feature, "feature", None)
    kinds = None if inner is None else _kinds(inner)
    return None if kinds is None else [kinds]


def _paths(value: Any, kinds: Any) -> Iterator[tuple[str, Callable[[str], bool]]]:
    """Files that a stored value names without holding their bytes, each with what tells its kind."""
    if value is None:
        return
    if callable(kinds):
        if isinstance(value, dict) and value.get("path") and value.get("bytes") is None:
            yield value["path"], kinds
    elif isinstance(kinds, dict):
        for name, inner in kinds.items():
            yield from _paths(value.get(name), inner)
    else:
        for each in value:
            yield from _paths(each, kinds[0])


def _check_file(path: str, is_one: Callable[[str], bool], where: str) -> None:
    if "://" in path or "::" in path:  # an address, which datasets reads
        return
    try:
        if not Path(path).is_file():
            raise DatasetError(f"There is no file {path!r}", where=where, fix="Restore it, or leave the row out.")
        is_right = is_one(path)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path!r} cannot be read: {error}", where=where, fix="Leave the row out.") from error
    if not is_right:
        raise DatasetError(
            f"{path!r} is no file of the column's kind, and would be copied into the result",
            where=where,
            fix="Leave the row out, and ask where the dataset is from.",
        )


def _is_image(path: str) -> bool:
    from PIL import Image as Picture
    from PIL import UnidentifiedImageError

    try:
        with Picture.open(path):
            return True
    except (UnidentifiedImageError, SyntaxError, Picture.DecompressionBombError):
        return False


def _head(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(_HEAD)
