"""What a pass has finished, on disk: a file a node of its merge tree, from which a killed run goes on.

A file holds a node's partial result, the columns of its rows and the digests of its shards. A new file is written
whole before the files of the nodes that it joins are deleted, so that at any moment the files tell of every finished
shard.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ..errors import OutputError
from ..utils.checksums import CHECKSUM, DAMAGE, UNSEALED, check_seal, seal, set_aside
from ..utils.files import whole_file
from ..utils.locks import only_run
from .merge_tree import Partial
from .processes import Processes, launched

logger = logging.getLogger(__name__)

# Changes whenever the files, or what a pass makes, would be others.
FORMAT_VERSION = 6
_VERSION_KEY, _NAME_KEY, _DIGESTS = "sage_hf_format", "name", "digests"
_COLUMN, _PARTIAL = "column.", "partial."

Columns = Mapping[str, npt.NDArray[np.generic]]


class FinishedNodes:
    """The finished nodes of one pass.

    Args:
        folder: Folder of this pass alone; what determines its result must be in the name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._checked: set[tuple[int, int]] = set()

    def find_whole(self) -> list[tuple[int, int]]:
        """As `find`, of files that are as they were written; damaged ones are set aside. For the main process alone.

        Raises:
            OutputError: A damaged file cannot be renamed.
        """
        for node in self._files():
            try:
                self._check(node)
            except DAMAGE as error:
                path = self._path(*node)
                if not set_aside(path, error, "its shards are run again"):
                    raise OutputError(
                        "A finished part of the selection is damaged, and cannot be renamed",
                        where=str(path),
                        fix="Delete this file; its shards are run again.",
                    ) from error
        return self.find()

    def forget(self) -> None:
        """Deletes all nodes: something that belongs to them is gone."""
        for node in self._files():
            self._path(*node).unlink(missing_ok=True)

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
        """Digests of a node's shards, from number `first` of them on, if there are any. Errors as of `read`."""
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
        metadata = {_VERSION_KEY: str(FORMAT_VERSION), _NAME_KEY: self._name(start, size), CHECKSUM: UNSEALED}
        with whole_file(self._path(start, size), "Free some space and start again: finished shards are kept.") as part:
            save_file(tensors, part, metadata)
            seal(part)
        self._checked.discard((start, size))
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
            self._check((start, size))
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118  # no mapping
                return {
                    name.removeprefix(prefix): file.get_tensor(name)
                    if stop is None
                    else file.get_slice(name)[first:stop]
                    for name in names
                }
        except DAMAGE as error:
            raise OutputError(
                f"A finished part of the selection cannot be read: {error}",
                where=str(path),
                fix="Start again: a damaged file is set aside, and its shards are run again.",
            ) from error

    def _check(self, node: tuple[int, int]) -> None:
        """Refuses a file that is not what was written for this node; of this pass, once."""
        if node in self._checked:
            return
        check_seal(self._path(*node))
        with safe_open(self._path(*node), framework="pt") as file:
            if file.metadata()[_NAME_KEY] != self._name(*node):
                raise ValueError("it is of another run, or of other shards")
        self._checked.add(node)

    def _name(self, start: int, size: int) -> str:
        """Tells a node's file from those of other runs and passes."""
        return f"{self.folder.parent.name}/{self.folder.name}/{start}-{size}"

    def _path(self, start: int, size: int) -> Path:
        return self.folder / f"{start}-{size}.safetensors"


def _is_in(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return inner != outer and outer[0] <= inner[0] and sum(inner) <= sum(outer)


def hold_run(folder: Path | None, until: ExitStack) -> None:
    """Takes a run's folder for this launch, in all processes of it together.

    Args:
        folder: The folder; None holds nothing.
        until: Lets it go when it is closed.

    Raises:
        OutputError: Another run has it.
        SageError: The same, in other processes than the main one.
    """
    if folder is None:
        return
    everyone = Processes(nn.Identity())  # also where weights are spread, and each takes all rows
    with everyone.agreed():
        if everyone.rank == 0:
            until.enter_context(only_run(folder / ".lock", folder, "Wait until it ends, or name another resume_dir."))


def say_if_other_format(root: Path) -> None:
    """Says, in a line, that a folder holds finished shards of another version of sage_hf, which are not used."""
    if launched().process_index:
        return
    for path in root.glob("*/*/[0-9]*.safetensors"):
        try:
            with safe_open(path, framework="pt") as file:
                version = (file.metadata() or {}).get(_VERSION_KEY, "2 or older")
        except (OSError, SafetensorError):
            continue  # a damaged file is named where it is read
        if version != str(FORMAT_VERSION):
            logger.warning(
                "%s holds finished shards in format %s; this sage_hf has format %s, so they are not used. Delete it.",
                path.parents[1],
                version,
                FORMAT_VERSION,
            )
            return
