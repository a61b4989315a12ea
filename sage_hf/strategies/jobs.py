"""Independent pieces of a choice, shared out over processes and threads; the results are the same to the bit on any
number of them.

k-means and regressions round differently when several threads share one of them. So every job has one thread, wherever
it runs, and what runs at the same time is whole jobs: in other processes, and in the threads of this one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from ..utils.bars import advance, at
from ..utils.columns import scratch

Array = npt.NDArray[Any]

# Jobs that a process runs at the same time, at most: each holds some tens of MB of vectors.
_MOST_THREADS = 8


@dataclass(frozen=True)
class Job:
    """A piece of work that needs no other piece.

    Attributes:
        work: Computes the result; a pure function of what it holds.
        shape: Shape of the result.
        cost: About how long it takes, compared with the other jobs of the same run.
    """

    work: Callable[[], Array]
    shape: tuple[int, ...]
    cost: float

    def run(self) -> Array:
        """The result."""
        return self.work()


class Workers(Protocol):
    """The processes that share jobs; `passes.processes.Processes` is one."""

    rank: int
    count: int

    def agreed(self) -> AbstractContextManager[None]:
        """Waits for all at the end of a block, and raises in each when it has failed in one."""

    def gather(self, column: Array, parts: Sequence[range]) -> None:
        """Fills in, in place, the parts of a column that the other processes have."""


class Alone:
    """One process."""

    rank, count = 0, 1

    def agreed(self) -> AbstractContextManager[None]:
        """Nobody to wait for."""
        return nullcontext()

    def gather(self, column: Array, parts: Sequence[range]) -> None:
        """All parts are there."""


class JobRunner:
    """Runs jobs, each in one process and one thread, and gives every process all results.

    All processes must run the same lists of jobs, one list after the other. A process runs as many jobs at the same
    time as torch has threads in it (`OMP_NUM_THREADS`, `torch.set_num_threads`), at most 8; that changes no bit.

    Args:
        workers: The processes; this one alone by default.
    """

    def __init__(self, workers: Workers | None = None) -> None:
        self.workers: Workers = workers or Alone()
        self._all_know = False

    @property
    def is_main(self) -> bool:
        """Whether this is the process that speaks for all."""
        return self.workers.rank == 0

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Around a whole choice: a failure in one process, in a job or between jobs, is raised in all of them.

        More than the workers' own `agreed`: of a process that failed between jobs, the others learn in their next job,
        and must not wait for it a second time.

        Raises:
            SageError: It failed in another process.
        """
        failure = None
        try:
            yield
        except Exception as error:
            if self._all_know:  # it was in a job: nobody waits any more
                raise
            failure = error
        with self.workers.agreed():
            if failure is not None:
                raise failure

    def run(self, jobs: Sequence[Job], dtype: npt.DTypeLike, *, desc: str = "") -> list[Array]:
        """The results of all jobs in their order, in every process.

        Args:
            jobs: The same in every process.
            dtype: Of the results: float32, float64, int64 or uint8.
            desc: What the jobs do, for the line of progress.

        Raises:
            SageError: A job failed in another process.
        """
        if not jobs:
            return []
        shares = share_out([job.cost for job in jobs], self.workers.count)
        sizes = [int(np.prod(job.shape)) for job in jobs]
        # One column of all results, in which those of a process lie side by side.
        slots, parts, end = {}, [], 0
        for share in shares:
            start = end
            for place in share:
                slots[place] = slice(end, end + sizes[place])
                end += sizes[place]
            parts.append(range(start, end))
        column = scratch(end, dtype)
        try:
            with self.workers.agreed():
                mine = shares[self.workers.rank]
                at(desc, len(mine), "parts")
                with closing(_run_here([jobs[place] for place in mine])) as found:
                    for place, result in zip(mine, found, strict=True):
                        column[slots[place]] = result.reshape(sizes[place])
                        advance()
        except Exception:
            self._all_know = True
            raise
        self.workers.gather(column, parts)
        return [column[slots[place]].reshape(job.shape) for place, job in enumerate(jobs)]


def share_out(costs: Sequence[float], count: int) -> list[list[int]]:
    """Which jobs each of `count` processes takes: the dearest first, each to the one that has least to do."""
    shares: list[list[int]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for place in sorted(range(len(costs)), key=lambda place: -costs[place]):
        least = loads.index(min(loads))
        shares[least].append(place)
        loads[least] += costs[place]
    return shares


def _run_here(jobs: Sequence[Job]) -> Generator[Array, None, None]:
    """The results one after the other, by as many threads as torch has."""
    threads = min(torch.get_num_threads(), _MOST_THREADS, len(jobs))
    with threadpool_limits(1), warnings.catch_warnings():
        # Fewer distinct rows than centres, a regression that is good enough, a residual that is gone.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", r"\s*Orthogonal matching pursuit ended prematurely", RuntimeWarning)
        if threads < 2:
            yield from map(Job.run, jobs)
            return
        # The limit on OpenMP is a thread's own: each sets it for itself.
        with ThreadPoolExecutor(threads, initializer=threadpool_limits, initargs=(1,)) as pool:
            yield from pool.map(Job.run, jobs)
