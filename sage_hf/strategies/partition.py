"""Choosing within each group, and within parts of a group that is too large to be held at once.

A rule that compares rows with each other costs rows x kept x width, and needs the rows in memory. Large groups are
therefore divided first into parts of rows that lie near each other, each part gets its share of the quota, and the
rule sees one part at a time: memory does not grow with the dataset, and time grows as its rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
from accelerate.utils import tqdm
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

from .base import Candidates, Floats, Ints, Vectors
from .quotas import allocate_quotas

# Rows of a part: 2,048 rows, half of them kept, are clustered in a second or two on one core.
PART_ROWS = 2**11
# Rows that the division into parts reads at once, and centres it makes in one go.
_BLOCK_ROWS = 2**14
_MOST_PARTS = 64
# Rows that a cluster has on average where density is kept.
ROWS_PER_CLUSTER = 3

# (vectors [n, width], how many, seed) -> so many distinct places in [0, n).
Pick = Callable[[Floats, int, int], Ints]


def pick_within_groups(candidates: Candidates, vectors: Vectors, quotas: Ints, seed: int, pick: Pick) -> Ints:
    """The rows that `pick` takes of every group [G], ascending; rows are compared by `vectors` [M, width]."""
    chosen: list[Ints] = []
    with tqdm(total=len(candidates), desc="choosing", unit="row", delay=2.0, disable=not candidates.progress) as bar:
        for group in np.flatnonzero(quotas):
            members = np.flatnonzero(candidates.groups == group)
            for part, quota in divided(vectors, members, int(quotas[group]), seed):
                if quota >= len(part):
                    chosen.append(part)
                elif quota:
                    chosen.append(part[pick(np.asarray(vectors[part], dtype=np.float32), quota, seed)])
                bar.update(len(part))
    return np.sort(candidates.rows[np.concatenate(chosen)]) if chosen else candidates.rows[:0]


def divided(vectors: Vectors, members: Ints, quota: int, seed: int) -> Iterator[tuple[Ints, int]]:
    """Parts of the members of at most `PART_ROWS` rows, near each other, each with its share of the quota."""
    if len(members) <= PART_ROWS:
        yield members, quota
        return
    count = min(_MOST_PARTS, -(-2 * len(members) // PART_ROWS))
    codes, _ = cluster(vectors, members, count, seed)
    parts = [members[codes == code] for code in range(count)]
    if max(map(len, parts)) == len(members):  # all alike: any cut is as good
        parts = np.array_split(members, count)
    for part, share in zip(parts, allocate_quotas([len(part) for part in parts], quota, "proportional"), strict=True):
        yield from divided(vectors, part, int(share), seed)


def cluster(vectors: Vectors, members: Ints, count: int, seed: int) -> tuple[Ints, Floats]:
    """The cluster in [0, count) of each member, and the centres [count, width], by mini-batch k-means.

    A block of rows is in memory at a time.
    """
    means = MiniBatchKMeans(count, n_init=1, batch_size=_BLOCK_ROWS, random_state=seed)
    order = np.random.default_rng(seed).permutation(members)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for start in range(0, max(1, len(order) - count + 1), _BLOCK_ROWS):  # the first block is of at least `count`
            stop = len(order) if len(order) - start - _BLOCK_ROWS < count else start + _BLOCK_ROWS
            means.partial_fit(np.asarray(vectors[np.sort(order[start:stop])], dtype=np.float32))
    codes = np.empty(len(members), dtype=np.int64)
    for start in range(0, len(members), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        codes[block] = means.predict(np.asarray(vectors[members[block]], dtype=np.float32))
    return codes, means.cluster_centers_


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

    With more centres than that, many clusters are of one odd row, and rows of which there are many come too short: a
    language model that was trained on half of the rows was worse for it than with random ones, and better with this.
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than centres
        return KMeans(count, n_init=1, max_iter=25, random_state=seed).fit(x)
