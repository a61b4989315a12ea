"""Sketched gradients of a whole dataset in a file: what the paper's own consensus needs between its passes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import OutputError


class Projections:
    """Sketched gradients [N, l] float32 in a temporary file that goes with the object.

    Args:
        rows: N.
        width: l.
        fingerprint: Of the dataset that they are of.

    Raises:
        OutputError: The file cannot be made.
    """

    def __init__(self, rows: int, width: int, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._folder = tempfile.TemporaryDirectory(prefix="sage_hf-")
        path = Path(self._folder.name) / "z.npy"
        try:
            self._file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, width))
        except OSError as error:
            raise OutputError(
                f"No file of {rows * width * 4 >> 20} MB can be made for the sketched gradients: {error}",
                where=self._folder.name,
                fix='Set TMPDIR to a larger disk, or use consensus="streaming".',
            ) from error

    def write(self, rows: Tensor, z: Tensor) -> None:
        """Stores z [B, l] of row numbers [B]."""
        self._file[rows.numpy()] = z.float().cpu().numpy()

    def read(self, rows: range) -> Tensor:
        """Z of consecutive rows, [len(rows), l] on the CPU."""
        return torch.from_numpy(np.array(self._file[rows.start : rows.stop]))
