"""Signals of all rows in a selection's folder, from which other rows are chosen later without the model.

`signals.npy` has a record a row, to the bit what the passes kept: 1 kB of a small model, up to 3 kB with embeddings.
`signals.safetensors` has what is one for all rows, and the classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..errors import OutputError
from ..passes.kept_rows import RowRecords
from ..utils.columns import blocks
from ..utils.files import mapped
from .signals import RowSignals

RECORDS_NAME, COLUMNS_NAME = "signals.npy", "signals.safetensors"
# What is not a record a row; absent where there is none.
_COLUMNS = ("labels", "spectrum", "shares", "target_scores")


def write_signals(folder: Path, signals: RowSignals) -> None:
    """Writes signals to a folder that is there.

    Args:
        folder: The folder.
        signals: Those of a selection, with a file of records.
    """
    assert signals.records is not None
    source = signals.records.array
    made = np.lib.format.open_memmap(folder / RECORDS_NAME, mode="w+", dtype=source.dtype, shape=source.shape)
    for block in blocks(len(source)):
        made[block] = source[block]
    made.flush()
    columns = {name: getattr(signals, name) for name in _COLUMNS}
    save_file(
        {name: np.ascontiguousarray(each) for name, each in columns.items() if each is not None},
        folder / COLUMNS_NAME,
    )


def signals_size(folder: Path) -> int:
    """Bytes of the signals in a selection's folder; 0 where none are kept."""
    return sum((folder / name).stat().st_size for name in (RECORDS_NAME, COLUMNS_NAME) if (folder / name).is_file())


def read_signals(folder: Path, signals: RowSignals) -> bool:
    """Reads what lies in a selection's folder into signals of the same rows; False where none were kept.

    Records stay on the disk.

    Raises:
        OutputError: They cannot be read, or are of other rows.
    """
    if not (folder / RECORDS_NAME).is_file():
        return False
    try:
        records = mapped(folder / RECORDS_NAME)
        columns: dict[str, npt.NDArray[Any]] = load_file(folder / COLUMNS_NAME)
        if records.shape != signals.scores.shape:
            raise ValueError(f"they are of {len(records)} rows, and the selection is of {len(signals.scores)}")
    except (OSError, ValueError, EOFError, SafetensorError) as error:
        raise OutputError(
            f"The signals of the rows cannot be read: {error}",
            where=str(folder),
            fix=f"Delete {RECORDS_NAME}: the selection works without it, and rows are chosen by their scores alone.",
        ) from error
    for name in _COLUMNS:
        if name in columns:
            setattr(signals, name, columns[name])
    signals.read(RowRecords(records))
    return True
