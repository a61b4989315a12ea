"""Sketched gradients of a whole dataset in a file: what the paper's own consensus needs between its passes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import OutputError


class Projections:
    """Sketched gradients [N, l] float32 in a file.

    Args:
        rows: N.
        width: l.
        fingerprint: Of the dataset that they are of.
        path: The file, which may be there already and stays; None makes a temporary one, which goes with the object.

    Raises:
        OutputError: The file cannot be made.
    """

    def __init__(self, rows: int, width: int, fingerprint: str, path: Path | None = None) -> None:
        self.fingerprint = fingerprint
        if path is None:
            self._folder = tempfile.TemporaryDirectory(prefix="sage_hf-")
            path = Path(self._folder.name) / "z.npy"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                self._file = np.load(path, mmap_mode="r+")
                return
            part = path.with_suffix(".part")
            np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=(rows, width))
            part.replace(path)
            self._file = np.load(path, mmap_mode="r+")
        except OSError as error:
            raise OutputError(
                f"No file of {rows * width * 4 >> 20} MB can be made for the sketched gradients: {error}",
                where=str(path),
                fix='Set TMPDIR to a larger disk, or use consensus="streaming".',
            ) from error

    def write(self, rows: Tensor, z: Tensor) -> None:
        """Stores z [B, l] of row numbers [B]."""
        self._file[rows.numpy()] = z.float().cpu().numpy()

    def flush(self) -> None:
        """Puts what was written onto the disk."""
        self._file.flush()

    def read(self, rows: range) -> Tensor:
        """Z of consecutive rows, [len(rows), l] on the CPU."""
        return torch.from_numpy(np.array(self._file[rows.start : rows.stop]))
