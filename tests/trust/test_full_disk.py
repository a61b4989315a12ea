"""A disk that is full at every file that is written, one for reading only, and calls that fail: an error or a warning.

On a small file system of its own, filled to so many free kB; and by letting the k-th call of the operating system
fail that opens, makes or renames something.
"""

import errno
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from sage_hf import SageConfig, SageError, Selection, StreamSelection, warm_up
from sage_hf.comparison.folder import RunFolder
from sage_hf.comparison.runs import Run
from sage_hf.explorer.marks import Mark, write_marks
from sage_hf.hub.row_files import write_rows
from sage_hf.selector.cleaned_output import save_cleaned
from sage_hf.selector.cleaning import Cleaned

from ..cases import image_rows, vit
from ..comparison.test_result import USUAL, made
from .files import equal, select
from .scale import cases, some, tried

ROWS = image_rows(44)
# Free kB.
SIZES = [*range(0, 64, 4), *range(64, 512, 32)]
RUN = Run("auto", 0.1, 0, 5, {"accuracy": 0.5})


# ------------------------------------------------------------------------ what writes files
class Whole:
    """Results without a fault, and selections to save."""

    def __init__(self):
        self.exact = select(consensus="exact")
        self.auto = select(strategy="auto")
        self.plain = select()
        self.old = select(strategy="coverage", gate=None, fraction=0.5)
        self.new = select(strategy="coverage", gate=None)
        self.stream = select(ROWS.to_iterable_dataset())
        model = vit()
        warm_up(model, ROWS, steps=2, config=SageConfig(fraction=0.5))
        self.weights = list(model.state_dict().values())


@pytest.fixture(scope="module")
def whole():
    return Whole()


def resumed(disk, whole):
    assert equal(select(resume_dir=disk / "run", consensus="exact"), whole.exact)


def resumed_stream(disk, whole):
    assert equal(select(ROWS.to_iterable_dataset(), resume_dir=disk / "run"), whole.stream)


def spilled(disk, whole):
    assert equal(select(resume_dir=disk / "run", strategy="auto"), whole.auto)


def cached(disk, whole):
    assert equal(select(cache_dir=disk / "cache", cache_gradients="float16"), whole.plain)


def warmed(disk, whole):
    model = vit()
    warm_up(model, ROWS, steps=2, config=SageConfig(fraction=0.5), cache_dir=disk / "warm")
    assert all(map(torch.equal, model.state_dict().values(), whole.weights))


def saved(disk, whole):
    """The earlier selection is there until the new one is."""
    folder = disk / "kept"
    try:
        whole.new.save_to_disk(folder, overwrite=True)
    except SageError:
        if folder.exists() or (disk / ".kept.before").exists():
            there = Selection.load_from_disk(folder)
            assert equal(there, whole.old) or equal(there, whole.new)
        raise
    assert equal(Selection.load_from_disk(folder), whole.new)


def saved_stream(disk, whole):
    whole.stream.save_to_disk(disk / "stream", overwrite=True)
    assert equal(StreamSelection.load_from_disk(disk / "stream"), whole.stream)


def compared(disk, whole):
    opened = RunFolder(disk / "compare", {"lr": 1})
    try:
        opened.write_rows({("auto", 0.1, 0): np.arange(500)})
        opened.add(RUN)
        made(USUAL).save(disk / "compare")
    finally:
        opened.close()
    again = RunFolder(disk / "compare", {"lr": 1})
    assert list(again.runs.values()) == [RUN] and len(again.read_rows()) == 1
    again.close()


def tables(disk, whole):
    labels = ROWS.select_columns("label")
    for ending in ("csv", "jsonl", "parquet"):
        write_rows(labels, disk / f"rows.{ending}", overwrite=True)
    write_marks([Mark(3, 0.5, "class 0", "class 1", "drop")], disk / "marks.csv")
    save_cleaned(Cleaned(ROWS, ROWS, "label", 0, 0, Counter(), Counter()), disk / "clean", overwrite=True)


WRITERS = [resumed, resumed_stream, spilled, cached, warmed, saved, saved_stream, compared, tables]


def begin(disk, whole, writer):
    for each in disk.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    if writer is saved:
        whole.old.save_to_disk(disk / "kept")


def attempt(writer, disk, whole):
    """Runs it; whether it said what failed, in an error that names a fix."""
    error = None
    try:
        writer(disk, whole)
    except SageError as caught:
        error = caught
    assert error is None or (error.fix and error.where)
    return error is not None


def goes_on(writer, disk, whole, caplog):
    """With room again, the same call ends as if nothing had been, and finds nothing half written."""
    caplog.clear()
    writer(disk, whole)
    assert not [line for line in caplog.messages if "damaged" in line]
    assert not [path for path in disk.rglob("*") if path.name.endswith((".before", ".part"))]


# --------------------------------------------------------------------- a small file system
MEGABYTES = 4


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or shutil.which("mount") is None:
        pytest.skip("needs Linux's mount")
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def filled(disk, kilobytes):
    """Inside, so many kB are free."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(disk).free - 1024 * kilobytes)))
    try:
        yield
    finally:
        ballast.unlink()


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_a_disk_with_so_many_kilobytes_left(disk, whole, caplog, writer):
    sizes = SIZES if cases(0, 1) else [4, 40]
    failed = 0
    for free in sizes:
        tried()
        begin(disk, whole, writer)
        with filled(disk, free):
            failed += attempt(writer, disk, whole)
        goes_on(writer, disk, whole, caplog)
    assert failed or writer in (warmed, spilled)


@pytest.mark.parametrize("strategy", ["agreement", "coverage"])
def test_a_temporary_disk_with_so_many_kilobytes_left(disk, whole, monkeypatch, strategy):
    wanted = select(strategy=strategy, gate=None)
    for free in SIZES if cases(0, 1) else [4, 40]:
        tried()
        begin(disk, whole, None)
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with filled(disk, free):
            attempt(lambda *_: _same(select(strategy=strategy, gate=None), wanted), disk, whole)
        monkeypatch.undo()
        assert list(disk.iterdir()) == []


def _same(one, other):
    assert equal(one, other)


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_a_disk_for_reading_only(disk, whole, caplog, writer):
    for is_there in (False, True):
        tried()
        begin(disk, whole, writer)
        if is_there:  # what a run has written is read again, and all else refused
            writer(disk, whole)
        gc.collect()  # no file may be open for writing
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        try:
            attempt(writer, disk, whole)
            if writer is saved:
                assert len(Selection.load_from_disk(disk / "kept"))
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        goes_on(writer, disk, whole, caplog)


# ------------------------------------------------------------------------- calls that fail
FAILING = {"folder": None, "at": 0, "count": 0, "kind": errno.ENOSPC}


def hook(event, arguments):
    """Raises at a call, as the operating system would; it stays for the life of the process, and does nothing then."""
    if FAILING["folder"] is None or event not in ("open", "os.mkdir", "os.rename"):
        return
    path, is_write = arguments[0], event != "open"
    if event == "open":
        flags = arguments[2] or 0
        is_write = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if not is_write or not isinstance(path, (str, bytes, os.PathLike)):
        return
    if not os.fsdecode(path).startswith(FAILING["folder"]):
        return
    FAILING["count"] += 1
    if FAILING["count"] == FAILING["at"]:
        raise OSError(FAILING["kind"], os.strerror(FAILING["kind"]), os.fsdecode(path))


@pytest.fixture(scope="module", autouse=True)
def _hooked():
    sys.addaudithook(hook)
    yield
    FAILING["folder"] = None


@pytest.mark.parametrize("kind", some([errno.ENOSPC, errno.EACCES, errno.EROFS], 1), ids=os.strerror)
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_the_kth_call_that_writes_fails(tmp_path, whole, caplog, writer, kind):
    begin(tmp_path, whole, writer)
    FAILING.update(folder=str(tmp_path), at=0, count=0, kind=kind)
    writer(tmp_path, whole)
    calls = FAILING["count"]
    FAILING["folder"] = None
    assert calls
    for at in some(range(1, calls + 1), cases(2, 20)):
        tried()
        begin(tmp_path, whole, writer)
        FAILING.update(folder=str(tmp_path), at=at, count=0)
        try:
            attempt(writer, tmp_path, whole)
        finally:
            FAILING["folder"] = None
        goes_on(writer, tmp_path, whole, caplog)
