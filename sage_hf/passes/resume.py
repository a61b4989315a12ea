"""What a pass has finished, on disk: a file a node of its merge tree, from which a killed run goes on.

A file holds a node's partial result, the columns of its rows and the digests of its shards. A new file is written
whole before the files of the nodes that it joins are deleted, so that at any moment the files tell of every finished
shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import OutputError
from ..utils.files import whole_file
from .merge_tree import Partial

# Changes whenever the files, or what a pass makes, would be others.
FORMAT_VERSION = 5
_VERSION_KEY, _DIGESTS = "sage_hf_format", "digests"
_COLUMN, _PARTIAL = "column.", "partial."

Columns = Mapping[str, npt.NDArray[np.generic]]


class FinishedNodes:
    """The finished nodes of one pass.

    Args:
        folder: Folder of this pass alone; what determines its result must be in the name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self) -> list[tuple[int, int]]:
        """(first shard, number of shards) of the nodes that are there, in order; of two that overlap, the larger."""
        nodes: list[tuple[int, int]] = []
        for start, size in sorted(self._files(), key=lambda node: (node[0], -node[1])):
            if not nodes or start >= sum(nodes[-1]):
                nodes.append((start, size))
        return nodes

    def read(self, start: int, size: int, partial: Partial) -> None:
        """Fills `partial` with a node's result.

        Raises:
            OutputError: The file cannot be read.
        """
        partial.load_state_dict(self._tensors(start, size, _PARTIAL))

    def columns(
        self, start: int, size: int, first: int = 0, stop: int | None = None
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Columns of a node's rows, from number `first` of them on; errors as of `read`."""
        return {name: values.numpy() for name, values in self._tensors(start, size, _COLUMN, first, stop).items()}

    def digests(self, start: int, size: int, first: int = 0, stop: int | None = None) -> list[int]:
        """Digests of a node's shards, from number `first` of them on; none of a dataset. Errors as of `read`."""
        return [int(digest) for digest in self._tensors(start, size, _DIGESTS, first, stop)[""]]

    def write(self, node: tuple[int, int, Partial], columns: Columns, digests: Sequence[int] = ()) -> None:
        """Keeps a node, and lets go of the nodes in it.

        Args:
            node: First shard, number of shards and result.
            columns: Columns of its last rows; those before come from the files of the nodes in it.
            digests: Digests of its last shards; the same.

        Raises:
            OutputError: The disk is full, or the file cannot be written; the nodes in it are still there.
        """
        start, size, partial = node
        inner = [each for each in self.find() if _is_in(each, (start, size))]
        earlier = [self.columns(*each) for each in inner]
        columns = {name: np.concatenate([*(each[name] for each in earlier), last]) for name, last in columns.items()}
        digests = [*(digest for each in inner for digest in self.digests(*each)), *digests]
        tensors = {_COLUMN + name: torch.from_numpy(values.copy()) for name, values in columns.items()}
        tensors |= {_PARTIAL + name: value.contiguous().cpu() for name, value in partial.state_dict().items()}
        tensors[_DIGESTS] = torch.tensor(digests, dtype=torch.int64)
        metadata = {_VERSION_KEY: str(FORMAT_VERSION)}
        with whole_file(self._path(start, size), "Free some space and start again: finished shards are kept.") as part:
            save_file(tensors, part, metadata)
        for other in self._files():
            if _is_in(other, (start, size)):
                self._path(*other).unlink(missing_ok=True)

    def _files(self) -> list[tuple[int, int]]:
        stems = (path.stem.partition("-") for path in self.folder.glob("[0-9]*.safetensors"))
        return [(int(first), int(count)) for first, _, count in stems]

    def _tensors(
        self, start: int, size: int, prefix: str, first: int = 0, stop: int | None = None
    ) -> dict[str, torch.Tensor]:
        path = self._path(start, size)
        try:
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118  # no mapping
                return {
                    name.removeprefix(prefix): file.get_tensor(name)
                    if stop is None
                    else file.get_slice(name)[first:stop]
                    for name in names
                }
        except (OSError, SafetensorError) as error:
            raise OutputError(
                f"A finished part of the selection cannot be read: {error}",
                where=str(path),
                fix="Delete this file; its shards are run again.",
            ) from error

    def _path(self, start: int, size: int) -> Path:
        return self.folder / f"{start}-{size}.safetensors"


def _is_in(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return inner != outer and outer[0] <= inner[0] and sum(inner) <= sum(outer)


def check_format(root: Path) -> None:
    """Refuses a folder in which another version of sage_hf has kept finished shards.

    Raises:
        OutputError: It holds files of another format.
    """
    for path in root.glob("*/*/[0-9]*.safetensors"):
        try:
            with safe_open(path, framework="pt") as file:
                version = (file.metadata() or {}).get(_VERSION_KEY, "2 or older")
        except (OSError, SafetensorError):
            continue  # a damaged file is named where it is read
        if version != str(FORMAT_VERSION):
            raise OutputError(
                f"The finished shards have format {version}, and this sage_hf reads {FORMAT_VERSION}",
                where=str(path),
                fix=f"Name another resume_dir, or delete the folder {path.parents[1]}: its selection starts anew.",
            )
