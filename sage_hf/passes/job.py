"""What a pass is: where rows come from, what is done with them, and what comes of a window.

Axes: M rows of a window, B rows of a batch, W numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..data.windows import Division, Unit, Window
from .extractor import Extracted
from .merge_tree import Partial


class Source(Protocol):
    """Rows in windows: a dataset or a stream.

    Attributes:
        batch_size: Rows of a batch.
        shard_size: Rows of a shard.
        is_stream: Whether nobody knows the number of rows. Of a dataset, every process keeps what it finishes; of a
            stream the main process does, window by window.
    """

    batch_size: int
    shard_size: int

    @property
    def is_stream(self) -> bool: ...  # noqa: D102

    def windows(self, division: Division) -> Iterator[Window]:
        """All rows, in order."""
        ...

    def spare_batch(self) -> dict[str, Any] | None:
        """A small batch that is there in every process; None where no row has tokens."""
        ...


@dataclass(frozen=True)
class PassSettings:
    """What all passes of a run have in common.

    Attributes:
        seed: Seed of what the model or a transform of the dataset draws.
        progress: Whether passes show their progress.
        workers: Number of processes that make batches ahead.
        folder: For what is finished, of this run alone; None keeps nothing.
        is_half: Whether vectors are rounded to half precision as soon as they are made, so that it does not matter
            which of them are kept in a file.
    """

    seed: int = 0
    progress: bool = True
    workers: int = 0
    folder: Path | None = None
    is_half: bool = False


def one_group(window: Window) -> npt.NDArray[np.int64]:
    """[M] zeros: all rows in one group."""
    return np.zeros(window.size, dtype=np.int64)


@dataclass(frozen=True)
class Pass:
    """What is done with the rows of a pass.

    Attributes:
        title: Name of the stage that it is.
        add: (partial result, row numbers [B], groups [B], what was extracted of them) -> a number a row [B], or None.
            Rows are counted from the window's first.
        new_partial: Makes what a shard gathers into.
        codes: [M] int64 groups of a window's rows.
        settle: Puts what `add` wrote elsewhere of some rows onto the disk, before their shard counts as finished, and
            returns a digest of it.
        name: Name of the folder for what is finished; the title's by default.
        rows: Number of rows of a stream, where an earlier pass has counted them.
    """

    title: str
    add: Callable[[Partial, Tensor, Tensor, Extracted], Tensor | None]
    new_partial: Callable[[], Partial] = Partial
    codes: Callable[[Window], npt.NDArray[np.integer[Any]]] = one_group
    settle: Callable[[range], int] | None = None
    name: str = ""
    rows: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.title.replace(" ", "-"))


@dataclass(frozen=True)
class Piece:
    """What a pass found in a window, the same in every process.

    Attributes:
        window: The window.
        codes: [M] groups.
        status: [M] uint8.
        numbers: [M] float32, what the extractor gave: losses, of gradients.
        values: [M] float32, what `Pass.add` returned; NaN where nothing.
    """

    window: Window
    codes: npt.NDArray[np.integer[Any]]
    status: npt.NDArray[np.uint8]
    numbers: npt.NDArray[np.float32]
    values: npt.NDArray[np.float32]

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Those that are gathered and kept."""
        return {"status": self.status, "numbers": self.numbers, "values": self.values}

    def columns_of(self, unit: Unit) -> dict[str, npt.NDArray[Any]]:
        """Their rows of some shards."""
        rows = self.window.rows_of(unit)
        return {name: column[rows.start : rows.stop] for name, column in self.columns.items()}
