"""Columns of a number a row, worked on a block of rows at a time.

NumPy makes 64-bit copies where it sorts, counts or looks up; over millions of rows these are most of the memory. What
grows with the rows here lies in temporary files, whose pages the kernel takes back when memory is short.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from .files import reserve

Array = npt.NDArray[Any]

BLOCK_ROWS = 2**14
# Bytes from which on an array lies in a file.
_LEAST_BYTES = 2**20


def scratch(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Zeros, in a nameless temporary file where they are many; in memory where the disk has no room for it."""
    dtype = np.dtype(dtype)
    size = prod(shape if isinstance(shape, tuple) else (shape,)) * dtype.itemsize
    if size >= _LEAST_BYTES:
        try:
            with tempfile.TemporaryFile(prefix="sage_hf-") as file:
                reserve(file.fileno(), size)
                return np.asarray(np.memmap(file, dtype, shape=shape))
        except OSError:
            pass
    return np.zeros(shape, dtype)


def code_type(count: int) -> type[np.integer[Any]]:
    """The smallest type for codes 0 .. count - 1 that NumPy and torch both know."""
    return np.uint8 if count <= 2**8 else np.int16 if count <= 2**15 else np.int32


def blocks(rows: int, size: int = BLOCK_ROWS) -> Iterator[slice]:
    """Consecutive rows, all once, at most `size` at a time."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def places_of(mask: npt.NDArray[np.bool_]) -> Array:
    """Places of a mask [N] that are true, ascending: int32, or int64 where N needs it."""
    found, end = scratch(int(np.count_nonzero(mask)), _place_type(len(mask))), 0
    for block in blocks(len(mask)):
        here = np.flatnonzero(mask[block])
        found[end : end + len(here)] = here + block.start
        end += len(here)
    return found


def picked(column: Array, places: Array) -> Array:
    """`column[places]`."""
    found = scratch(len(places), column.dtype)
    for block in blocks(len(places)):
        found[block] = column[places[block]]
    return found


def counts_of(codes: Array, count: int = 0, mask: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
    """How often each code occurs, of those under a mask: [count], or as many as there are codes."""
    counts = np.zeros(count, dtype=np.int64)
    for block in blocks(len(codes)):
        more = np.bincount(codes[block] if mask is None else codes[block][mask[block]], minlength=len(counts))
        more[: len(counts)] += counts
        counts = more
    return counts


def places_by_code(codes: Array, count: int) -> list[Array]:
    """The places of every code in [0, count), ascending: parts of one array, one after the other."""
    counts = counts_of(codes, count)
    ends = np.cumsum(counts)
    order, free = scratch(len(codes), _place_type(len(codes))), ends - counts
    for block in blocks(len(codes)):
        here = np.argsort(codes[block], kind="stable")
        ordered, of_block = codes[block][here], np.bincount(codes[block], minlength=count)
        # A code's places come one after the other, from the first that is free for it.
        order[np.arange(len(here)) + (free - np.cumsum(of_block) + of_block)[ordered]] = here + block.start
        free += of_block
    return np.split(order, ends[:-1])


def coded(values: npt.NDArray[np.integer[Any]]) -> tuple[Array, Array]:
    """The distinct values, ascending, and of each value [N] its place among them, in the smallest type."""
    distinct = values[:0]
    for block in blocks(len(values)):
        distinct = np.union1d(distinct, values[block])
    codes = np.empty(len(values), dtype=code_type(len(distinct)))
    for block in blocks(len(values)):
        codes[block] = np.searchsorted(distinct, values[block])
    return distinct, codes


def _place_type(rows: int) -> type[np.integer[Any]]:
    return np.int32 if rows < 2**31 else np.int64
