"""Files that are whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import OutputError


@contextmanager
def whole_file(path: Path, fix: str) -> Iterator[Path]:
    """Gives a temporary name to write to; the file gets its name when it is on the disk, and not before.

    Args:
        path: The name in the end; what has it is replaced.
        fix: What to do where the disk is full.

    Raises:
        OutputError: It cannot be written; what had the name is still there.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise OutputError(f"{error}", where=str(path), fix=fix) from error
    finally:
        with suppress(OSError):  # the parent may be no folder
            part.unlink(missing_ok=True)


def mapped(path: Path, mode: Literal["r", "r+"] = "r") -> npt.NDArray[Any]:
    """An array of a .npy file, which stays on the disk.

    Raises:
        OSError: The file cannot be read.
        ValueError: It holds no array, or less than it says.
    """
    try:
        return np.load(path, mmap_mode=mode)
    except (OSError, ValueError):
        raise
    except Exception as error:  # NumPy reads the header as Python's tokens, which raise anything
        raise ValueError(f"it is no array: {str(error) or type(error).__name__}") from error


def reserve(descriptor: int, size: int) -> None:
    """Takes the disk that a file will need: a full one would end the process where a mapped file is written to.

    Raises:
        OSError: The disk has less room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)


def free_disk(place: Path) -> int:
    """Free bytes where a folder is, or will be."""
    there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free
