"""Gradient rows of a dataset on disk, so that the second pass, and the next selection, cost no forward pass.

A folder for everything that determines the rows (weights, dataset, settings, versions), and in it two files a shard:
the rows, memory-mapped, and what belongs to them, renamed last, which tells that the shard is whole. Shards are those
of the pass, so any number of processes may write and read them.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from ..errors import ConfigError, OutputError
from ..utils.files import whole_file
from .extractor import Extracted

logger = logging.getLogger(__name__)

# Changes whenever the rows, their order or the files would be others.
FORMAT_VERSION = 3
_FULL = "Free some space; shards that are finished are kept, and the next run goes on from them."


class GradientCache:
    """The gradient rows of one dataset under one model and one set of settings.

    Args:
        folder: Folder of this key; made when the first shard is written.
        dtype: "float32" keeps float32 rows to the bit; "float16" takes half the disk: 11 bits a number, and a factor a
            row, so that no row overflows or vanishes.
    """

    def __init__(self, folder: Path, dtype: str) -> None:
        self.folder = folder
        self.dtype = np.dtype(dtype)

    def holds(self, number: int) -> bool:
        """Whether a shard is there, whole."""
        return self._columns(number).is_file() and self._rows(number).is_file()

    def check_space(self, missing: int, width: int) -> None:
        """Refuses what the disk cannot hold, before the pass.

        Args:
            missing: Rows that will be written.
            width: D.

        Raises:
            ConfigError: The disk has less room.
        """
        self._make()
        needed = cache_bytes(missing, width, str(self.dtype))
        free = shutil.disk_usage(self.folder).free
        logger.info("Gradient rows take %d MB in %s.", needed >> 20, self.folder)
        if needed > free:
            raise ConfigError(
                f"Gradient rows take {needed >> 20} MB, and {free >> 20} MB are free",
                where=f"cache_gradients, {self.folder}",
                fix='Use cache_gradients="float16", a narrower projection, another cache_dir, or none.',
            )

    def keep(
        self, number: int, rows: int, width: int, made: Iterator[tuple[Tensor, Extracted]]
    ) -> Iterator[tuple[Tensor, Extracted]]:
        """Writes the batches of a shard as they pass by; the shard is there when all of its rows are.

        Args:
            number: The shard.
            rows: Number of its rows.
            width: D.
            made: Row numbers [B], and what was extracted of them.

        Returns:
            The same, as it will be read.

        Raises:
            OutputError: The disk is full, or the files cannot be written.
        """
        self._make()
        part, seen, filled = self._rows(number).with_suffix(f".{os.getpid()}.part"), [], 0
        try:
            with self._writing():
                file = np.lib.format.open_memmap(part, mode="w+", dtype=self.dtype, shape=(rows, width))
            for numbers, extracted in made:
                stored, factor = compressed(extracted.vectors, torch.from_numpy(file[:0]).dtype)
                file[filled : filled + len(numbers)] = stored.cpu().numpy()
                filled += len(numbers)
                seen.append(
                    {
                        "rows": numbers.numpy(),
                        "factors": factor.cpu().numpy(),
                        "losses": extracted.numbers.float().cpu().numpy(),
                        "status": extracted.status.cpu().numpy(),
                        "batches": np.array([len(numbers)]),
                    }
                )
                yield numbers, replace(extracted, vectors=restored(stored, factor))
            with self._writing():
                file.flush()
                part.replace(self._rows(number))
        finally:
            part.unlink(missing_ok=True)
        with whole_file(self._columns(number), _FULL) as part:
            save_file({name: np.concatenate([each[name] for each in seen]) for name in seen[0]}, part)

    def read(self, number: int, device: torch.device) -> Iterator[tuple[Tensor, Extracted]]:
        """The batches of a shard as they were written: row numbers, and what was extracted of them.

        Raises:
            OutputError: The files cannot be read.
        """
        try:
            with safe_open(self._columns(number), framework="np") as file:
                columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            gradients = np.load(self._rows(number), mmap_mode="r")
        except (OSError, ValueError, EOFError, SafetensorError) as error:
            raise OutputError(
                f"Cached gradients cannot be read: {error}",
                where=str(self._rows(number)),
                fix=f"Delete the folder {self.folder}.",
            ) from error
        start = 0
        for size in columns["batches"].tolist():
            part = slice(start, start + size)
            factor = torch.from_numpy(columns["factors"][part]).to(device)
            stored = torch.from_numpy(np.array(gradients[part])).to(device)
            numbers, status = (torch.from_numpy(columns[name][part]).to(device) for name in ("losses", "status"))
            yield torch.from_numpy(columns["rows"][part]), Extracted(restored(stored, factor), numbers, status)
            start += size

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = f"Gradient rows cannot be written: {error}"
            raise OutputError(what, where=str(self.folder), fix=_FULL) from error

    def _make(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{error}", where=str(self.folder), fix="Choose another cache_dir.") from error

    def _rows(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npy"

    def _columns(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"


def cache_bytes(rows: int, width: int, dtype: str) -> int:
    """What so many rows take on the disk."""
    return rows * (width * np.dtype(dtype).itemsize + 24)


def compressed(gradients: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows [B, D] as they are stored, and a factor [B] float32 for each; 1 where the type has the range of float32."""
    if dtype != torch.float16:
        return gradients.to(dtype), torch.ones(len(gradients), device=gradients.device)
    largest = gradients.abs().amax(1).float()
    factor = torch.where(largest > 0, largest, 1.0)
    return (gradients / factor[:, None]).to(dtype), factor


def restored(stored: Tensor, factor: Tensor) -> Tensor:
    """What `compressed` came from, as float32."""
    return stored.float() if stored.dtype != torch.float16 else stored.float() * factor[:, None]
