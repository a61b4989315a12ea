"""Baselines that compare rows with each other: k-center, herding, GradMatch and CRAIG.

Each sees one group at a time, and of a large group parts (see `parts`), where their papers see all rows at once:
that is what keeps them possible at all on large datasets. Their papers weight the rows that they keep; here rows are
kept or not, as for every strategy.
"""

from __future__ import annotations

import heapq

import numpy as np
from sklearn.linear_model import orthogonal_mp_gram

from .base import Candidates, Derived, Floats, Ints, register_strategy
from .coverage import centred_embeddings, gradient_directions, unit_rows
from .partition import pick_within_groups


@register_strategy("k_center", needs=["embeddings"])
def k_center(candidates: Candidates, quotas: Ints, seed: int) -> Ints:
    """Greedy k-center on embeddings: the row farthest from all chosen, again and again (Sener and Savarese,
    arXiv 1708.00489); from the row nearest to the mean on.
    """
    return pick_within_groups(candidates, centred_embeddings(candidates), quotas, seed, _farthest)


def _farthest(x: Floats, count: int, seed: int) -> Ints:
    chosen = [int(((x - x.mean(0)) ** 2).sum(1).argmin())]
    distance = np.full(len(x), np.inf, dtype=np.float32)
    while len(chosen) < count:
        distance = np.minimum(distance, ((x - x[chosen[-1]]) ** 2).sum(1))
        distance[chosen[-1]] = -1.0  # a row that equals a chosen one is at 0, and may still be needed
        chosen.append(int(distance.argmax()))
    return np.array(chosen)


@register_strategy("herding", needs=["embeddings"])
def herding(candidates: Candidates, quotas: Ints, seed: int) -> Ints:
    """Herding on embeddings: the row that keeps the mean of the chosen nearest to the group's (Welling 2009)."""
    return pick_within_groups(candidates, centred_embeddings(candidates), quotas, seed, _herd)


def _herd(x: Floats, count: int, seed: int) -> Ints:
    mean = x.mean(0, dtype=np.float64)
    taken = np.zeros(len(x), dtype=bool)
    total = np.zeros_like(mean)
    chosen = []
    for step in range(1, count + 1):
        gain = x @ (step * mean - total)
        gain[taken] = -np.inf
        best = int(gain.argmax())
        chosen.append(best)
        taken[best] = True
        total += x[best]
    return np.array(chosen)


@register_strategy("grad_match", needs=["sketched", "norms"])
def grad_match(candidates: Candidates, quotas: Ints, seed: int) -> Ints:
    """GradMatch: orthogonal matching pursuit of the group's gradient in the sketch (Killamsetty et al., arXiv
    2103.00123). Where the residual is gone before the quota is full, it begins again with the rows that are left.
    """
    assert candidates.sketched is not None and candidates.norms is not None
    sketched = candidates.sketched
    # The longest of all rows gets a length of about 1.
    lengths = candidates.norms / max(float(candidates.norms.max()), np.finfo(np.float32).tiny)
    gradients = Derived(sketched.shape, lambda places: sketched[places] * lengths[places][:, None])
    return pick_within_groups(candidates, gradients, quotas, seed, _match)


def _match(x: Floats, count: int, seed: int) -> Ints:
    x = x.astype(np.float64)
    gram, whole = x @ x.T, x @ x.sum(0)
    left = np.arange(len(x))
    chosen: list[int] = []
    while len(chosen) < count:
        most = min(count - len(chosen), x.shape[1], len(left))
        # As many as are found until the residual is gone.
        weights = orthogonal_mp_gram(gram[np.ix_(left, left)], whole[left], n_nonzero_coefs=most)
        picked = left[np.flatnonzero(weights)]
        if not len(picked):
            picked = left[: count - len(chosen)]  # gradients of zero: none is better than another
        chosen += picked.tolist()
        left = np.setdiff1d(left, picked)
    return np.array(chosen)


@register_strategy("craig", needs=["sketched"])
def craig(candidates: Candidates, quotas: Ints, seed: int) -> Ints:
    """CRAIG: facility location on sketched gradients, greedily (Mirzasoleiman et al., arXiv 1906.01827)."""
    return pick_within_groups(candidates, gradient_directions(candidates), quotas, seed, _locate)


def _locate(x: Floats, count: int, seed: int) -> Ints:
    """Maximises the sum over rows of the similarity to the nearest chosen row; lazily, with the same result."""
    similarity = 1.0 + unit_rows(x) @ unit_rows(x).T  # in [0, 2]
    served = np.zeros(len(x), dtype=np.float32)
    # A row's gain only falls as others are chosen: an old gain bounds it from above.
    queue = [(-float(gain), row, 0) for row, gain in enumerate(similarity.sum(1, dtype=np.float64))]
    heapq.heapify(queue)
    chosen: list[int] = []
    while len(chosen) < count:
        gain, row, seen = heapq.heappop(queue)
        if seen < len(chosen):
            gain = -float(np.maximum(similarity[row] - served, 0.0).sum(dtype=np.float64))
            heapq.heappush(queue, (gain, row, len(chosen)))
            continue
        chosen.append(row)
        served = np.maximum(served, similarity[row])
    return np.array(chosen)
