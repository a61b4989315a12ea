"""Gradient rows of a dataset or stream on disk, so that whatever follows the first pass costs no forward pass.

Two files a shard: the rows, and what belongs to them, renamed last, which tells that the shard is whole. Shards are
those of the pass, so any number of processes may write and read them. Rows are read in the batches that they were
written in, so that a cache changes no bit.

Two ways: a folder of a user's, named by everything that determines the rows (weights, dataset, settings, versions),
which stays; and one of this run, which takes only as much of the disk as it may, and goes with the run.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from ..errors import ConfigError, OutputError
from ..utils.checksums import CHECKSUM, DAMAGE, UNSEALED, check_seal, file_digest, seal, set_aside
from ..utils.files import mapped, part_ending, way_out, whole_file
from ..utils.locks import writing
from ..utils.notices import OF_THIS_PROCESS
from .embeddings import Embedded
from .extractor import Extracted, halved, restored

logger = logging.getLogger(__name__)

# Changes whenever the rows, their order or the files would be others.
FORMAT_VERSION = 6
# Share of the free disk that the rows of one run take at most, where nobody asked for a file.
DISK_SHARE = 0.2
_FULL = "Free some space; shards that are finished are kept, and the next run goes on from them."
# Bytes a row beside its numbers: row number, factor, loss, status.
_BESIDE = 24
# In the file of columns: the digest of a stream's shard, that of the file of rows, and which shard of what it is.
_DIGEST, _ROWS_DIGEST, _NAME = "digest", "rows", "name"


class GradientCache:
    """The gradient rows of one dataset under one model and one set of settings.

    Args:
        folder: Folder of these rows; made when the first shard is written.
        dtype: "float32" keeps float32 rows to the bit; "float16" takes half the disk: 11 bits a number, and a factor a
            row, so that no row overflows or vanishes.
        room: Bytes that this process may write; shards beyond are not kept, and a disk that is full all the same ends
            the writing, not the run. None: all rows are kept, and a full disk is an error.

    Attributes:
        written: Bytes written by this process.
    """

    def __init__(self, folder: Path, dtype: str, room: int | None = None) -> None:
        self.folder = folder
        self.dtype = np.dtype(dtype)
        self.written = 0
        self._room = room
        self._processes = 1
        self._name = folder.name
        self._checked: set[int] = set()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def of_run(cls, folder: Path | None, processes: int, reserved: int = 0) -> GradientCache:
        """The rows of one run, in half precision, in a share of the free disk.

        Args:
            folder: Where a killed run finds them again; None takes a temporary one.
            processes: Number of processes that share the disk.
            reserved: Bytes of it that other files of the run will take.

        Raises:
            OutputError: The folder cannot be made.
        """
        temporary, name = None, None if folder is None else f"{folder.parent.name}/{folder.name}"
        try:
            if folder is None:
                temporary = tempfile.TemporaryDirectory(prefix="sage_hf-")
                folder = Path(temporary.name)
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
        except OSError as error:
            where = "TMPDIR" if folder is None else str(folder)
            fix = "Choose a folder that can be written to, or cache_gradients=None."
            raise OutputError(
                f"The folder for gradient rows cannot be created: {error}", where=where, fix=fix
            ) from error
        cache = cls(folder, "float16", int(max(0, free - reserved) * DISK_SHARE) // processes)
        cache._temporary, cache._processes, cache._name = temporary, processes, name or cache._name
        return cache

    @property
    def room(self) -> int | None:
        """Bytes that all processes may write; None for all that there are."""
        return None if self._room is None else self._room * self._processes

    def remove(self) -> None:
        """Deletes the folder; a temporary one goes with the object, too."""
        if self._temporary is not None:
            self._temporary.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)

    def holds(self, number: int, digest: int = 0) -> bool:
        """Whether a shard is there, whole; of a stream, with the digest that it has now."""
        if not (self._columns(number).is_file() and self._rows(number).is_file()):
            return False
        if not digest:
            return True
        try:
            with safe_open(self._columns(number), framework="np") as file:
                return bool((file.metadata() or {}).get(_DIGEST) == str(digest))
        except (OSError, SafetensorError):
            return False

    def check_space(self, missing: int, width: int, embedding_width: int) -> None:
        """Refuses what the disk cannot hold, before the pass.

        Args:
            missing: Rows that will be written.
            width: D.
            embedding_width: Numbers of a row's embedding and inputs.

        Raises:
            ConfigError: The disk has less room.
        """
        self._make()
        needed = cache_bytes(missing, width, str(self.dtype), embedding_width)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise ConfigError(
                f"Gradient rows take {needed >> 20} MB, and {free >> 20} MB are free",
                where=f"cache_gradients, {self.folder}",
                fix='Use cache_gradients="auto", a narrower projection, or another cache_dir.',
            )

    def keep(
        self, number: int, rows: range, made: Iterator[tuple[Tensor, Extracted]], digest: int = 0
    ) -> Iterator[tuple[Tensor, Extracted]]:
        """Writes the batches of a shard as they pass by; the shard is there when all of its rows are.

        Args:
            number: The shard.
            rows: Its rows, as they are numbered now.
            made: Row numbers [B], and what was extracted of them, which goes through as it is.
            digest: Of a stream, the shard's.

        Raises:
            OutputError: The disk is full, or the files cannot be written, and all rows must be kept.
        """
        part = self._rows(number).with_suffix(f".{part_ending()}")
        shard = _Shard(part, len(rows), self.dtype, {_DIGEST: str(digest), _NAME: self._name_of(number)})
        try:
            for numbers, extracted in made:
                with self._writing():
                    if self._may_write(len(rows), extracted):
                        shard.add(numbers - rows.start, extracted)
                yield numbers, extracted
            with self._writing():
                if shard.count == len(rows):
                    # Of two runs that write the same shard, one does: its files must be a pair.
                    with writing(self.folder / ".lock"):
                        if not self.holds(number, digest):
                            for folder in filter(Path.is_dir, (self._rows(number), self._columns(number))):
                                set_aside(folder, "it is a folder", "its rows are stored anew")
                            self.written += shard.finish(self._rows(number), self._columns(number))
        finally:
            shard.drop()

    def read(self, number: int, first: int, device: torch.device) -> Iterator[tuple[Tensor, Extracted]] | None:
        """The batches of a shard as they were written: row numbers from `first` on, and what was extracted of them.

        Returns:
            None where they are not what was written, or gone: the shard is set aside.
        """
        columns, rows = self._columns(number), self._rows(number)
        at = columns
        try:
            if number not in self._checked:
                check_seal(columns)
            with safe_open(columns, framework="np") as file:
                metadata = file.metadata()
                if metadata[_NAME] != self._name_of(number):
                    raise ValueError("it is of another shard, or of other rows")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            at = rows
            # All of it, before the first batch counts: the pages are read again at once, from memory.
            if number not in self._checked and file_digest(rows) != metadata[_ROWS_DIGEST]:
                raise ValueError("its checksum is another, so it was changed or cut after it was written")
            gradients = mapped(rows)
        except DAMAGE as error:
            set_aside(at, error, "its rows are computed again")
            with suppress(OSError):
                (columns if at == rows else rows).unlink(missing_ok=True)
            return None
        self._checked.add(number)
        return self._batches(tensors, gradients, first, device)

    def is_whole(self, number: int, digest: int = 0) -> bool:
        """As `holds`, and whether the files are what was written."""
        return self.holds(number, digest) and self.read(number, 0, torch.device("cpu")) is not None

    def _batches(
        self, columns: dict[str, npt.NDArray[Any]], gradients: npt.NDArray[Any], first: int, device: torch.device
    ) -> Iterator[tuple[Tensor, Extracted]]:
        start = 0
        for size in columns["batches"].tolist():
            part = slice(start, start + size)
            tensors = {name: torch.from_numpy(column[part]).to(device) for name, column in columns.items()}
            vectors = torch.from_numpy(np.array(gradients[part])).to(device)
            if self.dtype == np.float16:
                vectors = restored(vectors, tensors["factors"])
            embedded = None
            if "embeddings" in tensors:
                embeddings = restored(tensors["embeddings"], tensors["embedding_factors"])
                inputs = restored(tensors["inputs"], tensors["input_factors"])
                embedded = Embedded(embeddings, inputs, tensors["el2n"], tensors["doubts"], tensors["labels"])
            numbers = torch.from_numpy(columns["rows"][part]) + first
            yield numbers, Extracted(vectors, tensors["losses"], tensors["status"], embedded)
            start += size

    def _may_write(self, rows: int, extracted: Extracted) -> bool:
        """Whether a shard of so many rows has room; what is written is counted when the shard is whole."""
        if self._room is None:
            return True
        embedded = extracted.embedded
        width = 0 if embedded is None else embedded.embeddings.shape[1] + embedded.inputs.shape[1]
        return self.written + cache_bytes(rows, extracted.vectors.shape[1], str(self.dtype), width) <= self._room

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, OutputError) as error:
            if self._room is not None:
                self._room = 0
                logger.warning(
                    "Gradient rows are no longer stored, and will be computed again where they are needed: %s",
                    error,
                    extra=OF_THIS_PROCESS,
                )
                return
            if isinstance(error, OutputError):
                raise
            what = f"Gradient rows cannot be written: {error}"
            raise OutputError(what, where=str(self.folder), fix=way_out(error, _FULL)) from error

    def _make(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{error}", where=str(self.folder), fix="Choose another cache_dir.") from error

    def _name_of(self, number: int) -> str:
        return f"{self._name}/{number}"

    def _rows(self, number: int) -> Path:
        return self.folder / f"rows-{number:06d}.npy"

    def _columns(self, number: int) -> Path:
        return self.folder / f"rows-{number:06d}.safetensors"


class _Shard:
    """The rows of a shard on their way into files.

    Written with plain writes: into a mapped file, a full disk would end the process.

    Attributes:
        count: Number of rows so far.
    """

    def __init__(self, part: Path, rows: int, dtype: np.dtype, metadata: dict[str, str]) -> None:
        self.count = 0
        self._part, self._rows, self._dtype, self._metadata = part, rows, dtype, metadata
        self._digest = xxhash.xxh3_128()
        self._file: IO[bytes] | None = None
        self._columns: list[dict[str, np.ndarray]] = []

    def add(self, numbers: Tensor, extracted: Extracted) -> None:
        """Writes a batch: row numbers [B] in the shard, and what was extracted of them."""
        vectors, columns = extracted.vectors, {"rows": numbers, "batches": torch.tensor([len(numbers)])}
        if self._dtype == np.float16:
            vectors, columns["factors"] = halved(vectors)
        if self._file is None:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("wb")
            shape = (self._rows, vectors.shape[1])
            header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
            head = BytesIO()
            np.lib.format.write_array_header_1_0(head, header)
            self._write(head.getvalue())
        self._write(vectors.cpu().numpy().astype(self._dtype, copy=False).tobytes())
        columns |= {"losses": extracted.numbers.float(), "status": extracted.status}
        if (embedded := extracted.embedded) is not None:
            columns["embeddings"], columns["embedding_factors"] = halved(embedded.embeddings)
            columns["inputs"], columns["input_factors"] = halved(embedded.inputs)
            columns |= {"el2n": embedded.el2n.float(), "doubts": embedded.doubts.float(), "labels": embedded.labels}
        self._columns.append({name: column.cpu().numpy() for name, column in columns.items()})
        self.count += len(numbers)

    def _write(self, content: bytes) -> None:
        assert self._file is not None
        self._file.write(content)
        self._digest.update(content)

    def finish(self, rows: Path, columns: Path) -> int:
        """Gives the files their names; how many bytes they have."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(rows)
        with whole_file(columns, _FULL) as part:
            joined = {name: np.concatenate([each[name] for each in self._columns]) for name in self._columns[0]}
            save_file(joined, part, {**self._metadata, _ROWS_DIGEST: self._digest.hexdigest(), CHECKSUM: UNSEALED})
            seal(part)
        return rows.stat().st_size + columns.stat().st_size

    def drop(self) -> None:
        """Deletes what is not finished."""
        with suppress(OSError):  # a full disk has no room for the last bytes either
            if self._file is not None:
                self._file.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)


def cache_bytes(rows: int, width: int, dtype: str, embedding_width: int = 0) -> int:
    """What so many rows take on the disk; `embedding_width` counts the inputs, too."""
    return rows * (width * np.dtype(dtype).itemsize + 2 * embedding_width + _BESIDE)
