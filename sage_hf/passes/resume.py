"""What a pass has finished, on disk: a file a node of its merge tree, from which a killed run goes on.

A file holds a node's partial result and the columns of its rows. A new file is written whole before the files of the
nodes that it joins are deleted, so that at any moment the files tell of every finished shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..config import GRADIENT_SETTINGS, SageConfig
from ..errors import OutputError
from ..gradients import GradientCollector
from ..utils.files import whole_file
from ..utils.fingerprint import run_fingerprint
from .merge_tree import Partial

# Changes whenever the files, or what a pass makes, would be others.
FORMAT_VERSION = 2

Columns = Mapping[str, npt.NDArray[np.generic]]


def find_checkpoint(
    root: Path | None,
    config: SageConfig,
    collector: GradientCollector,
    dataset: Dataset,
    groups: npt.NDArray[np.int32],
    outside: Sequence[Any],
) -> Path | None:
    """The folder for everything that determines what passes make; arguments as for `gradient_cache.find_cache`.

    Args:
        root: Holds the folders of all keys; None keeps nothing.
        config: Of the selection; budget, strategy and balance are free, because nothing here depends on them.
        collector: Takes the gradients.
        dataset: What is passed over.
        groups: [N] codes.
        outside: What else the user gave.
    """
    if root is None:
        return None
    settings = {name: getattr(config, name) for name in (*GRADIENT_SETTINGS, "sketch_size", "consensus")}
    settings |= {"format": FORMAT_VERSION, "groups": groups}
    return root / run_fingerprint(collector.model, collector.device, dataset, settings, list(outside))


@dataclass(frozen=True)
class Unit:
    """Shards that are taken as one: a shard to run, or a node that is finished.

    Attributes:
        start: The first shard.
        size: How many.
        is_finished: Whether a file holds them.
    """

    start: int
    size: int
    is_finished: bool


def divide(total: int, finished: list[tuple[int, int]], processes: int) -> list[list[Unit]]:
    """The units of every process: consecutive, with as many unfinished shards in each as can be.

    Args:
        total: Shards in all.
        finished: (first shard, shards) of nodes, in order, none in another.
        processes: How many share the work.
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


class FinishedNodes:
    """The finished nodes of one pass.

    Args:
        folder: Of this pass alone; what determines its result must be in the name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self) -> list[tuple[int, int]]:
        """(first shard, shards) of the nodes that are there, in order; of two that overlap, the larger."""
        found = []
        for path in self.folder.glob("[0-9]*.safetensors"):
            first, _, count = path.stem.partition("-")
            found.append((int(first), int(count)))
        nodes: list[tuple[int, int]] = []
        for start, size in sorted(found, key=lambda node: (node[0], -node[1])):
            if not nodes or start >= sum(nodes[-1]):
                nodes.append((start, size))
        return nodes

    def read(self, start: int, size: int, partial: Partial) -> dict[str, npt.NDArray[np.generic]]:
        """Fills `partial` with a node's result, and returns its columns.

        Raises:
            OutputError: The file cannot be read.
        """
        path = self._path(start, size)
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise OutputError(
                f"A finished part of the selection cannot be read: {error}",
                where=str(path),
                fix="Delete this file; its shards are run again.",
            ) from error
        columns = {name.removeprefix("column."): tensors.pop(name) for name in list(tensors) if _is_column(name)}
        partial.load_state_dict(tensors)
        return {name: values.numpy() for name, values in columns.items()}

    def write(self, start: int, size: int, partial: Partial, columns: Columns) -> None:
        """Keeps a node, and lets go of the nodes in it.

        Raises:
            OutputError: The disk is full, or the file cannot be written; the nodes in it are still there.
        """
        tensors = {f"column.{name}": torch.from_numpy(values.copy()) for name, values in columns.items()}
        tensors |= {name: value.contiguous().cpu() for name, value in partial.state_dict().items()}
        with whole_file(self._path(start, size), "Free some space and start again: finished shards are kept.") as part:
            save_file(tensors, part)
        for other in self.folder.glob("[0-9]*.safetensors"):
            first, _, count = other.stem.partition("-")
            if start <= int(first) and int(first) + int(count) <= start + size and other.stem != f"{start}-{size}":
                other.unlink(missing_ok=True)

    def _path(self, start: int, size: int) -> Path:
        return self.folder / f"{start}-{size}.safetensors"


def _is_column(name: str) -> bool:
    return name.startswith("column.")
