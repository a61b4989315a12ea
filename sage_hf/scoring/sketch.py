"""Frequent Directions: a deterministic sketch of a stream of rows in O(l D) memory.

Axes: B rows of a batch, D row width, l sketch size.

For the rows seen so far, stacked as A [n, D], the sketch S [l, D] satisfies, for every unit vector x,

    0 <= |A x|^2 - |S x|^2 <= error_bound <= |A - A_k|_F^2 / (l - k)    for every k < l,

with A_k the best rank-k approximation (Liberty 2013, "Simple and Deterministic Matrix Sketching"; Ghashami,
Liberty, Phillips and Woodruff 2016, "Frequent Directions", Theorem 1.1). Sketches merge, and the bounds add.
SAGE (arXiv 2510.02470) runs this over per-example gradients; nothing here knows about gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import SketchError

# Columns that are raised to float64 at a time during a shrink: bounds the temporary at 2l x 4,096 doubles.
_COLUMN_BLOCK = 4096
# Rows of a Gram matrix that are made at a time: above the diagonal, less than this is made for nothing.
_GRAM_STRIP = 128


_STATE = {"rows", "width", "removed", "energy_in", "nonfinite", "rows_seen", "orthogonal", "sketch_size"}


class _Compressed(NamedTuple):
    rows: Tensor  # [l, D], the rows sigma_j v_j^T in descending order, zero rows last
    removed: Tensor  # scalar float64, what this compression subtracted from every squared singular value


class FrequentDirections:
    """A Frequent Directions sketch of a stream of rows.

    Memory is 2l x D numbers, whatever the length of the stream. A shrink costs O(l^2 D) for every l rows: it works on
    the 2l x 2l Gram matrix, in float64 and on the buffer's device, instead of an SVD of the buffer. The rows that the
    shrink before has left are orthogonal, and their products are not taken again. `update` never waits for the device.

    Args:
        sketch_size: l, the number of rows kept, at least 1.
        width: D, the width of a row. Taken from the first rows when omitted.
        dtype: Storage of the buffer, float32 or float64.
        device: Device of the buffer. Taken from the first rows when omitted.

    Attributes:
        rows_seen: Rows given to `update`, those set aside included.

    Raises:
        SketchError: `sketch_size` or `dtype` is impossible.

    Example:
        >>> sketch = FrequentDirections(sketch_size=64)
        >>> for rows in batches:          # each [B, D]
        ...     sketch.update(rows)
        >>> z = rows @ sketch.sketch.T    # [B, l]
    """

    def __init__(
        self,
        sketch_size: int,
        width: int | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        if sketch_size < 1:
            raise SketchError(f"sketch_size is {sketch_size}", where="sketch_size", fix="Give a whole number >= 1.")
        if dtype not in (torch.float32, torch.float64):
            # float16 sketches fail: squared singular values overflow at a row scale of 1e4 and vanish at 1e-10.
            raise SketchError(f"A sketch cannot be stored as {dtype}", where="dtype", fix="Use float32 or float64.")
        self.sketch_size = sketch_size
        self.dtype = dtype
        self._buffer: Tensor | None = None
        self._used = 0
        self._orthogonal = 0  # how many rows of the buffer, from the first on, are those that a shrink has left
        self._removed: Tensor
        self._energy_in: Tensor
        self._nonfinite: Tensor
        self.rows_seen = 0
        self._compressed: _Compressed | None = None
        self._squares: Tensor | None = None
        self._device = torch.device(device) if device is not None else None
        if width is not None:
            self._allocate(width, self._device or torch.device("cpu"))

    # ------------------------------------------------------------------ stream
    def update(self, rows: Tensor) -> None:
        """Adds rows to the stream.

        A row with a NaN or an infinity is set aside: it counts in `rows_set_aside` and touches nothing else.

        Args:
            rows: [B, D], any floating dtype; B may be 0.

        Raises:
            SketchError: `rows` is not two-dimensional or has another width than the rows before.
        """
        if rows.ndim != 2:
            raise SketchError(f"rows has shape {list(rows.shape)}", where="rows", fix="Give a matrix [rows, width].")
        if self._buffer is None:
            self._allocate(rows.shape[1], self._device or rows.device)
        assert self._buffer is not None
        if rows.shape[1] != self.width:
            raise SketchError(
                f"rows are {rows.shape[1]} wide, the sketch is {self.width} wide",
                where="rows",
                fix="Feed one sketch with the gradients of one set of target modules only.",
            )
        rows = rows.detach().to(device=self._buffer.device, dtype=self.dtype)
        # Squared norms in float64: the energy is a sum over the whole stream. A row that is not finite becomes a zero
        # row by a mask, not by indexing, so that the device never has to tell the host how many there are.
        squared = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square()
        finite = squared.isfinite()
        rows = torch.where(finite[:, None], rows, 0.0)
        self._energy_in += torch.where(finite, squared, 0.0).sum()
        self._nonfinite += (~finite).sum()
        self.rows_seen += rows.shape[0]
        self._append(rows)

    def merge(self, other: FrequentDirections) -> None:
        """Adds everything that `other` has seen, by stacking its rows and shrinking; the error bounds add.

        Args:
            other: A sketch of the same size and width; it is left as it is.

        Raises:
            SketchError: Sizes or widths differ.
        """
        if other.sketch_size != self.sketch_size:
            raise SketchError(
                f"The sketches hold {self.sketch_size} and {other.sketch_size} rows",
                where="other",
                fix="Merge sketches of one sketch_size.",
            )
        if other._buffer is None:
            return
        if self._buffer is None:
            self._allocate(other.width, self._device or other.device)
        assert self._buffer is not None
        if other.width != self.width:
            raise SketchError(
                f"The sketches are {self.width} and {other.width} wide",
                where="other",
                fix="Merge sketches of the same target modules and projection.",
            )
        device = self._buffer.device
        self._removed += other._removed.to(device)
        self._energy_in += other._energy_in.to(device)
        self._nonfinite += other._nonfinite.to(device)
        self.rows_seen += other.rows_seen
        self._append(other._buffer[: other._used].to(device=device, dtype=self.dtype))

    # ----------------------------------------------------------------- results
    @property
    def sketch(self) -> Tensor:
        """S, [l, D]: orthogonal rows sigma_j v_j^T by descending norm; rows of zeros where the rank is below l.

        Reading it changes nothing: the stream may go on, and goes on the same.

        Raises:
            SketchError: No row was seen.
        """
        return self._result().rows

    @property
    def singular_values(self) -> Tensor:
        """[l] float64, the norms of the rows of `sketch`, descending."""
        return self._squared_norms().sqrt()

    @property
    def error_bound(self) -> float:
        """The proven bound on |Ax|^2 - |Sx|^2 for unit x, in squared units of the rows: the sum of all shrinkages."""
        result = self._result()
        return float(self._removed + result.removed)

    @property
    def energy(self) -> float:
        """|S|_F^2 / |A|_F^2 in [0, 1], the share of the rows' squared norm in the sketch (1 for a stream of zeros)."""
        held = float(self._squared_norms().sum())
        total = float(self._energy_in)
        return min(held / total, 1.0) if total > 0 else 1.0

    @property
    def squared_norm(self) -> float:
        """|A|_F^2, the summed squared norm of the finite rows seen."""
        return float(self._energy_in) if self._buffer is not None else 0.0

    @property
    def rows_set_aside(self) -> int:
        """Rows that held a NaN or an infinity and were left out."""
        return int(self._nonfinite) if self._buffer is not None else 0

    @property
    def width(self) -> int:
        """D.

        Raises:
            SketchError: Neither a width nor a row was given yet.
        """
        return self._filled().shape[1]

    @property
    def device(self) -> torch.device:
        """Where the buffer lives."""
        return self._filled().device

    def __repr__(self) -> str:
        width = "unset" if self._buffer is None else self._buffer.shape[1]
        return f"FrequentDirections(sketch_size={self.sketch_size}, width={width}, rows_seen={self.rows_seen})"

    # ------------------------------------------------------------------- state
    def compact(self) -> None:
        """Shrinks to at most l rows and frees the other half of the buffer until the next update.

        What a finished shard calls before it waits for its partner in the merge tree.
        """
        if self._buffer is None or self._used <= self.sketch_size:
            return
        result = self._result()
        self._removed = self._removed + result.removed
        self._buffer, self._used, self._orthogonal = result.rows.clone(), self.sketch_size, self.sketch_size
        self._compressed = _Compressed(result.rows, torch.zeros_like(result.removed))

    def state_dict(self) -> dict[str, Tensor]:
        """The whole state as tensors (safetensors-ready); a sketch restored from it goes on bit for bit.

        Raises:
            SketchError: No row was seen and no width was given.
        """
        buffer = self._filled()
        return {
            "rows": buffer[: self._used].clone(),
            "width": torch.tensor(buffer.shape[1]),
            "removed": self._removed.clone(),
            "energy_in": self._energy_in.clone(),
            "nonfinite": self._nonfinite.clone(),
            "rows_seen": torch.tensor(self.rows_seen),
            "orthogonal": torch.tensor(self._orthogonal),
            "sketch_size": torch.tensor(self.sketch_size),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replaces the state by one from `state_dict`.

        Raises:
            SketchError: The state is incomplete or belongs to another sketch size.
        """
        if missing := _STATE - set(state):
            raise SketchError(f"The state lacks {sorted(missing)}", where="state", fix="Pass what state_dict() gave.")
        if int(state["sketch_size"]) != self.sketch_size:
            raise SketchError(
                f"The state is of sketch_size {int(state['sketch_size'])}, this sketch has {self.sketch_size}",
                where="state",
                fix="Make the sketch with the size that it was saved with.",
            )
        rows = state["rows"]
        device = self._device or rows.device
        self._allocate(int(state["width"]), device)
        assert self._buffer is not None
        self._used = rows.shape[0]
        self._buffer[: self._used] = rows
        self._orthogonal = int(state["orthogonal"])
        self._removed = state["removed"].to(device, torch.float64).clone()
        self._energy_in = state["energy_in"].to(device, torch.float64).clone()
        self._nonfinite = state["nonfinite"].to(device, torch.int64).clone()
        self.rows_seen = int(state["rows_seen"])

    # ---------------------------------------------------------------- internals
    def _allocate(self, width: int, device: torch.device) -> None:
        self._buffer = torch.zeros(2 * self.sketch_size, width, dtype=self.dtype, device=device)
        self._used = self._orthogonal = 0
        self._removed = torch.zeros((), dtype=torch.float64, device=device)
        self._energy_in = torch.zeros((), dtype=torch.float64, device=device)
        self._nonfinite = torch.zeros((), dtype=torch.int64, device=device)
        self._compressed = self._squares = None

    def _filled(self) -> Tensor:
        if self._buffer is None:
            raise SketchError("The sketch has seen no row", where="FrequentDirections", fix="Call update(rows) first.")
        return self._buffer

    def _result(self) -> _Compressed:
        buffer = self._filled()
        if self._used == 0:
            raise SketchError(
                "The stream was empty, so there is no sketch of it",
                where="FrequentDirections",
                fix="Call update with at least one row; check that the dataset and the loader are not empty.",
            )
        if self._compressed is None:
            rows = buffer[: self._used]
            if self._orthogonal == self._used:  # nothing came since the last shrink
                self._compressed = _Compressed(rows.clone(), torch.zeros_like(self._removed))
            else:
                self._compressed = _compress(rows, self.sketch_size, self._orthogonal)
        return self._compressed

    def _squared_norms(self) -> Tensor:
        """[l] float64, of the rows of `sketch`."""
        if self._squares is None:
            self._squares = self.sketch.to(torch.float64).square().sum(1)
        return self._squares

    def _append(self, rows: Tensor) -> None:
        assert self._buffer is not None
        self._compressed = self._squares = None
        capacity = 2 * self.sketch_size
        if self._buffer.shape[0] < capacity:  # after compact()
            grown = self._buffer.new_zeros(capacity, self._buffer.shape[1])
            grown[: self._used] = self._buffer[: self._used]
            self._buffer = grown
        while rows.shape[0]:
            if self._used == capacity:
                shrunk = _compress(self._buffer, self.sketch_size, self._orthogonal)
                self._removed = self._removed + shrunk.removed
                self._buffer[: self.sketch_size] = shrunk.rows
                self._used = self._orthogonal = self.sketch_size
            taken = min(rows.shape[0], capacity - self._used)
            self._buffer[self._used : self._used + taken] = rows[:taken]
            self._used += taken
            rows = rows[taken:]


def _compress(rows: Tensor, sketch_size: int, orthogonal: int) -> _Compressed:
    """Rotates `rows` [n, D], the first few of them orthogonal, into singular form, and shrinks to `sketch_size` rows.

    With rows = U diag(sigma) V^T, keeps the first l of sqrt(sigma_j^2 - sigma_{l+1}^2) v_j^T. The factor
    sqrt(1 - sigma_{l+1}^2 / sigma_j^2) that multiplies u_j^T rows never exceeds 1, so an eigenvalue that is off by
    rounding can lose a little energy but never invent any: |Sx| <= |Ax| survives floating point.
    """
    count, width = rows.shape
    eigenvalues, vectors = torch.linalg.eigh(_lower_gram(rows, orthogonal), UPLO="L")
    eigenvalues, vectors = eigenvalues.flip(0).clamp_min(0.0), vectors.flip(1)

    kept = min(count, sketch_size)
    removed = eigenvalues[sketch_size] if count > sketch_size else eigenvalues.new_zeros(())
    top = eigenvalues[:kept]
    # Below this an eigenvalue is rounding noise of the largest one; its direction means nothing.
    noise = eigenvalues[0] * count * torch.finfo(torch.float64).eps
    factor = torch.where(top > noise, ((top - removed) / top.clamp_min(1e-300)).clamp_min(0.0).sqrt(), 0.0)
    transform = factor[:, None] * vectors[:, :kept].T

    result = torch.zeros(sketch_size, width, dtype=rows.dtype, device=rows.device)
    for start in range(0, width, _COLUMN_BLOCK):
        block = rows[:, start : start + _COLUMN_BLOCK].to(torch.float64)
        result[:kept, start : start + _COLUMN_BLOCK] = (transform @ block).to(rows.dtype)
    return _Compressed(result, removed)


def _lower_gram(rows: Tensor, orthogonal: int) -> Tensor:
    """The Gram matrix of `rows` [n, D] on and below its diagonal, [n, n] float64; above it, some of it is zero.

    Products of the first `orthogonal` rows with each other are zero. They are orthogonal up to the rounding of what is
    stored, which is a share of both rows' lengths and hides no short row behind a long one.
    """
    count = len(rows)
    # float64 throughout: a Gram matrix squares the condition number, and a TF32 setting of the user cannot reach it.
    gram = torch.zeros(count, count, dtype=torch.float64, device=rows.device)
    for block in rows.split(_COLUMN_BLOCK, dim=1):
        wide = block.to(torch.float64)
        gram.diagonal()[:orthogonal] += wide[:orthogonal].square().sum(1)
        for start in range(orthogonal, count, _GRAM_STRIP):
            stop = min(start + _GRAM_STRIP, count)
            gram[start:stop, :stop].addmm_(wide[start:stop], wide[:stop].T)
    return gram
