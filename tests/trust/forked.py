"""Processes that are forked from one which has imported everything: each starts at once, and may be killed.

Run in a script of its own, whose torch has one thread and no process group yet.
"""

import atexit
import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path


class Child:
    """A forked process; what its work gives, as JSON, and what it says are in files."""

    def __init__(self, work, place, **environment):
        place.mkdir(parents=True, exist_ok=True)
        self.place, self._code = place, None
        for name in ("result.json", "says.txt"):
            (place / name).unlink(missing_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._run(work, environment)

    def _run(self, work, environment):
        os.setpgrp()
        says = os.open(self.place / "says.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(says, 1)
        os.dup2(says, 2)
        os.environ.update({name: str(value) for name, value in environment.items()})
        code = 1
        try:
            result = work()
            (self.place / "result.json").write_text(json.dumps(result))
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        atexit._run_exitfuncs()
        os._exit(code)

    def code(self, within=120.0):
        """The exit code, minus the signal where one ended it; None if it has not ended within so many seconds."""
        end = time.monotonic() + within
        while self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                return None
            else:
                time.sleep(0.005)
        return self._code

    def signal(self, number):
        if self._code is None:
            os.kill(self.pid, number)

    def kill(self):
        """The process and those that it has made."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.signal(signal.SIGKILL)
        self.code()

    @property
    def says(self):
        return (self.place / "says.txt").read_text(errors="replace")

    @property
    def result(self):
        file = self.place / "result.json"
        return json.loads(file.read_text()) if file.exists() else None


def launch(work, count, place, **environment):
    """As many processes of one launch, without a launcher: each has its number in its environment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    shared = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **environment}
    if count == 1:
        return [Child(work, place / "0", **environment)]
    return [Child(work, place / str(rank), RANK=rank, LOCAL_RANK=rank, **shared) for rank in range(count)]


def finish(children, within=120.0):
    """Waits for all, and gives what they gave; an error with what they said where one did not."""
    codes = [child.code(within) for child in children]
    for child in children:
        child.kill()
    assert codes == [0] * len(children), "\n".join([str(codes), *(child.says[-3000:] for child in children)])
    return [child.result for child in children]


def script(path, place, *arguments, timeout=1500):
    """What a script of such processes writes to `PLACE/report.json`."""
    from ..processes.launch import launch as run

    place.mkdir(parents=True, exist_ok=True)
    done = run(Path(path), 1, place, *arguments, timeout=timeout)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((place / "report.json").read_text())
