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
from itertools import combinations

import numpy as np
import numpy.typing as npt
from sklearn.mixture import GaussianMixture

from ..strategies import Vectors
from ..strategies.base import Derived
from ..strategies.coverage import Centred, unit_rows
from ..strategies.jobs import Job, JobRunner
from ..strategies.quotas import allocate_quotas
from ..utils.columns import blocks, coded, counts_of, picked, places_by_code, places_of, scratch
from .classifiers import MANY_CLASSES, block_rows, classifier

FOLDS = 5
# Rows of a class below which nobody can say that one of them is wrong.
LEAST_ROWS = 2 * FOLDS
# Rows that a fold's classifiers learn from at most, and numbers in them.
_MOST_ROWS = 20_000
_MOST_NUMBERS = 2**24
# Inverse strengths of the regressions' penalties, on embeddings and on inputs: 1 to 10 and 1 to 3 are as good.
_STRENGTHS = (10.0, 3.0)
# When the regressions stop, by the largest entry of the gradient of their mean loss.
_TOLERANCE = 1e-4
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

    def note(self, rows: npt.NDArray[np.integer], found: npt.NDArray[np.float64]) -> None:
        """Writes down what was found of some rows, [3, n]: doubts, other classes and confidence."""
        self.doubts[rows], self.others[rows], self.confidence[rows] = found

    def at(self, places: npt.NDArray[np.integer]) -> CrossFold:
        """That on some of the rows."""
        return CrossFold(*(picked(each, places) for each in (self.doubts, self.others, self.confidence)))


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
    folds = _Folds(views, labels, seed)
    told = folds.nothing_told()
    for rows, found in folds.ask([(fold,) for fold in range(FOLDS)], runner):
        told.note(rows, found)
    return told


def cross_fold_without(
    views: Sequence[Vectors],
    labels: npt.NDArray[np.integer],
    seed: int,
    runner: JobRunner | None = None,
    tolerance: float = 1e-3,
) -> tuple[npt.NDArray[np.uint8], list[CrossFold]]:
    """`cross_fold` of the rows outside of each fold, by classifiers that know nothing of the rows inside either.

    A classifier of all rows but those of two folds serves both: ten classifiers, and not five for each fold.

    Args:
        views: As of `cross_fold`.
        labels: [M] classes, any integers.
        seed: Seed of the folds.
        runner: Shares the work out over the processes; this one alone by default.
        tolerance: When the regressions stop. Ten times that of `cross_fold` finds wrong labels as well (AUC 0.9701 in
            the place of 0.9704 on topics) in half the time.

    Returns:
        [M] folds, in [0, 5), 5 of rows of which nothing can be told; and for each of the 5 what is known of all M rows
        without it, in which nothing is told of its own.

    Raises:
        SageError: A pair of folds failed in another process.
    """
    folds = _Folds(views, labels, seed, tolerance)
    without = [folds.nothing_told() for _ in range(FOLDS)]
    pairs = list(combinations(range(FOLDS), 2))
    for (one, other), (rows, found) in zip(pairs, folds.ask(pairs, runner), strict=False):
        for left_out, asked in ((one, other), (other, one)):
            here = folds.of_row[rows] == asked
            without[left_out].note(rows[here], found[:, here])
    return folds.of_row, without


class _Folds:
    """Rows in five folds, and classifiers of all but some of these.

    Args:
        views: As of `cross_fold`.
        labels: [M] classes, any integers.
        seed: Seed of the folds.
        tolerance: When the regressions stop.

    Attributes:
        of_row: [M], 5 of rows of which nothing can be told, of any where no two classes have rows enough.
    """

    def __init__(
        self, views: Sequence[Vectors], labels: npt.NDArray[np.integer], seed: int, tolerance: float = _TOLERANCE
    ) -> None:
        classes, self._codes = coded(labels)
        self._classes, self._tolerance, self._generator = len(classes), tolerance, np.random.default_rng(seed)
        sizes = counts_of(self._codes, self._classes)
        self.of_row = np.full(len(labels), FOLDS, dtype=np.uint8)
        if np.count_nonzero(sizes >= LEAST_ROWS) >= 2:
            self.of_row = _stratified_folds(self._codes, self._classes, self._generator)
            self.of_row[picked(sizes < LEAST_ROWS, self._codes)] = FOLDS
        self._vectors = [Centred(views[0]), *(Scaled(each) for each in views[1:])]

    def nothing_told(self) -> CrossFold:
        """Of no row is anything known."""
        count = len(self._codes)
        others = scratch(count, np.int64)
        others[:] = self._codes
        return CrossFold(scratch(count, np.float64), others, scratch(count, np.float64))

    def ask(
        self, left_out: Sequence[tuple[int, ...]], runner: JobRunner | None
    ) -> list[tuple[npt.NDArray[np.integer], npt.NDArray[np.float64]]]:
        """The rows of the folds that are left out, and what classifiers of the others make of them, [3, n].

        Nothing where there are no folds.
        """
        widest = max(each.shape[1] for each in self._vectors)
        most = min(_MOST_ROWS, max(LEAST_ROWS * self._classes, _MOST_NUMBERS // widest))
        if self._classes >= MANY_CLASSES:  # the rows are read once, and none is held
            most = LEAST_ROWS * max(_MOST_ROWS, self._classes)
        jobs, asked_of = [], []
        for folds in left_out if self.of_row.min() < FOLDS else ():
            asked = places_of(np.isin(self.of_row, folds))
            known = places_of(~np.isin(self.of_row, (*folds, FOLDS)))
            if len(known) > most:
                known = _some_of_each(known, picked(self._codes, known), self._classes, most, self._generator)
            asking = partial(_of_fold, self._vectors, self._codes, known, asked, self._tolerance)
            jobs.append(Job(asking, (3, len(asked)), len(known) + len(asked)))
            asked_of.append(asked)
        return list(zip(asked_of, (runner or JobRunner()).run(jobs, np.float64, desc="classifiers"), strict=True))


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
    tolerance: float,
) -> npt.NDArray[np.float64]:
    """The rows of a `CrossFold` of the rows `asked`, by classifiers of the rows `known`: [3, n]."""
    count = int(codes.max()) + 1
    models = [
        classifier(each, known, codes[known], count, strength, tolerance)
        for each, strength in zip(vectors, _STRENGTHS, strict=False)
    ]
    classes = models[0].classes_
    place = np.full(count, -1)
    place[classes] = np.arange(len(classes))
    found = scratch((3, len(asked)), np.float64)
    doubts, others, confidence = found
    for block in blocks(len(asked), block_rows(count)):
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
