"""One run a folder: a lock that goes with the process, however that ends."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import OutputError

# Seconds that a lock is waited for whose process is gone: workers that it started end a moment later.
_PATIENCE = 15.0


@contextmanager
def only_run(lock: Path, folder: Path, fix: str) -> Iterator[None]:
    """Holds a folder for this run, inside; the lock's file is deleted at the end.

    A process that is killed leaves no lock: the file that stays locks nothing.

    Args:
        lock: File to lock; its folder is made.
        folder: What the message names.
        fix: What to do when another run has it.

    Raises:
        OutputError: Another run has it, or nothing can be written there.
    """
    held = FileLock(lock)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        holder = _read(lock)
        try:
            held.acquire(timeout=0)
        except Timeout:
            if not _is_gone(holder):
                raise
            held.acquire(timeout=_PATIENCE)
    except Timeout:
        known = f": process {holder[0]} on {holder[1]}" if holder else ""
        raise OutputError(f"Another run is using this folder{known}", where=str(folder), fix=fix) from None
    except OSError as error:
        raise OutputError(f"{error}", where=str(folder), fix="Choose a folder that can be written to.") from error
    try:
        with suppress(OSError):  # a disk without room for a line
            lock.write_text(f"{os.getpid()} {platform.node()}\n", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):  # the folder may be gone; Windows deletes no open file
            lock.unlink(missing_ok=True)
        held.release()


@contextmanager
def writing(lock: Path, seconds: float = 60.0) -> Iterator[None]:
    """Waits for other processes that write the same files, and keeps them waiting inside.

    Raises:
        OSError: The file cannot be locked, or not in so many seconds.
    """
    with FileLock(lock).acquire(timeout=seconds):
        try:
            yield
        finally:
            with suppress(OSError):
                lock.unlink(missing_ok=True)


def _read(lock: Path) -> tuple[int, str] | None:
    """The process that has the lock, or had it last, and its machine; None where nothing tells."""
    try:
        number, _, node = lock.read_text(encoding="utf-8").strip().partition(" ")
        return int(number), node
    except (OSError, ValueError):
        return None


def _is_gone(holder: tuple[int, str] | None) -> bool:
    if holder is None or holder[1] != platform.node():
        return False
    import psutil

    return not psutil.pid_exists(holder[0])
