"""A block: one parameter's place in a gradient row, and how its factors become numbers there.

Axes: B rows of the batch, T positions, R x C the parameter as a matrix, r x c its block after projection.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from .projection import projection_matrix
from .rules import Lookup, Outer, Rerun, Term, Vector

Side = Literal["left", "right"]

# Entries of a block up to which it is made and then copied: straight into columns of the rows, each matrix is a call.
_SMALL = 2**14


@dataclass
class Block:
    """One targeted parameter's columns of the gradient row.

    Attributes:
        name: The parameter's first name in the model; seeds its projection.
        shape: (R, C) of its gradient as a matrix; a vector is (R, 1).
        widths: (r, c) after projection; equal to `shape` where a side is not projected.
        columns: Its slice of the row, r * c wide.
        seed: Seed of the projections.
    """

    name: str
    shape: tuple[int, int]
    widths: tuple[int, int]
    columns: slice
    seed: int
    _matrices: dict[tuple[Side, torch.device, torch.dtype], Tensor] = field(default_factory=dict, repr=False)

    def is_projected(self, side: Side) -> bool:
        """Whether a side is narrowed."""
        index = 0 if side == "left" else 1
        return self.widths[index] < self.shape[index]

    def matrix(self, side: Side, like: Tensor) -> Tensor:
        """P [size, width] of a side, on the device and in the dtype of `like`; kept, since every batch needs it."""
        key = (side, like.device, like.dtype)
        if key not in self._matrices:
            index = 0 if side == "left" else 1
            matrix = projection_matrix(self.name, side, self.shape[index], self.widths[index], self.seed)
            self._matrices[key] = matrix.to(like)
        return self._matrices[key]

    def factor(self, side: Side, values: Tensor) -> Tensor:
        """A factor [B, groups, T, size] of an outer product, projected to [B, groups, T, width] if the side is.

        Groups (of a grouped convolution) partition the rows of the left side: each group meets its part of P.
        """
        if not self.is_projected(side):
            return values
        matrix = self.matrix(side, values)
        if side == "left" and values.shape[1] > 1:
            return values @ matrix.reshape(values.shape[1], -1, matrix.shape[1])
        # As P^T x^T, [width, positions]: CPUs want the long side last, and take up to four times as long for x P.
        narrow = matrix.T @ values.reshape(-1, values.shape[-1]).T
        return narrow.T.view(*values.shape[:-1], matrix.shape[1])

    def add_outer(self, rows: Tensor, left: Tensor, right: Tensor, fresh: bool) -> None:
        """Adds sum_t left_t right_t^T of two factors to the block's columns of `rows` [B, D].

        Written in place: an exact gradient of a large layer is too big to make and then copy. `fresh` columns hold
        nothing yet and are written to, not added to.
        """
        if left.shape[1] > 1 and self.is_projected("left"):  # the groups' shares of the same r rows add up
            left, right = left.flatten(1, 2).unsqueeze(1), right.flatten(1, 2).unsqueeze(1)
        groups = left.shape[1]
        if groups > 1 or rows.dtype != left.dtype or rows.device != left.device:
            return self.add(rows, (left.transpose(-1, -2) @ right).flatten(1), fresh)
        out = rows[:, self.columns].view(len(rows), left.shape[-1], right.shape[-1])
        left, right = left.squeeze(1).transpose(1, 2), right.squeeze(1)
        if fresh and self.columns.stop - self.columns.start <= _SMALL:
            out.copy_(torch.bmm(left, right))
        elif fresh:
            torch.bmm(left, right, out=out)
        else:
            out.baddbmm_(left, right)

    def add_slice(self, row: Tensor, first: int, left: Tensor, right: Tensor) -> None:
        """Adds left^T right to the parameter's matrix from row `first` on, in one gradient row [D].

        `left` is [n, number of these rows], `right` [n, C].
        """
        right = right @ self.matrix("right", right) if self.is_projected("right") else right
        out, stop = row[self.columns].unflatten(0, self.widths), first + left.shape[1]
        if self.is_projected("left"):
            left = left @ self.matrix("left", left)[first:stop]
            out += (left.T @ right).to(out)
        else:
            out[first:stop] += (left.T @ right).to(out)

    def add(self, rows: Tensor, values: Tensor, fresh: bool) -> None:
        """Adds `values` [B, r * c] to the block's columns of `rows` [B, D], or writes them to `fresh` ones."""
        if fresh:
            rows[:, self.columns] = values
        else:
            rows[:, self.columns] += values.to(rows)

    def project(self, gradient: Tensor) -> Tensor:
        """A whole gradient of the parameter's shape, as the block [r, c]: what the factors must amount to."""
        dense = gradient.to_dense() if gradient.is_sparse else gradient
        block = wide(dense).reshape(self.shape)
        if self.is_projected("left"):
            block = self.matrix("left", block).T @ block
        if self.is_projected("right"):
            block = block @ self.matrix("right", block)
        return block

    def project_rows(self, gradients: Tensor) -> Tensor:
        """Whole gradients of B rows, flattened as the parameter is, [B, R * C], as blocks [B, r * c]."""
        blocks = gradients.unflatten(1, self.shape)
        if self.is_projected("left"):
            blocks = self.matrix("left", blocks).T @ blocks
        if self.is_projected("right"):
            blocks = blocks @ self.matrix("right", blocks)
        return blocks.flatten(1)

    def lookup(self, indices: Tensor, values: Tensor) -> Tensor:
        """The table gradient, [B, r * c], of `values` [B, T, C] added to rows `indices` [B, T]."""
        right = self.factor("right", values.unsqueeze(1)).squeeze(1)
        if self.is_projected("left"):
            left = self.matrix("left", values)[indices]
            return (left.transpose(1, 2) @ right).flatten(1)
        batch, _, width = right.shape
        table = right.new_zeros(batch, self.shape[0], width)
        return table.scatter_add_(1, indices.unsqueeze(-1).expand_as(right), right).flatten(1)

    def vector(self, values: Tensor) -> Tensor:
        """A vector gradient [B, R], projected to [B, r] if it is."""
        return values @ self.matrix("left", values) if self.is_projected("left") else values


def wide(tensor: Tensor) -> Tensor:
    """Half precision raised to float32: products of bf16 factors lose three digits."""
    return tensor.float() if tensor.element_size() < 4 else tensor


class Share:
    """What one call of a layer adds to a block, once the gradient at the layer's output is there.

    Args:
        block: Where it goes.
        term: How the gradient follows.
        x: The layer's input; no more of it is kept than the term needs, projected where the block is.
        batch: B.
    """

    def __init__(self, block: Block, term: Term, x: Tensor, batch: int) -> None:
        assert not isinstance(term, Rerun)
        self.block, self.term, self.batch = block, term, batch
        self.kept: Tensor | None = None
        if isinstance(term, Outer):
            self.kept = block.factor("left" if term.input_is_left else "right", term.from_input(wide(x), batch))
        elif isinstance(term, Lookup):
            self.kept = x
        elif term.from_input is not None:
            self.kept = term.from_input(wide(x))

    def add(self, rows: Tensor, grad: Tensor, fresh: bool) -> None:
        """Adds the share to the block's columns of `rows` [B, D], `fresh` ones if it is their first in this batch.

        `grad` is the gradient at the layer's output.
        """
        block, term, kept, grad = self.block, self.term, self.kept, wide(grad)
        if isinstance(term, Outer):
            assert kept is not None
            other = block.factor("right" if term.input_is_left else "left", term.from_output(grad, self.batch))
            left, right = (kept, other) if term.input_is_left else (other, kept)
            return block.add_outer(rows, left, right, fresh)
        if isinstance(term, Lookup):
            assert kept is not None
            values = grad.reshape(self.batch, -1, term.shape[1])
            indices = kept.expand(grad.shape[:-1]).reshape(self.batch, -1)
            if term.padding_idx is not None:
                values = values * (indices != term.padding_idx).unsqueeze(-1)
            return block.add(rows, block.lookup(indices, values), fresh)
        assert isinstance(term, Vector)
        if kept is not None:
            grad = grad * kept
        summed = grad.movedim(term.axis, -1).reshape(self.batch, -1, term.size).sum(1)
        return block.add(rows, block.vector(summed), fresh)
