"""What a pass keeps of every row of a dataset: a file with a record a row, read by row numbers."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor

from ..errors import OutputError
from ..strategies import Vectors
from ..strategies.base import Derived
from ..utils.checksums import DAMAGE
from ..utils.files import free_disk, mapped, part_ending, reserve
from .extractor import Extracted, halved

_ELSEWHERE = 'Set TMPDIR to a larger disk; strategy="agreement" with consensus="streaming" needs no file.'


@dataclass(frozen=True)
class Widths:
    """How many numbers the vectors of a row have that are kept.

    Attributes:
        sketch_size: l, of z.
        embedding: E; 0 for no embedding.
        inputs: I, of the inputs beside it.
    """

    sketch_size: int
    embedding: int = 0
    inputs: int = 0

    @property
    def record(self) -> np.dtype:
        """The record that is kept of a row."""
        record: list[tuple[Any, ...]] = [("norm", "<f4"), ("sketched", "<f4", (self.sketch_size,))]
        if self.embedding:
            record += [*((name, "<f4") for name in ("factor", "input_factor", "el2n", "doubt")), ("label", "<i4")]
            record += [("embedding", "<f2", (self.embedding,)), ("inputs", "<f2", (self.inputs,))]
        return np.dtype(record)


def check_disk(rows: int, widths: Widths, folder: Path | None) -> int:
    """Refuses, before the first pass, what the second will have no disk for; arguments as of `KeptRows`.

    Returns:
        The bytes that it will take.

    Raises:
        OutputError: The disk has less room.
    """
    place = Path(tempfile.gettempdir() if folder is None else folder)
    needed, free = rows * widths.record.itemsize, free_disk(place)
    if needed > free:
        raise OutputError(
            f"The temporary file for all rows takes {needed >> 20} MB, but {free >> 20} MB are free",
            where=str(place),
            fix=_ELSEWHERE,
        )
    return needed


class RowRecords:
    """What is kept of N rows, read from records by `Widths.record`.

    Attributes:
        array: [N] records, in memory or on disk.
    """

    array: npt.NDArray[Any]

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array

    def check(self) -> None:
        """Refuses records that are not what was written; those of a run are."""

    @property
    def _has_embeddings(self) -> bool:
        return "embedding" in (self.array.dtype.names or ())

    @property
    def sketched(self) -> Vectors:
        """[N, l]."""
        # Through the object, with which a temporary file would go.
        return Derived(self.array["sketched"].shape, lambda places: self.array["sketched"][places])

    @property
    def embeddings(self) -> Vectors | None:
        """[N, E] float32; None where none is kept."""
        return self._vectors("embedding", "factor")

    @property
    def inputs(self) -> Vectors | None:
        """[N, I] float32, see `data.inputs`; None where no embeddings are kept."""
        return self._vectors("inputs", "input_factor")

    def _vectors(self, name: str, factor: str) -> Vectors | None:
        if not self._has_embeddings:
            return None

        def at(places: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
            return self.array[name][places].astype(np.float32) * self.array[factor][places][:, None]

        return Derived(self.array[name].shape, at)

    def column(self, name: str) -> npt.NDArray[Any] | None:
        """One of "norm", "el2n" and "doubt", where it lies, not read into memory; None where it is not kept."""
        return np.asarray(self.array[name]) if name in (self.array.dtype.names or ()) else None


class KeptRows(RowRecords):
    """The sketched gradient of every row in a file, and its embedding where there is one.

    A record holds z = S g / |g| (l numbers) and |g| in float32, and of an embedding at most 512 numbers in half
    precision, with a factor, as many of the inputs, and how wrong the model's classes are.

    Args:
        rows: N.
        widths: Numbers of the vectors.
        path: The file, which may be there already and stays; None makes a temporary one, which goes with the object.

    Raises:
        OutputError: The file cannot be made, or one that is there is of something else.
    """

    def __init__(self, rows: int, widths: Widths, path: Path | None = None) -> None:
        kind = widths.record
        if path is None:
            path = self._temporary()
        part = path.with_suffix(f".{part_ending()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                np.lib.format.open_memmap(part, mode="w+", dtype=kind, shape=(rows,))
                with part.open("rb+") as file:
                    reserve(file.fileno(), part.stat().st_size)
                part.replace(path)
        except OSError as error:
            raise OutputError(
                f"The temporary file for all rows ({rows * kind.itemsize >> 20} MB) cannot be created: {error}",
                where=str(path),
                fix=_ELSEWHERE,
            ) from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        try:
            there = mapped(path)  # "r+" would make a short file longer
            if (there.shape, there.dtype) != ((rows,), kind):
                raise ValueError(
                    f"it has {there.shape} records of {there.dtype.itemsize} bytes, not {(rows,)} of {kind.itemsize}"
                )
            super().__init__(mapped(path, "r+"))
        except DAMAGE as error:
            raise OutputError(
                f"The stored signals of finished shards cannot be read: {error}",
                where=str(path),
                fix="Start again: a damaged file is set aside, and its shards are run again.",
            ) from error

    def _temporary(self) -> Path:
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="sage_hf-")
        except OSError as error:
            raise OutputError(
                f"Temporary files cannot be written: {error}",
                where="TMPDIR",
                fix="Set TMPDIR to a folder that can be written to.",
            ) from error
        return Path(self._folder.name) / "rows.npy"

    @property
    def bytes(self) -> npt.NDArray[np.uint8]:
        """[N, bytes of a record], the file itself."""
        return self.array.view(np.uint8).reshape(len(self.array), -1)

    def write(self, rows: Tensor, extracted: Extracted, z: Tensor) -> None:
        """Stores row numbers [B]: z [B, l], the gradients' lengths and the embeddings.

        Vectors of rows that are set aside are zeros.
        """
        records = np.zeros(len(rows), dtype=self.array.dtype)
        records["sketched"] = z.float().cpu().numpy()
        records["norm"] = extracted.vectors.to(torch.float64).norm(dim=1).float().cpu().numpy()
        if self._has_embeddings:
            embedded, columns = extracted.embedded, {}
            assert embedded is not None
            columns["embedding"], columns["factor"] = halved(embedded.embeddings)
            columns["inputs"], columns["input_factor"] = halved(embedded.inputs)
            columns |= {"el2n": embedded.el2n, "doubt": embedded.doubts, "label": embedded.labels}
            for name, column in columns.items():
                records[name] = column.cpu().numpy()
        self.array[rows.numpy()] = records

    def flush(self, rows: range) -> int:
        """Puts what was written onto the disk; the digest of some rows."""
        assert isinstance(self.array, np.memmap)
        self.array.flush()
        return self.digest(rows)

    def digest(self, rows: range) -> int:
        """63 bits from the records of consecutive rows."""
        return xxhash.xxh3_64(self.bytes[rows.start : rows.stop].data).intdigest() >> 1

    def read(self, rows: range | slice) -> Tensor:
        """Z of consecutive rows, [len(rows), l] on the CPU."""
        return torch.from_numpy(np.array(self.array["sketched"][rows.start : rows.stop]))

    def numbers(self, name: str, count: int | None = None) -> npt.NDArray[Any] | None:
        """One of "norm", "el2n", "doubt" and "label" of the first `count` rows, or all; None where it is not kept."""
        return np.array(self.array[name][:count]) if name in (self.array.dtype.names or ()) else None
