"""How likely each row is wrong: by classifiers that have not seen it, and by the scoring model.

A row with a class is doubted by three: a classifier on the scoring model's embeddings and one on the rows' inputs
(see `data.inputs`), both of five folds, so that neither has seen the row; and the scoring model, which has. The mean
of their log odds finds wrong labels better than each alone, than the loss and than agreement
(examples/benchmarks/results/label_issues.md). A model's embeddings carry the labels that it has learned, wrong ones
too: the inputs do not.

A row without a class is doubted where its loss belongs to a kind of rows that is harder to learn than most, if there
are two kinds at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture

from ..strategies import Vectors
from ..strategies.base import Derived
from ..strategies.coverage import Centred, unit_rows
from ..strategies.jobs import Job, JobRunner
from ..strategies.quotas import allocate_quotas
from ..utils.columns import blocks, coded, counts_of, picked, places_by_code, places_of, scratch

FOLDS = 5
# Rows of a class below which nobody can say that one of them is wrong.
LEAST_ROWS = 2 * FOLDS
# Rows that a fold's classifiers learn from at most, and numbers in them.
_MOST_ROWS = 20_000
_MOST_NUMBERS = 2**24
# Inverse strengths of the regressions' penalties, on embeddings and on inputs: 1 to 10 and 1 to 3 are as good.
_STRENGTHS = (10.0, 3.0)
_LEAST = 1e-6
# Numbers of a row's inputs from which on their direction alone is looked at.
_MANY_NUMBERS = 32


@dataclass(frozen=True)
class CrossFold:
    """What classifiers make of M rows that they have not seen.

    Attributes:
        doubts: [M] in [0, 1], p_other / (p_other + p_own) with the likeliest other class; 0 in a class of fewer than
            10 rows, of which none can be told to be wrong, and where all rows are of one class.
        others: [M] that other class, as a place among the sorted distinct labels; the row's own where nothing is told.
        confidence: [M] probability of the likeliest class; 0 where nothing is told.
    """

    doubts: npt.NDArray[np.float64]
    others: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]


class Scaled(Derived):
    """Inputs around their mean, [M, I], each column divided by the root of its deviation, scaled to length 1.

    Between counting a rare token as a common one and as next to nothing: better than both on text, and the same on
    images and measured numbers. Of few numbers the lengths tell as much as the directions: these are scaled alike, to
    lengths of 1 on average.
    """

    def __init__(self, inputs: Vectors) -> None:
        count, width = inputs.shape
        total, squares = np.zeros(width), np.zeros(width)
        for block in blocks(count):
            part = inputs[np.arange(block.start, block.stop)].astype(np.float64)
            total += part.sum(0)
            squares += (part**2).sum(0)
        total /= max(1, count)
        deviation = np.sqrt(np.maximum(squares / max(1, count) - total**2, 0.0))
        scale = np.where(deviation > _LEAST, np.sqrt(deviation), 1.0).astype(np.float32)
        mean = total.astype(np.float32)
        length = np.float32(np.sqrt(max(_LEAST, float((deviation**2 / scale.astype(np.float64) ** 2).sum()))))

        def at(places: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
            x = (inputs[places] - mean) / scale
            return unit_rows(x) if width >= _MANY_NUMBERS else np.asarray(x / length, dtype=np.float32)

        super().__init__(inputs.shape, at)


def cross_fold(
    views: Sequence[Vectors], labels: npt.NDArray[np.integer], seed: int, runner: JobRunner | None = None
) -> CrossFold:
    """How likely each row's label is wrong, by classifiers that have not seen the row.

    Args:
        views: Embeddings [M, H], and inputs [M, I] where they are known: a classifier is made of each, and the mean of
            their log probabilities counts.
        labels: [M] classes, any integers.
        seed: Seed of the folds.
        runner: Shares the folds out over the processes; this one alone by default.

    Raises:
        SageError: A fold failed in another process.
    """
    classes, codes = coded(labels)
    sizes = counts_of(codes, len(classes))
    doubts, confidence = scratch(len(labels), np.float64), scratch(len(labels), np.float64)
    others = scratch(len(labels), np.int64)
    others[:] = codes
    if np.count_nonzero(sizes >= LEAST_ROWS) < 2:
        return CrossFold(doubts, others, confidence)
    generator = np.random.default_rng(seed)
    folds = _stratified_folds(codes, len(classes), generator)
    folds[picked(sizes < LEAST_ROWS, codes)] = FOLDS  # of which none is judged
    asked_of = places_by_code(folds, FOLDS + 1)[:FOLDS]
    vectors = [Centred(views[0]), *(Scaled(each) for each in views[1:])]
    most = min(_MOST_ROWS, max(LEAST_ROWS * len(classes), _MOST_NUMBERS // max(each.shape[1] for each in vectors)))
    jobs = []
    for fold, asked in enumerate(asked_of):
        known = places_of((folds != fold) & (folds != FOLDS))
        if len(known) > most:
            known = _some_of_each(known, picked(codes, known), len(classes), most, generator)
        jobs.append(Job(partial(_of_fold, vectors, codes, known, asked), (3, len(asked)), len(known) + len(asked)))
    found = (runner or JobRunner()).run(jobs, np.float64)
    for asked, (doubt, other, sure) in zip(asked_of, found, strict=True):
        doubts[asked], others[asked], confidence[asked] = doubt, other.astype(np.int64), sure
    return CrossFold(doubts, others, confidence)


def _some_of_each(
    rows: npt.NDArray[np.integer],
    codes: npt.NDArray[np.integer],
    count: int,
    most: int,
    generator: np.random.Generator,
) -> npt.NDArray[np.integer]:
    """So many of the rows, ascending, by lot: of each of `count` classes its share, and some of a rare one."""
    quotas = allocate_quotas(counts_of(codes, count), most, "proportional", LEAST_ROWS)
    members = places_by_code(codes, count)
    drawn = [generator.choice(each, quota, replace=False) for each, quota in zip(members, quotas, strict=True)]
    return np.asarray(rows[np.sort(np.concatenate(drawn))])


def _of_fold(
    vectors: Sequence[Vectors],
    codes: npt.NDArray[np.integer],
    known: npt.NDArray[np.integer],
    asked: npt.NDArray[np.integer],
) -> npt.NDArray[np.float64]:
    """The rows of a `CrossFold` of the rows `asked`, by classifiers of the rows `known`: [3, n]."""
    models = [
        LogisticRegression(C=strength, max_iter=200).fit(each[known], codes[known])
        for each, strength in zip(vectors, _STRENGTHS, strict=False)
    ]
    classes = models[0].classes_
    place = np.full(int(codes.max()) + 1, -1)
    place[classes] = np.arange(len(classes))
    found = scratch((3, len(asked)), np.float64)
    doubts, others, confidence = found
    for block in blocks(len(asked)):
        logs = [model.predict_log_proba(each[asked[block]]) for model, each in zip(models, vectors, strict=True)]
        probabilities = np.exp(np.mean(logs, axis=0))
        probabilities /= probabilities.sum(1, keepdims=True)
        confidence[block] = probabilities.max(1)
        here, column = np.arange(len(probabilities)), place[codes[asked[block]]]
        own = np.where(column >= 0, probabilities[here, column], 0.0)
        probabilities[here[column >= 0], column[column >= 0]] = 0.0
        other = probabilities.max(1)
        others[block] = classes[probabilities.argmax(1)]
        doubts[block] = other / np.maximum(other + own, np.finfo(float).tiny)
    return found


def joined_doubts(
    unseen: npt.NDArray[np.floating], model: npt.NDArray[np.floating], views: int
) -> npt.NDArray[np.float64]:
    """Doubts of classifiers that have not seen the rows, and of the scoring model, as one: [M] in [0, 1].

    Args:
        unseen: [M], of `cross_fold`; where it is 0, nothing can be told, and it stands.
        model: [M], NaN where a row has no class, and then `unseen` stands.
        views: Number of classifiers that `unseen` is the mean of; each of them and the model counts alike.
    """
    odds = [np.log(doubt / (1 - doubt)) for doubt in (np.clip(each, _LEAST, 1 - _LEAST) for each in (unseen, model))]
    both = 1 / (1 + np.exp(-(views * odds[0] + odds[1]) / (views + 1)))
    return np.where((unseen == 0) | np.isnan(model), unseen, both)


def _stratified_folds(
    codes: npt.NDArray[np.integer], count: int, generator: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """[M] folds in [0, 5); each of the classes, `count` in number, is spread evenly over them."""
    order = places_of(np.ones(len(codes), dtype=bool))
    generator.shuffle(order)
    folds, seen = np.empty(len(codes), dtype=np.uint8), 0
    for members in places_by_code(picked(codes, order), count):
        folds[order[members]] = np.arange(seen, seen + len(members)) % FOLDS
        seen += len(members)
    return folds


def mixture_doubts(losses: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float64]:
    """How likely each row is of a kind that is harder to learn than most.

    A mixture of two normal distributions of the losses. (Agreement as a second axis found fewer of the spoilt rows:
    AUC 0.80 against 0.85 on docstrings with a fifth of the rows shuffled.)

    Args:
        losses: [M].
        seed: Seed of the mixture's beginning.

    Returns:
        [M] in [0, 1]; all 0 where one kind of rows explains the losses as well (by the Bayesian information
        criterion), or where the harder kind is the majority.
    """
    doubts = scratch(len(losses), np.float64)
    values = scratch((len(losses), 1), np.float64)
    values[:, 0] = losses
    if len(values) < LEAST_ROWS or not values.std() > 0:
        return doubts
    mean, deviation = values.mean(), values.std()
    values -= mean
    values /= deviation
    sample = values
    if len(values) > _MOST_ROWS:
        sample = values[np.random.default_rng(seed).choice(len(values), _MOST_ROWS, replace=False)]
    one, two = (GaussianMixture(kinds, n_init=3, random_state=seed).fit(sample) for kinds in (1, 2))
    harder = int(np.argmax(two.means_[:, 0]))
    if two.bic(sample) >= one.bic(sample) or two.weights_[harder] > 0.5:
        return doubts
    for block in blocks(len(values)):
        # A wide kind reaches below the other one, too: easy rows are not doubted.
        is_hard = values[block, 0] > two.means_[1 - harder, 0]
        doubts[block] = np.where(is_hard, two.predict_proba(values[block])[:, harder], 0.0)
    return doubts
