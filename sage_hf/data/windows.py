"""A source of rows as a pass takes it: window by window, each cut into logical shards that processes share.

A dataset is one window, in which each process has a run of shards; a stream is windows of one shard a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batches import BatchSource


@dataclass(frozen=True)
class Unit:
    """Shards that are taken as one: a shard to run, or some that are finished.

    Attributes:
        start: Number of the first shard.
        size: Number of shards.
        is_finished: Whether a file holds them.
    """

    start: int
    size: int = 1
    is_finished: bool = False


@dataclass(frozen=True)
class Division:
    """How the work of a pass is divided.

    Attributes:
        processes: Number of processes.
        rank: Number of this process.
        finished: (first shard, number of shards) of finished nodes, in order, none in another.
    """

    processes: int = 1
    rank: int = 0
    finished: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Window:
    """Consecutive shards; row numbers are counted from the window's first row.

    Attributes:
        first: Number of its first row in the source.
        first_shard: Number of its first shard in the source.
        shard_size: Rows of a shard; the last of a source may have fewer.
        size: Number of rows.
        parts: Rows of every process.
        units: The shards of this process.
        batches: Makes batches of the rows of this process.
        values: Of a stream, the value of the column to group by, of every row.
        digests: Of a stream, one of the first row of every shard: another one in another process or pass is another
            stream.
    """

    first: int
    first_shard: int
    shard_size: int
    size: int
    parts: list[range]
    units: list[Unit]
    batches: BatchSource
    values: list[Any] = field(default_factory=list)
    digests: list[int] = field(default_factory=list)

    def rows_of(self, unit: Unit) -> range:
        """Rows of some of its shards."""
        start = (unit.start - self.first_shard) * self.shard_size
        return range(start, min(start + unit.size * self.shard_size, self.size))


def divide(total: int, finished: Sequence[tuple[int, int]], processes: int) -> list[list[Unit]]:
    """The units of every process: consecutive, with as many unfinished shards in each as can be.

    Args:
        total: Number of shards.
        finished: As of `Division`.
        processes: Number of processes.
    """
    sizes = dict(finished)
    missing = total - sum(sizes.values())
    shares: list[list[Unit]] = [[] for _ in range(processes)]
    start = seen = 0
    while start < total:
        owner = min(seen * processes // max(missing, 1), processes - 1)
        size = sizes.get(start)
        shares[owner].append(Unit(start, size or 1, size is not None))
        seen += size is None
        start += size or 1
    return shares
