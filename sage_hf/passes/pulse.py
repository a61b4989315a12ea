"""How processes know of each other that they live, so that none waits for ever for one that has ended or hangs.

Before they exchange anything, all tell that they are there, in the store that the process group was made with. One
that is slow is waited for however long it takes: its pulse, which a thread writes, tells whether it works. A batch
done is work, and so is a processor's time. One that does not work for as long as the process group's timeout hangs:
30 minutes with gloo and 10 with NCCL, by torch's defaults; `InitProcessGroupKwargs(timeout=...)` sets another.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import psutil
import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from ..errors import SageError

logger = logging.getLogger(__name__)

# Seconds between two beats; and without one, until a process that its machine does not know any more has ended.
BEAT, ENDED = 1.0, 3.0
# Share of a processor that counts as work: the thread of the pulse itself takes a tenth of it.
_WORK = 0.005
# Seconds between two questions whether all are there, at first and at most.
_PAUSES = (0.0005, 0.05)
_TIMEOUT = timedelta(minutes=30)
_FIX = "What is finished is kept where there is a folder for it: run the same again."


@dataclass
class _Pulse:
    """What another process shows.

    Attributes:
        beats: Number of beats.
        work: Number of beats before which it had worked.
        silent: Seconds without a beat, as far as this process was awake.
        idle: Seconds without work.
    """

    beats: int = 0
    work: int = 0
    silent: float = 0.0
    idle: float = 0.0


class _Place(NamedTuple):
    """Where a process is: its number on a machine."""

    pid: int
    host: str

    @classmethod
    def here(cls) -> _Place:
        """This one's."""
        return cls(os.getpid(), socket.gethostname())

    def is_gone(self) -> bool:
        """Whether its machine, where that is this one, does not know it any more."""
        if self.host != socket.gethostname():
            return False
        try:
            return bool(psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True


class _Watch(threading.Thread):
    """All that is done with the store, in a thread: a store that is frozen, or ends, stops no one else.

    Between meetings it writes this process's pulse; in one it looks at those of who is missing.

    Attributes:
        rank: This process's number.
        count: Number of processes.
        work: Counts what this process has done; whoever does something adds to it.
        timeout: Seconds without work after which a process hangs.
        places: Where the processes are, as far as it is known.
        asked: Questions: what this process is at, once a meeting.
        answers: A meeting's: None when all are there, or what was wrong.
        steps: Counts what the store has answered.
    """

    def __init__(self) -> None:
        super().__init__(name="sage_hf pulse", daemon=True)
        self.group = dist.group.WORLD
        self.rank, self.count, self.work = dist.get_rank(), dist.get_world_size(), 0
        self.timeout = _timeout().total_seconds()
        self.places: dict[int, _Place] = {}
        self.asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self.steps = 0
        self._store = dist.PrefixStore("sage_hf", distributed_c10d._get_default_store())
        self._meeting = 0
        self._is_over = False

    def run(self) -> None:
        """Until the process group is taken down, or the process ends."""
        beats, work, used, seen = 0, 0, 0.0, -1
        is_told = False
        while not self._is_over and dist.is_initialized() and dist.group.WORLD is self.group:
            try:
                if not is_told:
                    self._store.set(f"place/{self.rank}", json.dumps(_Place.here()))
                    is_told = True
                now, beats = time.process_time(), beats + 1
                if now - used > _WORK * BEAT or self.work != seen:
                    work += 1
                used, seen = now, self.work
                self._store.set(f"pulse/{self.rank}", json.dumps([beats, work]))
            except RuntimeError:  # said in the next meeting, which will find the same
                pass
            until = time.monotonic() + BEAT
            while (left := until - time.monotonic()) > 0 and not self._is_over:
                with suppress(queue.Empty):
                    where = self.asked.get(timeout=left)
                    try:
                        self._meet(where)
                        self.answers.put(None)
                    except Exception as error:
                        self.answers.put(error)

    def end(self) -> None:
        """Before the interpreter goes, or the thread would wake up in what is left of it."""
        self._is_over = True
        self.join(2 * BEAT)

    def gone(self) -> list[int]:
        """Who has ended, of those on this machine; a moment after its connection broke, one that was killed has."""
        for _ in range(10):
            others = sorted((rank, place) for rank, place in self.places.items() if rank != self.rank)
            if gone := [rank for rank, place in others if place.is_gone()]:
                return gone
            time.sleep(0.1)
        return []

    def ended(self, ranks: list[int], where: str) -> SageError:
        """Some have."""
        names = ", ".join(map(str, ranks))
        what = f"Process {names} of {self.count} has ended, and the others cannot go on without it"
        return SageError(what, where=where, fix=f"See why it ended: its own message, or the memory. {_FIX}")

    def idle(self, rank: int, where: str) -> SageError:
        """One hangs."""
        place = self.places.get(rank)
        return SageError(
            f"Process {rank} of {self.count}{f' (pid {place.pid})' if place else ''} has done nothing for "
            f"{_spoken(self.timeout)}, and the others wait for it",
            where=where,
            fix=f"Look at what it does, or end it. {_FIX} A longer wait: InitProcessGroupKwargs(timeout=...).",
        )

    # ---------------------------------------------------------------- internals
    def _meet(self, where: str) -> None:
        self._meeting += 1
        self._store.set(f"{self._meeting}/{self.rank}", "")
        missing = [rank for rank in range(self.count) if rank != self.rank]
        if not self._store.check([f"{self._meeting}/{rank}" for rank in missing]):
            self._wait(missing, where)
        for rank in missing:  # now, because later the store may have ended with the process that keeps it
            self._place(rank)
        # All are here, so that nobody asks for the last meeting's keys any more.
        self._store.delete_key(f"{self._meeting - 1}/{self.rank}")
        self.steps += 1

    def _wait(self, missing: list[int], where: str) -> None:
        pulses = {rank: self._read(rank) for rank in missing}
        pause, longest = _PAUSES
        began = looked = told = time.monotonic()
        while missing := [rank for rank in missing if not self._store.check([f"{self._meeting}/{rank}"])]:
            self.steps += 1
            if self._is_over:
                return
            time.sleep(pause)
            pause = min(1.2 * pause, longest)
            now = time.monotonic()
            if now - looked < BEAT:
                continue
            # No more than was seen: this process may have been stopped, and the others with it.
            passed, looked = min(now - looked, 2 * BEAT), now
            for rank in missing:
                pulses[rank] = self._look(rank, pulses[rank], passed, where)
            if now - told >= self.timeout:
                told = now
                names, waited = ", ".join(map(str, missing)), _spoken(now - began)
                logger.warning(
                    "%s: for %s waiting for process %s of %d, which works.", where, waited, names, self.count
                )

    def _look(self, rank: int, last: _Pulse, passed: float, where: str) -> _Pulse:
        """A pulse, compared with that of the last look."""
        now, place = self._read(rank), self._place(rank)
        now.silent = 0.0 if now.beats != last.beats else last.silent + passed
        now.idle = 0.0 if now.work != last.work else last.idle + passed
        if now.silent >= ENDED and place is not None and place.is_gone():
            raise self.ended([rank], where)
        if now.idle >= self.timeout:
            raise self.idle(rank, where)
        return now

    def _read(self, rank: int) -> _Pulse:
        key = f"pulse/{rank}"
        return _Pulse(*json.loads(self._store.get(key))) if self._store.check([key]) else _Pulse()

    def _place(self, rank: int) -> _Place | None:
        key = f"place/{rank}"
        if rank not in self.places and self._store.check([key]):
            self.places[rank] = _Place(*json.loads(self._store.get(key)))
        return self.places.get(rank)


class Roll:
    """The processes of a process group, and who of them is there."""

    def __init__(self) -> None:
        self._watch = _Watch()
        self._lost: SageError | None = None
        self._watch.start()
        atexit.register(self._watch.end)

    @property
    def is_of_now(self) -> bool:
        """Whether the process group is still the one that it was."""
        return self._watch.group is dist.group.WORLD

    def work(self) -> None:
        """Tells the others, who may wait, that this process goes on."""
        self._watch.work += 1

    def meet(self, where: str) -> None:
        """Until all are there; who is missing is watched meanwhile.

        Args:
            where: What this process is at, for messages.

        Raises:
            SageError: Another process has ended, or hangs.
        """
        if self._lost is not None:  # whoever cleans up must not wait once more
            raise self._lost
        watch, still = self._watch, 0.0
        watch.asked.put(where)
        with self.exchange(where):
            while True:
                steps = watch.steps
                try:
                    answer = watch.answers.get(timeout=BEAT)
                    break
                except queue.Empty:
                    still = still + BEAT if watch.steps == steps else 0.0
                    if still >= watch.timeout:  # the first process keeps the store where no launcher does
                        raise watch.idle(0, where) from None
            if answer is not None:
                raise answer

    @contextmanager
    def exchange(self, where: str) -> Iterator[None]:
        """Around what is exchanged: a broken connection as an error that says whose it was, where that can be known.

        Raises:
            SageError: Another process has ended, or the connection to it is broken.
        """
        try:
            yield
        except SageError as error:
            self._lost = error
            raise
        except RuntimeError as error:
            gone = self._watch.gone()
            self._lost = self._watch.ended(gone, where) if gone else _broken(error, where)
            raise self._lost from error


_ROLL: Roll | None = None


def roll() -> Roll:
    """The one of the process group that there is."""
    global _ROLL
    if _ROLL is None or not _ROLL.is_of_now:
        _ROLL = Roll()
    return _ROLL


def _timeout() -> timedelta:
    """The process group's; torch has no public way to it, and where the private one changes, its default counts."""
    is_gpu = "nccl" in str(dist.get_backend())
    device = torch.accelerator.current_accelerator() if is_gpu else None
    try:
        backend = distributed_c10d._get_default_group()._get_backend(device or torch.device("cpu"))
        timeout = backend.options._timeout
    except (AttributeError, RuntimeError):
        return _TIMEOUT
    return timeout if isinstance(timeout, timedelta) else _TIMEOUT


def _broken(error: RuntimeError, where: str) -> SageError:
    return SageError(
        f"The connection to another process is broken: {str(error).strip().splitlines()[0]}",
        where=where,
        fix=f"See the messages of the other processes: one has ended, hangs, or cannot be reached. {_FIX}",
    )


def _spoken(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
