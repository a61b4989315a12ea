"""Near-duplicates: rows of one group that are the same to a model, found without comparing all pairs.

Two rows are near-duplicates where the squared distance of their unit vectors is at most `LIMIT`, and a twentieth of
what nine in ten rows of the dataset have to their nearest neighbour at most: in few dimensions, or along a curve, rows
lie close that are no copies.

Each row gets a signature of 128 bits, the sides on which it lies of as many random planes (Charikar 2002): two rows at
an angle t differ in 128 t / pi of them on average. Rows are sorted by 16 bits of it, eight times by others, and
compared with the few that lie beside them: first by the whole signature, and what is left by the vectors themselves.
What is linked so is a cluster, in which each row that stays takes the rows near itself out. At the limit, 97 of 100
pairs are found; of equal rows all.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from ..utils.bars import advance, at
from ..utils.columns import blocks, coded, counts_of, picked, places_by_code, places_of, scratch
from .base import Floats, Ints, Vectors
from .coverage import unit_rows
from .jobs import Job, JobRunner

# Squared distance of unit vectors up to which two rows may be near-duplicates: a cosine of 0.98. Of clean
# documentation 3 % of the rows have such a neighbour, of digits 2 in 1,000.
LIMIT = 0.04
# Quantile of the squared distances to the nearest neighbour that is typical where many rows have copies, and the share
# of it that a copy may be away.
_TYPICAL, _TYPICAL_SHARE = 0.9, 0.05
# Rows whose nearest neighbour is looked for, which tells what is typical.
_ASKED = 64
# Squared distance of rows that are equal but for rounding.
_EQUAL = 1e-6
_BITS, _BANDS = 128, 8
# Neighbours in each order that a row is compared with, and bits in which near-duplicates differ at most: 8 on average
# at the limit, with a deviation of 3.
_NEIGHBOURS, _MOST_BITS = 8, 20
# Rows that stay of a cluster and take others out, at most; what is left after these stays, too.
_MOST_LEADERS = 256
# Rows of a cluster whose vectors are held at a time.
_LED_ROWS = 2**14
_ONES = np.array([bin(number).count("1") for number in range(2**16)], dtype=np.uint8)


def near_duplicates(
    vectors: Vectors, groups: Ints, doubts: npt.NDArray[np.floating], seed: int, runner: JobRunner
) -> npt.NDArray[np.bool_]:
    """Which of M rows are near-duplicates of another that is none, and is doubted less: [M].

    Args:
        vectors: [M, width], of any lengths; a row of zeros has no near-duplicates.
        groups: [M]; rows of two groups are none.
        doubts: [M]; of equally doubted rows the lower comes first.
        seed: Seed of the planes and of the rows that are asked for their nearest neighbour.
        runner: Shares the work out over processes.
    """
    limit = min(LIMIT, max(_EQUAL, _TYPICAL_SHARE * _typical_distance(vectors, groups, seed, runner)))
    first = _clusters(vectors, groups, limit, seed, runner)
    copies = np.zeros(len(groups), dtype=np.bool_)
    members = places_of(counts_of(first, len(first))[first] > 1)
    if len(members):
        roots, codes = coded(picked(first, members))
        for places in places_by_code(codes, len(roots)):
            rows = members[places]
            _lead(vectors, rows[np.argsort(doubts[rows], kind="stable")], limit, copies)
    return copies


def _typical_distance(vectors: Vectors, groups: Ints, seed: int, runner: JobRunner) -> float:
    """A high quantile, over some rows, of the squared distance to the nearest row of the same group; 0 without any."""
    count = len(groups)
    asked = np.sort(np.random.default_rng(seed).choice(count, min(_ASKED, count), replace=False))
    parts = list(blocks(count))
    jobs = [
        Job(partial(_nearest, vectors, groups, asked, part), (len(asked),), part.stop - part.start) for part in parts
    ]
    found = runner.run(jobs, np.float64, desc="near-duplicates: distances")
    nearest = np.min(found, axis=0) if found else np.zeros(0)
    nearest = nearest[np.isfinite(nearest)]
    return float(np.quantile(nearest, _TYPICAL)) if len(nearest) else 0.0


def _nearest(vectors: Vectors, groups: Ints, asked: Ints, part: slice) -> npt.NDArray[np.float64]:
    """Of each row that is asked, the squared distance to the nearest other of its group in a part of the rows."""
    rows = np.arange(part.start, part.stop)
    distance = 2.0 - 2.0 * (unit_rows(vectors[asked]) @ unit_rows(vectors[rows]).T).astype(np.float64)
    distance[(groups[asked][:, None] != groups[rows]) | (asked[:, None] == rows)] = np.inf
    return np.asarray(np.maximum(distance, 0.0).min(1))


def _clusters(vectors: Vectors, groups: Ints, limit: float, seed: int, runner: JobRunner) -> Ints:
    """For each row the lowest row of those that it is linked with, near one by near one: [M]."""
    count, width = vectors.shape
    planes = np.random.default_rng(seed).standard_normal((width, _BITS)).astype(np.float32)
    parts = list(blocks(count))
    jobs = [
        Job(partial(_signatures, vectors, part, planes), (part.stop - part.start, _BANDS), part.stop - part.start)
        for part in parts
    ]
    signatures = scratch((count, _BANDS), np.uint16)
    for part, found in zip(parts, runner.run(jobs, np.int64, desc="near-duplicates: signatures"), strict=True):
        signatures[part] = found
    first = scratch(count, np.int64)
    first[:] = np.arange(count)
    at("near-duplicates: comparing", _BANDS, "orders")
    for band in range(_BANDS):
        order = np.lexsort((signatures[:, band], groups))
        for step in range(1, min(_NEIGHBOURS, count - 1) + 1):
            for block in blocks(count - step):
                one, other = order[block], order[block.start + step : block.stop + step]
                maybe = (groups[one] == groups[other]) & (first[one] != first[other])
                one, other = one[maybe], other[maybe]
                maybe = _ONES[signatures[one] ^ signatures[other]].sum(1, dtype=np.int64) <= _MOST_BITS
                one, other = one[maybe], other[maybe]
                if len(one):
                    a, b = unit_rows(vectors[one]), unit_rows(vectors[other])
                    is_near = ((a - b) ** 2).sum(1) <= limit
                    is_near &= a.any(1) & b.any(1)
                    _join(first, one[is_near], other[is_near])
        advance()
    return _roots(first)


def _lead(vectors: Vectors, rows: Ints, limit: float, copies: npt.NDArray[np.bool_]) -> None:
    """Marks, of a cluster's rows in their order, those that are near to an earlier one that is not marked itself."""
    leaders: list[Floats] = []
    for block in blocks(len(rows), _LED_ROWS):  # copies of a few rows may be a whole dataset
        part = rows[block]
        order = np.argsort(part)
        x = np.empty((len(part), vectors.shape[1]), dtype=np.float32)
        x[order] = unit_rows(vectors[part[order]])
        left = np.arange(len(part))
        for leader in leaders:
            left = left[~_near(x, left, leader, limit, part, copies)]
        while len(left) and len(leaders) < _MOST_LEADERS:
            leaders.append(x[left[0]])
            left = left[1:]
            left = left[~_near(x, left, leaders[-1], limit, part, copies)]


def _near(
    x: Floats, left: Ints, leader: Floats, limit: float, rows: Ints, copies: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Which of the rows that are left, at places of `x`, are near to a leader; these are marked."""
    is_near = ((x[left] - leader) ** 2).sum(1) <= limit
    copies[rows[left[is_near]]] = True
    return np.asarray(is_near)


def _signatures(vectors: Vectors, part: slice, planes: Floats) -> npt.NDArray[np.int64]:
    """[rows, 8] 16 bits of each row's signature each."""
    sides = vectors[np.arange(part.start, part.stop)] @ planes > 0
    weights = 2 ** np.arange(16, dtype=np.int64)
    return np.asarray(sides.reshape(len(sides), _BANDS, 16) @ weights)


def _join(first: Ints, one: Ints, other: Ints) -> None:
    """Puts the clusters of pairs together, in place: `first` leads from each row down to the lowest of its cluster."""
    for a, b in zip(one.tolist(), other.tolist(), strict=True):
        while first[a] != a:
            a = int(first[a])
        while first[b] != b:
            b = int(first[b])
        first[max(a, b)] = min(a, b)


def _roots(first: Ints) -> Ints:
    while True:
        further = first[first]
        if np.array_equal(further, first):
            return first
        first = further
