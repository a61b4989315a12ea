"""Random projections of a layer's gradient, one side at a time, so that the full gradient never exists.

For a matrix gradient G = sum_t left_t right_t^T [R, C], the projected block is P_left^T G P_right [r, c], computed as
sum_t (P_left^T left_t)(right_t^T P_right). The entries of P are +-1/sqrt(width), so that inner products are kept in
expectation (a Kronecker-structured Johnson-Lindenstrauss map, as in LoGra, arXiv 2405.13954). A side that is not to be
narrowed is left as it is.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ...config import width_for

Shape = tuple[int, int]


def block_widths(
    shapes: Sequence[Shape], projection: int | Literal["auto"] | None, row_width: int | Literal["auto"] = "auto"
) -> list[Shape]:
    """The (rows, columns) that each parameter's gradient is projected to.

    Args:
        shapes: (R, C) of every targeted parameter; a vector is (R, 1).
        projection: None leaves all as they are; k projects each side to at most k (a vector to at most k * k); "auto"
            leaves all as they are if they number at most `row_width` together, and else gives every parameter the
            same share of entries, as large as fits into it; what a small parameter leaves over, the others get.
        row_width: Entries of all blocks together under "auto"; more only where there are more parameters. "auto": as
            `config.width_for` has it.
    """
    if projection is None:
        return list(shapes)
    if projection != "auto":
        side = projection
        return [(min(r, side * side), 1) if c == 1 else (min(r, side), min(c, side)) for r, c in shapes]
    weights = sum(r * c for r, c in shapes)
    most = width_for(weights) if row_width == "auto" else row_width
    if weights <= most:
        return list(shapes)

    def width(share: int) -> int:
        return sum(math.prod(_fit(shape, share)) for shape in shapes)

    # The largest share whose blocks fit; 1 where nothing does (more parameters than that).
    share = max(1, bisect_right(range(1, most + 1), most, key=width))
    return [_fit(shape, share) for shape in shapes]


def _fit(shape: Shape, share: int) -> Shape:
    """The block of at most `share` entries of a gradient of `shape`: square, or longer where a side is short."""
    rows, columns = shape
    if rows * columns <= share:
        return shape
    side = math.isqrt(share)
    if rows <= columns:
        narrow = min(rows, side)
        return narrow, min(columns, share // narrow)
    narrow = min(columns, side)
    return min(rows, share // narrow), narrow


def projection_matrix(name: str, side: Literal["left", "right"], size: int, width: int, seed: int) -> Tensor:
    """P [size, width] float32 with entries +-1/sqrt(width), a pure function of its arguments.

    Any process on any machine regenerates it: the seed is a hash of (seed, parameter name, side), the generator runs
    on the CPU, and its bits are used as they come.
    """
    digest = hashlib.sha256(f"{seed}\0{name}\0{side}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    signs = torch.randint(0, 2, (size, width), generator=generator, dtype=torch.int8)
    return (signs.to(torch.float32) * 2 - 1) / math.sqrt(width)
