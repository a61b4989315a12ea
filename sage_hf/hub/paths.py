"""Files that a user names for rows and for lists of label issues, looked at before anything slow is done."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DatasetError, OutputError
from ..utils.files import check_name
from .files import TABLE_WRITERS, check_place, check_table_output, is_row_file


def check_new_rows(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Refuses a file as `check_table_output` does, or a folder that is not empty; one of `save_to_disk` is replaced.

    Raises:
        OutputError: The ending is that of a file which is not written, something is there that would be lost, or
            nothing can be written there.
    """
    place = Path(path)
    check_name(place)
    if is_row_file(place):
        check_table_output(place, overwrite)
        return place
    if place.exists() and place.resolve() == Path.cwd():
        raise OutputError("The current folder cannot be replaced", where=str(place), fix="Name a new folder.")
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        is_saved = (place / "dataset_info.json").is_file()
        if not (is_saved and overwrite):
            fix = "Choose another folder, or pass overwrite=True." if is_saved else "Choose a new or empty folder."
            raise OutputError("The folder is not empty", where=str(place), fix=fix)
    check_place(place)
    return place


def check_list_file(path: str | os.PathLike[str]) -> Path:
    """Refuses a list of label issues that is not there, or whose ending no list is read by.

    Raises:
        DatasetError: It is one of these.
    """
    place = Path(path).expanduser()
    if place.suffix.lower() not in TABLE_WRITERS:
        raise DatasetError(
            f"A list of label issues cannot be a {place.suffix} file"
            if place.suffix
            else "The name of the list has no ending",
            where=str(path),
            fix=f"Save it as one of {', '.join(TABLE_WRITERS)}.",
        )
    check_name(place)
    if not place.is_file():
        raise DatasetError("There is no such file", where=str(path), fix="Check the path of the list.")
    return place
