"""What a pass over a stream has finished, on disk: columns that grow at their ends, and the nodes of the merge tree.

The rows of a finished shard are read again, because a stream has no other way past them, and are compared with what
was read before; no gradient is taken again. A state file says how much of the rest counts: it is replaced last, so
that a kill at any moment leaves the last whole state.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from datasets.fingerprint import Hasher
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..config import GRADIENT_SETTINGS, SageConfig
from ..data.encoding import Row
from ..errors import OutputError
from ..gradients import GradientCollector
from ..utils.files import whole_file
from ..utils.fingerprint import model_fingerprint, settled
from .merge_tree import MergeTree, Partial

FORMAT_VERSION = 2
_FULL = "Free some space and start again: finished shards are kept."
_TYPES: dict[str, Any] = {"status": np.uint8, "losses": np.float32, "values": np.float32}


def find_stream_checkpoint(
    root: Path | None, config: SageConfig, collector: GradientCollector, first: Row | None, outside: Sequence[Any]
) -> Path | None:
    """The folder for everything that determines what passes over a stream make, as far as it can be known before.

    Args:
        root: Holds the folders of all keys; None keeps nothing.
        config: Of the selection; budget, strategy and balance are free.
        collector: Takes the gradients.
        first: The stream's first row; the others are compared when they are read.
        outside: What else the user gave.
    """
    if root is None:
        return None
    settings = {name: getattr(config, name) for name in (*GRADIENT_SETTINGS, "sketch_size", "group_by")}
    versions = (FORMAT_VERSION, torch.__version__, transformers.__version__, collector.device.type)
    return root / Hasher.hash(
        (versions, settings, model_fingerprint(collector.model), first, [settled(thing) for thing in outside])
    )


class StreamCheckpoint:
    """The finished part of one pass: always a beginning of the stream.

    Args:
        folder: Of this pass alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state = self._read_state()

    def _read_state(self) -> dict[str, Any]:
        path = self.folder / "state.json"
        if not path.exists():
            return {"shards": 0, "rows": 0, "nodes": []}
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error

    @property
    def done(self) -> tuple[int, int]:
        """(shards, rows) that are finished."""
        return self._state["shards"], self._state["rows"]

    def load(self, tree: MergeTree, new_partial: Callable[[], Partial]) -> None:
        """Puts the finished nodes into an empty tree.

        Raises:
            OutputError: A file cannot be read.
        """
        for start, size in self._state["nodes"]:
            path, node = self._node(start, size), new_partial()
            try:
                node.load_state_dict(load_file(path))
            except (OSError, SafetensorError) as error:
                raise _unreadable(path, error) from error
            tree.push(node, start, size)

    def columns(self, first: int, size: int) -> dict[str, npt.NDArray[Any]]:
        """Status, losses and values of finished rows."""
        return {name: self._column(name, kind, first, size) for name, kind in _TYPES.items()}

    def digests(self, first: int, size: int) -> list[int]:
        """Of the first rows of finished shards."""
        return [int(digest) for digest in self._column("digests", np.int64, first, size)]

    def append(
        self, tree: MergeTree, columns: dict[str, npt.NDArray[Any]], digests: Sequence[int], shards: int
    ) -> None:
        """Keeps the next shards.

        Args:
            tree: The nodes of everything up to here.
            columns: Of the new rows, as `columns` gives them.
            digests: Of the first rows of the new shards.
            shards: How many are finished now.

        Raises:
            OutputError: The disk is full, or cannot be written; what was finished before still counts.
        """
        before, rows = self.done
        for name, values in columns.items():
            self._append(name, values, rows)
        self._append("digests", np.array(digests, dtype=np.int64), before)
        old = {tuple(node) for node in self._state["nodes"]}
        nodes = [(start, size) for start, size, _ in tree.nodes]
        for start, size, node in tree.nodes:
            if (start, size) not in old:
                tensors = {name: value.contiguous().cpu() for name, value in node.state_dict().items()}
                with whole_file(self._node(start, size), _FULL) as part:
                    # A pass that only scores has nothing to merge, and safetensors takes no empty file.
                    save_file(tensors or {"nothing": torch.zeros(1)}, part)
        self._state = {"shards": shards, "rows": rows + len(columns["status"]), "nodes": nodes}
        with whole_file(self.folder / "state.json", _FULL) as part:
            part.write_text(json.dumps(self._state), encoding="utf-8")
        for start, size in old - set(nodes):
            self._node(start, size).unlink(missing_ok=True)

    def _append(self, name: str, values: npt.NDArray[Any], at: int) -> None:
        """Writes at a place, and cuts off what a killed run left behind it."""
        path = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("rb+" if path.exists() else "wb") as file:
                file.seek(at * values.itemsize)
                file.truncate()
                file.write(values.tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"{error}", where=str(path), fix=_FULL) from error

    def _column(self, name: str, kind: Any, first: int, size: int) -> npt.NDArray[Any]:
        path = self.folder / name
        try:
            found = np.fromfile(path, kind, size, offset=first * np.dtype(kind).itemsize)
        except OSError as error:
            raise _unreadable(path, error) from error
        if len(found) != size:
            raise _unreadable(path, f"it has {len(found)} entries from {first} on, and {size} were finished")
        return found

    def _node(self, start: int, size: int) -> Path:
        return self.folder / f"{start}-{size}.safetensors"


def _unreadable(path: Path, reason: object) -> OutputError:
    return OutputError(
        f"A finished part of the selection cannot be read: {reason}",
        where=str(path),
        fix="Delete its folder; this pass starts again.",
    )
