"""A comparison's folder while it runs: its settings, the chosen rows, and a line for every finished training.

    settings.json       what all trainings share; another comparison's are refused
    rows.safetensors    the chosen rows of every strategy, share and seed
    cells.jsonl         a training a line, written as it ends

What a killed run leaves is whole but for the last line, which may be torn.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets.fingerprint import Hasher
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..errors import OutputError
from ..utils.files import whole_file
from .runs import Cell

FORMAT_VERSION = 1
SETTINGS_NAME, ROWS_NAME, CELLS_NAME = "settings.json", "rows.safetensors", "cells.jsonl"
_FIX = "Choose a folder that can be written to, on a disk with room."

Key = tuple[str, float, int]


class CellFolder:
    """What is finished of a comparison, on disk; for the main process alone.

    Args:
        folder: Made where it is not there.
        settings: JSON-ready, all that a training's result depends on besides its strategy, share and seed.
        overwrite: Whether trainings with other settings that are there may be deleted.

    Raises:
        OutputError: The folder holds trainings with other settings, or cannot be read or written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = json.loads(json.dumps({"format_version": FORMAT_VERSION, **settings}))
        self.fingerprint: str = Hasher.hash(self.settings)
        self.cells: dict[Key, Cell] = {}
        found = self._read_lines()
        if any(line["fingerprint"] != self.fingerprint for line in found):
            if not overwrite:
                raise OutputError(
                    f"The folder holds trainings with other settings{self._differences()}",
                    where=str(folder),
                    fix="Choose another folder, go back to those settings, or pass overwrite to delete its trainings.",
                )
            found = []
        for line in found:
            cell = Cell(**{name: value for name, value in line.items() if name != "fingerprint"})
            self.cells[cell.key] = cell
        with whole_file(folder / SETTINGS_NAME, _FIX) as part:
            part.write_text(json.dumps({**self.settings, "fingerprint": self.fingerprint}, indent=2) + "\n")
        # Written anew, so that no torn line stays before the next one.
        with whole_file(folder / CELLS_NAME, _FIX) as part:
            part.write_text("".join(self._line(cell) for cell in self.cells.values()), encoding="utf-8")

    def add(self, cell: Cell) -> None:
        """Notes a finished training, on the disk when this returns.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            with (self.folder / CELLS_NAME).open("a", encoding="utf-8") as file:
                file.write(self._line(cell))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"{error}", where=str(self.folder / CELLS_NAME), fix=_FIX) from error
        self.cells[cell.key] = cell

    def read_rows(self) -> dict[Key, npt.NDArray[np.int64]]:
        """The rows that were chosen with these settings; none where they are not there whole."""
        try:
            arrays = load_file(self.folder / ROWS_NAME)
        except (OSError, SafetensorError):
            return {}
        if self.fingerprint not in arrays:
            return {}
        return {_key(name): rows for name, rows in arrays.items() if name != self.fingerprint}

    def write_rows(self, rows: Mapping[Key, npt.NDArray[np.int64]]) -> None:
        """Keeps the chosen rows [K] of every strategy, share and seed.

        Raises:
            OutputError: They cannot be written.
        """
        arrays = {json.dumps(key): np.ascontiguousarray(chosen) for key, chosen in rows.items()}
        arrays[self.fingerprint] = np.zeros(0, dtype=np.int64)
        with whole_file(self.folder / ROWS_NAME, _FIX) as part:
            save_file(arrays, part)

    # ---------------------------------------------------------------- internals
    def _line(self, cell: Cell) -> str:
        return json.dumps({"fingerprint": self.fingerprint, **asdict(cell)}, ensure_ascii=False) + "\n"

    def _read_lines(self) -> list[dict[str, Any]]:
        path = self.folder / CELLS_NAME
        if not path.exists():
            if self.folder.is_dir() and any(
                each.name != SETTINGS_NAME and not each.name.startswith(".") for each in self.folder.iterdir()
            ):
                raise OutputError(
                    "The folder holds something that is no comparison",
                    where=str(self.folder),
                    fix="Choose a new or empty folder.",
                )
            return []
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise OutputError(f"{error}", where=str(path), fix="Choose another folder.") from error
        found = []
        for number, line in enumerate(lines):
            try:
                told = json.loads(line)
                Cell(**{name: value for name, value in told.items() if name != "fingerprint"})
                found.append({**told, "fingerprint": told["fingerprint"]})
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                if number + 1 == len(lines):
                    break  # torn: the run was killed while it wrote
                raise OutputError(
                    f"Line {number + 1} is no training: {error}",
                    where=str(path),
                    fix="Delete the line, or the file, or choose another folder.",
                ) from error
        return found

    def _differences(self) -> str:
        """Which settings differ, as far as the folder tells."""
        try:
            there = json.loads((self.folder / SETTINGS_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ""
        there.pop("fingerprint", None)
        lines = [
            f"{name} is {value!r} and was {other!r}"
            for name, value, other in _compared(self.settings, there)
            if value != other
        ]
        return f": {'; '.join(lines[:4])}{' and more' if len(lines) > 4 else ''}" if lines else ""


def _compared(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Name and both values of every setting, those within settings by name.name."""
    found = []
    for name in dict.fromkeys((*one, *other)):
        value, old = one.get(name), other.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            found += [(f"{name}.{inner}", new, was) for inner, new, was in _compared(value, old)]
        else:
            found.append((name, value, old))
    return found


def _key(text: str) -> Key:
    strategy, fraction, seed = json.loads(text)
    return str(strategy), float(fraction), int(seed)
