"""A vector for every row of a dataset in a file: what is too large to hold, and read by row numbers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import OutputError


class VectorFile:
    """Vectors [N, width] float32 in a file; one of the `Vectors` that strategies read.

    Args:
        rows: N.
        width: Numbers a row.
        path: The file, which may be there already and stays; None makes a temporary one, which goes with the object.

    Raises:
        OutputError: The file cannot be made.
    """

    def __init__(self, rows: int, width: int, path: Path | None = None) -> None:
        if path is None:
            self._folder = tempfile.TemporaryDirectory(prefix="sage_hf-")
            path = Path(self._folder.name) / "vectors.npy"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                part = path.with_suffix(".part")
                np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=(rows, width))
                part.replace(path)
        except OSError as error:
            raise OutputError(
                f"No file of {rows * width * 4 >> 20} MB can be made for vectors of all rows: {error}",
                where=str(path),
                fix='Set TMPDIR to a larger disk; strategy="agreement" with consensus="streaming" needs no file.',
            ) from error
        try:
            if (found := np.load(path, mmap_mode="r").shape) != (rows, width):  # "r+" would make a short file longer
                raise ValueError(f"it has the shape {found}, not {(rows, width)}")
            self.array = np.load(path, mmap_mode="r+")
        except (OSError, ValueError, EOFError) as error:
            raise OutputError(
                f"The vectors of finished shards cannot be read: {error}",
                where=str(path),
                fix=f"Delete this file and the folder {path.with_suffix('')}: its shards are run again.",
            ) from error

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, width)."""
        return tuple(self.array.shape)

    def __getitem__(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return np.asarray(self.array[positions])

    def write(self, rows: Tensor, vectors: Tensor) -> None:
        """Stores vectors [B, width] of row numbers [B]."""
        self.array[rows.numpy()] = vectors.float().cpu().numpy()

    def flush(self) -> None:
        """Puts what was written onto the disk."""
        self.array.flush()


class SketchedRows:
    """Every row's gradient in the sketch, in a file: its direction z = S g / |g|, [l], and its length |g|.

    Args:
        rows: N.
        sketch_size: l.
        path: As of `VectorFile`.
    """

    def __init__(self, rows: int, sketch_size: int, path: Path | None = None) -> None:
        self.file = VectorFile(rows, sketch_size + 1, path)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, l)."""
        rows, width = self.file.shape
        return rows, width - 1

    def __getitem__(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return self.file[positions][:, :-1]

    @property
    def norms(self) -> npt.NDArray[np.float32]:
        """[N] lengths."""
        return np.array(self.file.array[:, -1])

    def write(self, rows: Tensor, z: Tensor, norms: Tensor) -> None:
        """Stores z [B, l] and lengths [B] of row numbers [B]."""
        self.file.write(rows, torch.cat([z.float(), norms.float()[:, None]], dim=1))

    def read(self, rows: range) -> Tensor:
        """Z of consecutive rows, [len(rows), l] on the CPU."""
        return torch.from_numpy(np.array(self.file.array[rows.start : rows.stop, :-1]))
