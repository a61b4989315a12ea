"""Files and folders that are whole or not there."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError

from ..errors import OutputError

# A full disk, a full quota, and a file that is too large for either.
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_LOCKED = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))


@contextmanager
def whole_file(path: Path, fix: str) -> Iterator[Path]:
    """Gives a temporary name to write to; the file gets its name when it is on the disk, and not before.

    Args:
        path: The name in the end; what has it is replaced, and a link to it stays.
        fix: What to do where the disk is full.

    Raises:
        OutputError: It cannot be written; what had the name is still there.
    """
    check_name(path)
    path = _meant(path)
    part = path.with_name(f".{path.name}.{part_ending()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OutputError:
        raise
    except (OSError, SafetensorError) as error:  # which safetensors raises of a full disk
        raise OutputError(f"{error}", where=str(path), fix=way_out(error, fix)) from error
    finally:
        with suppress(OSError):  # the parent may be no folder
            part.unlink(missing_ok=True)


def check_name(path: Path, where: str | None = None) -> None:
    """Refuses a path that no file system takes: too long, also for the names that files have while they are written.

    Args:
        path: What a user named.
        where: The argument that it came by; the path itself by default.

    Raises:
        OutputError: It is one.
    """
    place = path.absolute()
    beside = [place.with_name(f".{place.name}.{part_ending()}")] if place.name else []
    for each in (place, *beside):
        try:
            os.lstat(each)
        except ValueError as error:  # a NUL, or half a surrogate pair
            what = f"No name can hold this: {error}"
            raise OutputError(what, where=where or str(path), fix="Choose another name.") from error
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                what = f"{error.strerror}: {path.name[:40]}..."
                raise OutputError(what, where=where or str(path), fix="Choose a shorter name.") from error


def part_ending() -> str:
    """How the name of a file ends while it is written: no other process's, on any machine, ends so."""
    return f"{os.getpid()}-{secrets.token_hex(4)}.part"


@contextmanager
def whole_folder(folder: Path, what: str) -> Iterator[Path]:
    """Gives a folder beside to write to, which takes the name at the end; until then what has it stays.

    Args:
        folder: The name in the end; a folder that has it is replaced, and a link to it stays.
        what: What is written, for the message: "The selection".

    Raises:
        OutputError: It cannot be written; what had the name is still there.
    """
    check_name(folder)
    folder = _meant(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        working = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise OutputError(f"{error}", where=str(folder), fix="Choose a folder that can be written to.") from error
    try:
        yield working
        working.chmod(0o755)
        _swap(working, folder)
    except OutputError:
        raise
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{what} could not be written: {error}",
            where=str(folder),
            fix=way_out(error, "Free some space, or choose another folder."),
        ) from error
    finally:
        shutil.rmtree(working, ignore_errors=True)


def way_out(error: Exception, if_full: str) -> str:
    """What to do about a file that could not be written; safetensors and Arrow give no number of what happened."""
    number = getattr(error, "errno", None)
    if number in _FULL or "No space left" in str(error):
        return if_full
    if number in _LOCKED:
        return "Choose a folder that can be written to."
    return "Mend what the message says, and start again; or choose another folder."


def _swap(working: Path, folder: Path) -> None:
    before = _before(folder)
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.replace(before)
    try:
        working.replace(folder)
    except OSError:
        recover(folder)
        raise
    shutil.rmtree(before, ignore_errors=True)


def recover(folder: Path) -> None:
    """Gives a folder its name back that a run was killed while it replaced."""
    folder = _meant(folder)
    before = _before(folder)
    if before.is_dir() and not folder.exists():
        with suppress(OSError):  # another process has done it, or it is for reading only
            before.replace(folder)


def _meant(path: Path) -> Path:
    """What a link leads to, be it there or not; any other path as it is."""
    return path.resolve() if path.is_symlink() else path


def _before(folder: Path) -> Path:
    place = folder.absolute()  # "." has no name
    return place.parent / f".{place.name}.before"


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
