"""A folder is one run's, and free again however that run ends."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from sage_hf.errors import OutputError
from sage_hf.utils.locks import only_run, writing

HOLD = """
import os, sys, time
from pathlib import Path
from sage_hf.utils.locks import only_run
with only_run(Path(sys.argv[1]), Path("the folder"), "Wait."):
    if "fork" in sys.argv and not os.fork():
        time.sleep(2)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def holder(lock, *words):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(lock), *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def hold(lock):
    return only_run(lock, lock.parent, "Wait until it ends.")


def test_a_second_run_is_refused_at_once_and_told_who_the_first_is(tmp_path):
    process = holder(tmp_path / "run" / ".lock")
    try:
        started = time.perf_counter()
        with pytest.raises(
            OutputError, match=f"Another run is using this folder: process {process.pid} on "
        ) as caught:
            hold(tmp_path / "run" / ".lock").__enter__()
        assert time.perf_counter() - started < 5
        assert caught.value.where == str(tmp_path / "run") and "Wait" in caught.value.fix
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("words", [(), ("fork",)], ids=["alone", "with a child that lives on"])
def test_a_killed_run_leaves_no_lock(tmp_path, words):
    lock = tmp_path / ".lock"
    process = holder(lock, *words)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with hold(lock):
        assert lock.read_text().split()[0] == str(os.getpid())
    assert not lock.exists()


def test_a_run_that_ends_or_fails_leaves_nothing(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), hold(tmp_path / ".lock"):
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []


def test_two_of_one_process_are_two(tmp_path):
    with hold(tmp_path / ".lock"), pytest.raises(OutputError, match="Another run"), hold(tmp_path / ".lock"):
        pass


def test_where_no_lock_can_be_made_it_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"Choose a folder|directory"), hold(tmp_path / "file" / ".lock"):
        pass


def test_writers_wait_for_each_other(tmp_path):
    seen = []

    def write(name):
        with writing(tmp_path / ".lock"):
            seen.append(name)
            time.sleep(0.1)
            seen.append(name)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 6 and all(seen[place] == seen[place + 1] for place in (0, 2, 4))
