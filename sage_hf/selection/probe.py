"""Which recipe suits this dataset at this budget: found by cheap classifiers that learn from what each would keep.

Easy data wants its hard rows, hard data wants them out, and the budget moves the border. So every recipe chooses from
four fifths of the rows, a kernel ridge regression on the inputs of what it keeps (`data.inputs`) is judged by the
rows that were left out, and so on for each fifth. Wrong labels among these lower what all recipes reach alike; rows
that are only likely wrong must judge, or a recipe that leaves right ones out would look no worse. The inputs, and no
embeddings of the scoring model: it makes the rows that it has learned look alike, and then any few of them will do.

A recipe is taken in the place of the default where it leads by more than chance would let it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
from sklearn.kernel_ridge import KernelRidge

from ..data.stats import TriedRecipe
from ..strategies import Vectors
from ..strategies.base import PartOf
from ..strategies.jobs import Job
from ..utils.columns import coded
from .doubts import FOLDS, CrossFold, Scaled, cross_fold_without
from .gate import likely_wrong
from .recipes import DEFAULT, RECIPES, Question, Recipe
from .signals import RowSignals, at

# Rows below which a probe tells nothing, and rows that it looks at, at most.
_LEAST_ROWS, _MOST_ROWS = 200, 2**13
# Rows that a classifier learns from at most.
_MOST_KNOWN = 2**11
# Of the kernel ridge regression on unit inputs. A linear one followed real trainings less, and where borders are
# curved it is for plain rows whatever a model learns.
_NARROWNESS, _PENALTY = 1.0, 0.1
# Standard errors by which a recipe must lead.
LEAD = 2.0


def probe(question: Question, signals: RowSignals) -> tuple[Recipe, list[TriedRecipe]]:
    """The recipe for a question, and what came of all that were tried; none where a probe tells nothing.

    Args:
        question: The rows, all of them.
        signals: Signals of all rows: their labels, and the inputs.
    """
    candidates = question.candidates
    count = len(candidates)
    if signals.labels is None or signals.inputs is None or count < _LEAST_ROWS:
        return DEFAULT, []
    generator = np.random.default_rng(question.seed)
    places = np.sort(generator.choice(count, min(count, _MOST_ROWS), replace=False))
    whole = question if len(places) == count else question.part(places, len(places) / count)
    rows = whole.candidates.rows
    _, codes = coded(at(signals.labels, rows))
    if codes.max() == 0 or whole.quotas.sum() >= len(rows):
        return DEFAULT, []
    assert whole.candidates.embeddings is not None
    views = [whole.candidates.embeddings, PartOf(signals.inputs, rows)]
    inputs = Scaled(views[1])
    folds, doubts = cross_fold_without(views, codes, question.seed, candidates.runner)
    jobs = []
    for fold in range(FOLDS):
        judges, others = np.flatnonzero((folds == fold) & ~whole.copies), np.flatnonzero(folds != fold)
        if not len(judges):  # in classes of a few rows nothing can be told of any
            continue
        answers = _answers(_doubted_anew(whole.part(others, 1.0), codes[others], doubts[fold].at(others)))
        for known in answers if len(answers[0]) else ():
            known = np.searchsorted(rows, known)
            if len(known) > _MOST_KNOWN:  # of the same rows the same ones
                lot = np.random.default_rng([question.seed, fold])
                known = np.sort(lot.choice(known, _MOST_KNOWN, replace=False))
            jobs.append(
                Job(partial(_is_right, inputs, codes, known, judges), (len(judges),), len(known) + len(judges))
            )
    if not jobs:
        return DEFAULT, []
    found = candidates.runner.run(jobs, np.uint8, desc="the probe: trying recipes")
    right = np.array([np.concatenate(found[number :: len(RECIPES)]) for number in range(len(RECIPES))], dtype=float)
    lead = right - right[0]
    error = lead.std(1) / np.sqrt(max(1, right.shape[1]))
    tried = [
        TriedRecipe(recipe.name, *(float(each[number]) for each in (right.mean(1), lead.mean(1), error)))
        for number, recipe in enumerate(RECIPES)
    ]
    best = int(np.argmax(lead.mean(1) - LEAD * error))
    return RECIPES[best], tried


def _doubted_anew(question: Question, labels: npt.NDArray[np.integer], doubts: CrossFold) -> Question:
    """The same, with doubts that know nothing of rows that are left out.

    Classifiers that have seen the labels of those that judge call rows plain that agree with them: of labels drawn by
    lot, the plainer half then led by 5 points.
    """
    found = likely_wrong(labels, doubts, doubts.doubts)
    verdict = replace(question.verdict, doubts=found.doubts, doubted=found.unsafe, share=found.share)
    return replace(question, verdict=verdict)


def _answers(question: Question) -> list[npt.NDArray[np.int64]]:
    """What each recipe keeps; recipes that leave the same rows out, as where none is doubted, are asked once."""
    answers: dict[tuple[str, bytes], npt.NDArray[np.int64]] = {}
    found = []
    for recipe in RECIPES:
        key = recipe.strategy, np.packbits(question.verdict_for(recipe).doubted).tobytes()
        if key not in answers:
            answers[key] = question.answer(recipe)
        found.append(answers[key])
    return found


def _is_right(
    inputs: Vectors, codes: npt.NDArray[np.integer], known: npt.NDArray[np.int64], judges: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """Whether a classifier of the rows `known` finds the classes of the rows `judges`: [judges]."""
    classes = np.zeros((len(known), int(codes.max()) + 1))
    classes[np.arange(len(known)), codes[known]] = 1.0
    shares = classes.mean(0)
    model = KernelRidge(kernel="rbf", gamma=_NARROWNESS, alpha=_PENALTY).fit(inputs[known], classes - shares)
    found = model.predict(inputs[judges]) + shares
    return np.asarray(found.argmax(1) == codes[judges], dtype=np.uint8)
