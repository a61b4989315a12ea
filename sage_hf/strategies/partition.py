"""Choosing within each group, and within parts of a group that is too large to be held at once.

A rule that compares rows with each other costs rows x kept x width, and needs the rows in memory. Large groups are
therefore divided first into parts of rows that lie near each other, each part gets its share of the quota, and the
rule sees one part at a time: memory does not grow with the dataset, and time grows as its rows. Dividing and choosing
are jobs, which processes and threads share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans, MiniBatchKMeans

from ..utils.columns import counts_of, places_by_code
from .base import Candidates, Floats, Ints, Vectors
from .jobs import Job, JobRunner
from .quotas import allocate_quotas

# Rows of a part: 2,048 rows, half of them kept, are clustered in a second or two on one core.
PART_ROWS = 2**11
# Rows of a mini-batch, which the division into parts reads at once, and centres that it makes in one go.
_BATCH_ROWS = 2**14
_MOST_PARTS = 64
# Rows that are assigned to centres at once: whole blocks of what scikit-learn multiplies at once (256), so that it
# changes no bit.
_BLOCK_ROWS = 2**12
# Rows that a cluster has on average where density is kept.
ROWS_PER_CLUSTER = 3

# (vectors [n, width], how many, seed) -> so many distinct places in [0, n).
Pick = Callable[[Floats, int, int], Ints]


@dataclass(frozen=True)
class Part:
    """Rows of one group that are chosen from together.

    Attributes:
        members: [n], places among the candidates, ascending.
        quota: Number of them to keep.
    """

    members: Ints
    quota: int


def pick_within_groups(candidates: Candidates, vectors: Vectors, quotas: Ints, seed: int, pick: Pick) -> Ints:
    """The rows that `pick` takes of every group [G], ascending; rows are compared by `vectors` [M, width]."""
    places = places_by_code(candidates.groups, len(quotas))
    groups = [Part(members, int(quota)) for members, quota in zip(places, quotas, strict=True) if quota]
    chosen: list[Ints] = []
    picked: list[Part] = []
    for part in divided(vectors, groups, seed, candidates.runner):
        if part.quota < len(part.members):
            picked.append(part)
        else:
            chosen.append(part.members)
    jobs = [
        Job(partial(_pick_of, vectors, part, pick, seed), (part.quota,), len(part.members) * part.quota)
        for part in picked
    ]
    found = candidates.runner.run(jobs, np.int64, desc="within groups")
    chosen += [part.members[each] for part, each in zip(picked, found, strict=True)]
    return np.sort(candidates.rows[np.concatenate(chosen)]) if chosen else candidates.rows[:0]


def _pick_of(vectors: Vectors, part: Part, pick: Pick, seed: int) -> Ints:
    return pick(np.asarray(vectors[part.members], dtype=np.float32), part.quota, seed)


def divided(vectors: Vectors, groups: Sequence[Part], seed: int, runner: JobRunner) -> list[Part]:
    """The groups as parts of at most `PART_ROWS` rows, near each other, each with its share of the group's quota.

    Parts of which nothing is kept are left out; what is kept whole is not divided. A part is a piece of its group's
    array of members, which is put in the order of the parts: there is one place a row, however often groups divide.
    """
    small: list[Part] = []
    large = list(groups)
    while large:
        is_whole = [len(part.members) <= PART_ROWS or part.quota == len(part.members) for part in large]
        small += [part for part, whole in zip(large, is_whole, strict=True) if whole]
        large = [part for part, whole in zip(large, is_whole, strict=True) if not whole]
        members = [part.members for part in large]
        counts = [min(_MOST_PARTS, -(-2 * len(each) // PART_ROWS)) for each in members]
        codes_of = _codes(vectors, members, _centres(vectors, members, counts, seed, runner), runner)
        pieces: list[Part] = []
        for part, count, codes in zip(large, counts, codes_of, strict=True):
            part.members[:] = np.concatenate([part.members[codes == code] for code in range(count)])
            cut = np.split(part.members, np.cumsum(counts_of(codes, count))[:-1])
            if max(map(len, cut)) == len(part.members):  # all alike: any cut is as good
                cut = np.array_split(part.members, count)
            shares = allocate_quotas([len(each) for each in cut], part.quota, "proportional")
            pieces += [Part(each, int(share)) for each, share in zip(cut, shares, strict=True) if share]
        large = pieces
    return small


def cluster(vectors: Vectors, members: Ints, count: int, seed: int) -> tuple[Ints, Floats]:
    """The cluster in [0, count) of each member, and the centres [count, width], by mini-batch k-means.

    A block of rows is in memory at a time.
    """
    runner = JobRunner()
    centres = _centres(vectors, [members], [count], seed, runner)
    return _codes(vectors, [members], centres, runner)[0].astype(np.int64), centres[0]


def _centres(
    vectors: Vectors, members: Sequence[Ints], counts: Sequence[int], seed: int, runner: JobRunner
) -> list[Floats]:
    """`counts[g]` centres of the rows `members[g]`."""
    jobs = [
        Job(partial(_fit, vectors, each, count, seed), (count, vectors.shape[1]), len(each) * count)
        for each, count in zip(members, counts, strict=True)
    ]
    return runner.run(jobs, np.float32, desc="k-means")


def _fit(vectors: Vectors, members: Ints, count: int, seed: int) -> Floats:
    means = MiniBatchKMeans(count, n_init=1, batch_size=_BATCH_ROWS, random_state=seed)
    order = np.random.default_rng(seed).permutation(members)
    for start in range(0, max(1, len(order) - count + 1), _BATCH_ROWS):  # the first batch is of at least `count`
        stop = len(order) if len(order) - start - _BATCH_ROWS < count else start + _BATCH_ROWS
        means.partial_fit(np.asarray(vectors[np.sort(order[start:stop])], dtype=np.float32))
    return np.asarray(means.cluster_centers_)


def _codes(
    vectors: Vectors, members: Sequence[Ints], centres: Sequence[Floats], runner: JobRunner
) -> list[npt.NDArray[np.integer]]:
    """Which of the centres `centres[g]` is nearest to each of the rows `members[g]`."""
    blocks = [
        (group, each[start : start + _BLOCK_ROWS])
        for group, each in enumerate(members)
        for start in range(0, len(each), _BLOCK_ROWS)
    ]
    jobs = [
        Job(partial(_predict, vectors, block, centres[group]), (len(block),), len(block) * len(centres[group]))
        for group, block in blocks
    ]
    is_few = max(map(len, centres), default=0) <= _MOST_PARTS
    codes = runner.run(jobs, np.uint8 if is_few else np.int64, desc="the nearest centres")
    found: list[list[npt.NDArray[np.integer]]] = [[] for _ in members]
    for (group, _), part in zip(blocks, codes, strict=True):
        found[group].append(part)
    return [np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64) for parts in found]


def _predict(vectors: Vectors, members: Ints, centres: Floats) -> Ints:
    means = KMeans(len(centres), init=centres, n_init=1, max_iter=1).fit(centres)
    means.cluster_centers_ = centres  # an empty one would have moved
    return np.asarray(means.predict(np.asarray(vectors[members], dtype=np.float32)))


def nearest_to_centres(x: Floats, count: int, seed: int) -> Ints:
    """k-means with `count` centres, and the row nearest to each: [count] places, distinct."""
    means = _k_means(x, count, seed)
    distance = ((x - means.cluster_centers_[means.labels_]) ** 2).sum(1)
    # By cluster, then by distance: the first of every cluster.
    order = np.lexsort((distance, means.labels_))
    _, first = np.unique(means.labels_[order], return_index=True)
    chosen = order[first]
    if len(chosen) < count:
        rest = np.setdiff1d(np.arange(len(x)), chosen)
        chosen = np.concatenate([chosen, rest[: count - len(chosen)]])
    return chosen


def by_density(x: Floats, count: int, seed: int) -> Ints:
    """As `nearest_to_centres` while there are `ROWS_PER_CLUSTER` rows for each; else a share of each cluster by lot.

    With more centres than that, many clusters are of one odd row, and rows of which there are many come too short:
    models that were trained on half of the rows were worse for it than with random ones, and better with this
    (docs/strategies.md).
    """
    clusters = len(x) // ROWS_PER_CLUSTER
    if count <= clusters or clusters < 1:
        return nearest_to_centres(x, count, seed)
    codes = _k_means(x, clusters, seed).labels_
    quotas = allocate_quotas(np.bincount(codes, minlength=clusters), count, "proportional")
    order = np.lexsort((np.random.default_rng(seed).random(len(x)), codes))
    first = np.searchsorted(codes[order], np.arange(clusters))
    rank = np.arange(len(x)) - first[codes[order]]
    return order[rank < quotas[codes[order]]]


def _k_means(x: Floats, count: int, seed: int) -> KMeans:
    # Of float32, scikit-learn converts the rows anew for every first centre, which took up to five times as long.
    return KMeans(count, n_init=1, max_iter=25, random_state=seed).fit(x.astype(np.float64))
