"""A comparison's folder while it runs: its settings, the chosen rows, and a line for every finished training.

    settings.json       what all trainings share; another comparison's are refused
    rows.safetensors    the chosen rows of every strategy, share and seed
    runs.jsonl          a training a line, written as it ends

What a killed run leaves is whole but for the last line, which may be torn.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets.fingerprint import Hasher
from safetensors.numpy import load_file, save_file
from transformers.utils.generic import flatten_dict

from ..errors import OutputError
from ..utils.checksums import CHECKSUM, DAMAGE, UNSEALED, check_seal, seal, sealed, set_aside
from ..utils.files import whole_file
from ..utils.locks import only_run
from .runs import Key, Run

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
SETTINGS_NAME, ROWS_NAME, RUNS_NAME = "settings.json", "rows.safetensors", "runs.jsonl"
# What format 1 had in place of `runs.jsonl`.
_OLD_RUNS_NAME = "cells.jsonl"
_BUSY = "Wait until it ends, or name another folder (output_dir, -o)."
_FIX = "Choose a folder that can be written to, on a disk with room."


class RunFolder:
    """What is finished of a comparison, on disk; for the main process alone.

    Args:
        folder: Made where it is not there.
        settings: JSON-ready, all that a training's result depends on besides its strategy, share and seed.
        overwrite: Whether trainings with other settings that are there may be deleted.

    Raises:
        OutputError: The folder holds trainings with other settings or of an older format, or cannot be read or
            written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
        self.folder = folder
        self._lock = ExitStack()
        self._lock.enter_context(only_run(folder / ".lock", folder, _BUSY))
        try:
            self._open(settings, overwrite)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets other runs have the folder."""
        self._lock.close()

    def _open(self, settings: Mapping[str, Any], overwrite: bool) -> None:
        folder = self.folder
        self.settings: dict[str, Any] = json.loads(json.dumps({"format_version": FORMAT_VERSION, **settings}))
        self.fingerprint: str = Hasher.hash(self.settings)
        lines, damage = self._read_lines()
        is_other = any(fingerprint != self.fingerprint for fingerprint, _ in lines)
        if is_other and not overwrite:
            raise OutputError(
                f"The folder holds trainings with other settings{self._differences()}",
                where=str(folder),
                fix="Choose another folder, go back to those settings, or pass "
                "overwrite_output_dir=True to delete its trainings.",
            )
        self.runs: dict[Key, Run] = {} if is_other else {run.key: run for _, run in lines}
        with whole_file(folder / SETTINGS_NAME, _FIX) as part:
            part.write_text(json.dumps({**self.settings, "fingerprint": self.fingerprint}, indent=2) + "\n")
        if damage is not None:
            self._set_aside(damage)
        # Written anew, so that no torn line stays before the next one.
        with whole_file(folder / RUNS_NAME, _FIX) as part:
            part.write_text("".join(map(self._line, self.runs.values())), encoding="utf-8")

    def add(self, run: Run) -> None:
        """Notes a finished training, on the disk when this returns.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            with (self.folder / RUNS_NAME).open("a", encoding="utf-8") as file:
                file.write(self._line(run))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"{error}", where=str(self.folder / RUNS_NAME), fix=_FIX) from error
        self.runs[run.key] = run

    def read_rows(self) -> dict[Key, npt.NDArray[np.int64]]:
        """The rows that were chosen with these settings; none where they are not there whole."""
        path = self.folder / ROWS_NAME
        if not path.exists():
            return {}
        try:
            arrays = load_file(path)
            check_seal(path)  # of older versions there is none: the rows are chosen again
        except DAMAGE as error:
            set_aside(path, error, "the rows are chosen again")
            return {}
        if arrays.pop(self.fingerprint, None) is None:
            return {}
        return {tuple(json.loads(name)): rows for name, rows in arrays.items()}

    def write_rows(self, rows: Mapping[Key, npt.NDArray[np.int64]]) -> None:
        """Keeps the chosen rows [K] of every strategy, share and seed.

        Raises:
            OutputError: They cannot be written.
        """
        arrays = {json.dumps(key): np.ascontiguousarray(chosen) for key, chosen in rows.items()}
        arrays[self.fingerprint] = np.zeros(0, dtype=np.int64)
        with whole_file(self.folder / ROWS_NAME, _FIX) as part:
            save_file(arrays, part, {CHECKSUM: UNSEALED})
            seal(part)

    # ---------------------------------------------------------------- internals
    def _line(self, run: Run) -> str:
        head = {CHECKSUM: UNSEALED, "fingerprint": self.fingerprint}
        return sealed(json.dumps({**head, **asdict(run)}, ensure_ascii=False)) + "\n"

    def _set_aside(self, damage: str) -> None:
        """Keeps damaged lines in a copy, and warns: only these trainings are made again."""
        path = self.folder / RUNS_NAME
        aside = path.with_name(f"{RUNS_NAME}.damaged")
        try:
            shutil.copyfile(path, aside)
        except OSError as error:
            raise OutputError(f"{error}", where=str(aside), fix=_FIX) from error
        logger.warning(
            "%s is damaged (%s), and those trainings are made again. The file is kept as %s.",
            path,
            damage,
            aside.name,
        )

    def _read_lines(self) -> tuple[list[tuple[str, Run]], str | None]:
        """The trainings that are there, each with the fingerprint of its settings; and what is damaged, if anything.

        Raises:
            OutputError: The folder cannot be read, or holds something else.
        """
        path = self.folder / RUNS_NAME
        if not path.exists():
            names = {each.name for each in self.folder.iterdir()} if self.folder.is_dir() else set()
            if any(name != SETTINGS_NAME and not name.startswith(".") for name in names):
                old = "trainings in format 1, of an older sage_hf, which this one does not read"
                raise OutputError(
                    f"The folder holds {old if _OLD_RUNS_NAME in names else 'something that is not a comparison'}",
                    where=str(self.folder),
                    fix="Choose a new or empty folder.",
                )
            return [], None
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except IsADirectoryError as error:
            set_aside(path, error, "its trainings are made again")
            return [], None
        except OSError as error:
            raise OutputError(f"{error}", where=str(path), fix="Choose another folder.") from error
        read, damaged = [], []
        for number, line in enumerate(text.splitlines(keepends=True), 1):
            try:
                check_seal(line.rstrip("\n"), is_needed=False)  # lines of older versions have none
                values = json.loads(line)
                values.pop(CHECKSUM, None)
                read.append((values.pop("fingerprint"), Run(**values)))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                if line.endswith("\n"):  # the last may be torn: the run was killed while it wrote
                    damaged.append(f"line {number}: {error}")
        return read, f"{len(damaged)} of its lines, first {damaged[0]}" if damaged else None

    def _differences(self) -> str:
        """Which settings differ, as far as the folder tells."""
        try:
            there = flatten_dict(json.loads((self.folder / SETTINGS_NAME).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return ""
        here = {**flatten_dict(self.settings), "fingerprint": there.get("fingerprint")}
        lines = [
            f"{name} is {here.get(name)!r} and was {there.get(name)!r}"
            for name in dict.fromkeys((*here, *there))
            if here.get(name) != there.get(name)
        ]
        return f": {'; '.join(lines[:4])}{' and more' if len(lines) > 4 else ''}" if lines else ""
