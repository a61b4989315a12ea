"""Which rows are likely wrong, and how many: what the gate takes out before rows are chosen.

Of rows with classes the share of wrong labels is estimated (`label_noise`), and up to twice as many rows go, the most
doubted (`doubts`), each of them likelier of another class: none of clean data. Of rows without classes those go that
likely belong to a kind that is harder to learn.

Of a group of which only a few rows will be kept, more goes, up to its more doubtful half: one or two rows a class must
be plain ones, however right the others' labels are (as Sorscher et al. found, arXiv 2206.14486).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from ..config import SageConfig
from ..strategies import Candidates, Vectors
from ..strategies.base import PartOf, highest
from ..strategies.jobs import Job, JobRunner
from ..utils.columns import blocks, coded, counts_of, picked, places_of
from .doubts import CrossFold, cross_fold, joined_doubts, mixture_doubts
from .label_noise import wrong_share
from .signals import RowSignals, at

# Doubt above which a row without a class is out: one kind of rows is twice as likely as the other.
_DOUBT_LIMIT = 2 / 3
# Rows that go where labels are wrong, as a multiple of these.
_UNSAFE = 2.0
# Quota of a group from which on hard rows are as welcome as plain ones; below it, the share that goes rises to a half.
PLENTY = 12


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    Attributes:
        doubts: [M] in [0, 1], how likely a row is wrong; 0.5 where its label and the best other are as likely.
        doubted: [M], whether the row is to go.
        method: How the doubts were found: "cross-fold" or "mixture".
        share: Estimated share of wrong labels; None where rows have no classes, or nothing can be told of them.
        others: [M] the likeliest other class of each row; None where rows have no classes.
    """

    doubts: npt.NDArray[np.float64]
    doubted: npt.NDArray[np.bool_]
    method: str
    share: float | None = None
    others: npt.NDArray[np.integer] | None = None

    def at(self, places: npt.NDArray[np.integer]) -> Verdict:
        """That on some of the rows, without their other classes."""
        return replace(self, doubts=picked(self.doubts, places), doubted=picked(self.doubted, places), others=None)


@dataclass(frozen=True)
class LabelDoubts:
    """What is known of the labels of M rows.

    Attributes:
        doubts: [M] in [0, 1], above 0.5 where another class is likelier.
        folds: What classifiers found that had not seen the rows.
        share: Estimated share of wrong labels; None where nothing can be told.
        wrong: [M], the rows that are likely wrong: as many as the share says, the most doubted, each above 0.5.
        unsafe: [M], the same, up to twice as many: where right rows are hard, some stand before wrong ones, and
            coverage would look for the wrong ones that are left, which lie far from all others.
    """

    doubts: npt.NDArray[np.float64]
    folds: CrossFold
    share: float | None
    wrong: npt.NDArray[np.bool_]
    unsafe: npt.NDArray[np.bool_]


def label_doubts(
    views: Sequence[Vectors],
    labels: npt.NDArray[np.integer],
    own: npt.NDArray[np.floating] | None,
    seed: int,
    runner: JobRunner | None = None,
) -> LabelDoubts:
    """Doubts every label, and says which are likely wrong.

    Args:
        views: As of `cross_fold`.
        labels: [M] classes, any integers.
        own: [M], the scoring model's own doubts; None where it has none.
        seed: Seed of the folds.
        runner: Shares the work out over the processes; this one alone by default.

    Raises:
        SageError: A fold failed in another process.
    """
    folds = cross_fold(views, labels, seed, runner)
    if own is None:
        return likely_wrong(labels, folds, folds.doubts)
    doubts = folds.doubts.copy()
    for block in blocks(len(doubts)):
        doubts[block] = joined_doubts(doubts[block], own[block], len(views))
    return likely_wrong(labels, folds, doubts)


def likely_wrong(labels: npt.NDArray[np.integer], folds: CrossFold, doubts: npt.NDArray[np.float64]) -> LabelDoubts:
    """Says which labels are likely wrong.

    Args:
        labels: [M] classes, any integers.
        folds: What classifiers found that had not seen the rows.
        doubts: [M], the order in which rows are called wrong.
    """
    judged = places_of(folds.confidence > 0)
    sizes = counts_of(coded(picked(labels, judged))[1])
    commonest = sizes.max(initial=0) / max(1, len(judged))
    share = wrong_share(picked(folds.doubts, judged) > 0.5, picked(folds.confidence, judged), commonest)
    one_group, most = np.zeros(len(doubts), dtype=np.uint8), (share or 0.0) * len(judged)
    wrong, unsafe = (
        highest(one_group, doubts, np.array([min(len(judged), round(count))])) & (doubts > 0.5)
        for count in (most, _UNSAFE * most)
    )
    return LabelDoubts(doubts, folds, share, wrong, unsafe)


def judge(config: SageConfig, signals: RowSignals, candidates: Candidates) -> Verdict:
    """Doubts every candidate, and says which are to go.

    Args:
        config: The gate: "auto" takes what is unsafe, a share that share of each group, the most doubted.
        signals: Signals of all rows; their classes and embeddings, where there are any.
        candidates: The rows to judge; their runner shares the work out.
    """
    rows, share, others = candidates.rows, None, None
    if signals.labels is not None and candidates.embeddings is not None:
        views = [candidates.embeddings] + ([] if signals.inputs is None else [PartOf(signals.inputs, rows)])
        own = None if signals.doubts is None else at(signals.doubts, rows)
        labels = at(signals.labels, rows)
        found = label_doubts(views, labels, own, config.seed, candidates.runner)
        doubts, doubted, share, method = found.doubts, found.unsafe, found.share, "cross-fold"
        others = np.unique(labels)[found.folds.others]
    else:
        job = Job(partial(mixture_doubts, candidates.losses, config.seed), (len(rows),), 1.0)
        (doubts,) = candidates.runner.run([job], np.float64, desc="doubting rows")
        doubted, method = doubts > _DOUBT_LIMIT, "mixture"
    if isinstance(config.gate, float):
        counts = (config.gate * counts_of(candidates.groups) + 0.5).astype(np.int64)
        doubted = highest(candidates.groups, doubts, counts)
    return Verdict(doubts, doubted, method, share, others)


def set_hard_aside(
    candidates: Candidates, quotas: npt.NDArray[np.int64], verdict: Verdict, share: float | None = None
) -> Verdict:
    """The verdict with a share of each group doubted, its most doubted rows, the doubted among them.

    A row of which nothing could be told stays.

    Args:
        candidates: The rows.
        quotas: [G].
        verdict: Verdict on the candidates.
        share: The share; None takes (1 - quota / `PLENTY`) / 2 where a group's quota is below `PLENTY`, else none.
    """
    judged = counts_of(candidates.groups, len(quotas), verdict.doubts > 0)
    shares = np.full(len(quotas), share) if share is not None else np.maximum(0, (1 - quotas / PLENTY) / 2)
    counts = np.where(quotas > 0, shares * judged + 0.5, 0).astype(np.int64)
    return replace(verdict, doubted=verdict.doubted | highest(candidates.groups, verdict.doubts, counts))


def let_through(candidates: Candidates, quotas: npt.NDArray[np.int64], verdict: Verdict) -> Candidates:
    """The candidates without the doubted; where a group's quota needs some of these, its least doubted stay.

    Args:
        candidates: The rows.
        quotas: [G].
        verdict: Verdict on the candidates.
    """
    stays = ~verdict.doubted
    lacking = np.maximum(0, quotas - counts_of(candidates.groups, len(quotas), stays))
    out = places_of(verdict.doubted)
    stays[out] = highest(picked(candidates.groups, out), -picked(verdict.doubts, out), lacking)
    return candidates.where(places_of(stays))
