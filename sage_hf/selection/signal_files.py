"""Signals of all rows in a selection's folder, from which other rows are chosen later without the model.

`signals.npy` has a record a row, to the bit what the passes kept: 1 kB of a small model, up to 3 kB with embeddings.
`signals.safetensors` has what is one for all rows, and the classes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash
from safetensors.numpy import load_file, save_file

from ..errors import OutputError
from ..hub.files import check_digests
from ..passes.kept_rows import RowRecords
from ..utils.checksums import DAMAGE, file_digest
from ..utils.columns import blocks
from ..utils.files import mapped
from .signals import RowSignals

logger = logging.getLogger(__name__)

RECORDS_NAME, COLUMNS_NAME = "signals.npy", "signals.safetensors"
# What is not a record a row; absent where there is none.
_COLUMNS = ("labels", "spectrum", "shares", "target_scores")


class SavedRecords(RowRecords):
    """Records in a selection's folder, whose checksum is looked at when they are first needed.

    Not when they are opened, because they are most of the folder and many readers of a selection need none of them;
    not row by row, because a strategy reads all of them anyway.

    Args:
        path: The file.
        digest: What `file_digest` gave when it was written; None of a selection without checksums.
    """

    def __init__(self, path: Path, digest: str | None) -> None:
        super().__init__(mapped(path))
        self.path, self.digest = path, digest

    def check(self) -> None:
        """Refuses records that are not what was written; once.

        Raises:
            OutputError: They are not, or cannot be read.
        """
        try:
            if self.digest is None or file_digest(self.path) == self.digest:
                self.digest = None
                return
            error: OSError | None = None
        except OSError as caught:
            error = caught
        raise _damaged(self.path, error) from error


def write_signals(folder: Path, signals: RowSignals) -> dict[str, str]:
    """Writes signals to a folder that is there.

    Args:
        folder: The folder.
        signals: Those of a selection, with a file of records.

    Returns:
        The digest of the file of records, whose size makes it worth not to read it again.

    Raises:
        OutputError: They come from a file that is damaged.
    """
    records = signals.records
    assert records is not None
    source, digest = records.array, xxhash.xxh3_128()
    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(source))
    # With plain writes: into a mapped file, a full disk would end the process.
    with (folder / RECORDS_NAME).open("wb") as file:
        parts = (np.ascontiguousarray(source[block]).tobytes() for block in blocks(len(source)))
        for content in (head.getvalue(), *parts):
            file.write(content)
            digest.update(content)
    if isinstance(records, SavedRecords) and records.digest not in (None, digest.hexdigest()):
        raise _damaged(records.path)
    columns = {name: getattr(signals, name) for name in _COLUMNS}
    save_file(
        {name: np.ascontiguousarray(each) for name, each in columns.items() if each is not None},
        folder / COLUMNS_NAME,
    )
    return {RECORDS_NAME: digest.hexdigest()}


def signals_size(folder: Path) -> int:
    """Bytes of the signals in a selection's folder; 0 where none are kept."""
    return sum((folder / name).stat().st_size for name in (RECORDS_NAME, COLUMNS_NAME) if (folder / name).is_file())


def read_signals(folder: Path, signals: RowSignals, digests: Mapping[str, str]) -> bool:
    """Reads what lies in a selection's folder into signals of the same rows.

    Records stay on the disk.

    Args:
        folder: The folder.
        signals: Those that every selection has.
        digests: Of the folder's files; none of a selection without checksums.

    Returns:
        False where none were kept; or they are damaged, of which a warning tells: rows are then chosen by their scores
        alone.
    """
    if not (folder / RECORDS_NAME).exists():
        return False
    try:
        check_digests(folder, [COLUMNS_NAME], digests)
        records = SavedRecords(folder / RECORDS_NAME, digests.get(RECORDS_NAME))
        columns: dict[str, npt.NDArray[Any]] = load_file(folder / COLUMNS_NAME)
        if records.array.shape != signals.scores.shape:
            raise ValueError(f"they are of {len(records.array)} rows, and the selection is of {len(signals.scores)}")
        signals.read(records)
    except DAMAGE as error:
        logger.warning(
            "The signals of the rows cannot be read from %s, so rows are chosen by their scores alone: %s",
            folder,
            error,
        )
        return False
    for name in _COLUMNS:
        if name in columns:
            setattr(signals, name, columns[name])
    return True


def _damaged(path: Path, error: OSError | None = None) -> OutputError:
    what = "they were changed or cut after they were written" if error is None else str(error)
    return OutputError(
        f"The signals of the rows are damaged: {what}",
        where=str(path),
        fix="Restore this file, or delete it: rows are then chosen by their scores alone.",
    )
