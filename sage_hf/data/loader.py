"""Batches made ahead, in worker processes, while the device computes: torch's DataLoader over the units of shards."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ..errors import ConfigError, SageError
from .batches import BatchSource, Numbered

Made = list[Numbered]
# Bytes of the longest temporary folder in which workers can open a socket: the system allows 107 for its whole name,
# and Python adds "/pymp-abcdefgh/listener-abcdefgh".
_LONGEST_FOLDER = 107 - 32


class _Units(Dataset[Made | SageError]):
    """Batches by the number of their unit; an error of ours as a value, because a worker would turn it into text."""

    def __init__(self, source: BatchSource, units: Sequence[range]) -> None:
        self.source, self.units = source, units

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, number: int) -> Made | SageError:
        try:
            return list(self.source.make(self.units[number]))
        except SageError as error:
            return error


def load(source: BatchSource, shards: Sequence[range], workers: int, device: torch.device) -> Iterator[Numbered]:
    """(row numbers [B], batch or None) over shards in their order; the same batches with any number of workers.

    Args:
        source: Makes the batches.
        shards: The shards.
        workers: Processes that make batches ahead, two units each; 0 makes them here, when they are asked for.
        device: What computes: for a GPU, workers' batches are copied to pinned memory, from which it fetches them
            without a wait.

    Raises:
        SageError: A row cannot be encoded, or the collator packs rows.
        ConfigError: The name of the temporary folder is too long for workers.
    """
    if not workers:
        for shard in shards:
            yield from source.batches(shard)
        return
    _check_sockets()
    units = [unit for shard in shards for unit in source.units(shard)]
    loader = DataLoader(
        _Units(source, units),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=min(workers, len(units)),
        pin_memory=device.type == "cuda",
        worker_init_fn=_end_tidily,
    )
    for made in loader:
        if isinstance(made, SageError):
            raise made
        yield from made


def _end_tidily(_: int) -> None:
    """A worker that a scheduler ends, with all of its group, takes its temporary files with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def _as_it_is(value: Any) -> Any:
    return value


def _check_sockets() -> None:
    """Refuses a temporary folder in which torch's workers would wait for each other for ever."""
    folder = tempfile.gettempdir()
    if len(folder.encode()) > _LONGEST_FOLDER:
        raise ConfigError(
            f"The name of the temporary folder has {len(folder.encode())} bytes, and worker processes need one of "
            f"at most {_LONGEST_FOLDER}",
            where="num_workers, TMPDIR",
            fix="Set TMPDIR to a folder with a shorter name, or num_workers=0.",
        )
