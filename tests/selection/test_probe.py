from dataclasses import replace

import numpy as np
import pytest

from sage_hf.selection.gate import Verdict
from sage_hf.selection.probe import probe
from sage_hf.selection.recipes import DEFAULT, RECIPES, Question
from sage_hf.selection.signals import RowSignals

from .noisy_labels import signals_of


@pytest.fixture
def given_doubts(monkeypatch):
    """The doubts of a question stand, as if other rows had told them."""
    monkeypatch.setattr("sage_hf.selection.probe._doubted_anew", lambda part, *_: part)


def question(inputs, labels, doubts, quota):
    """A question on rows whose embeddings, gradients and inputs are the same vectors."""
    count, signals = len(labels), signals_of(inputs, labels)
    quotas = np.full(int(labels.max()) + 1, quota)
    verdict = Verdict(doubts, np.zeros(count, bool), "cross-fold", 0.0)
    return Question(signals.candidates(True, None), quotas, quotas, verdict, np.zeros(count, bool), 0), signals


def hard_rows(count=1600, classes=4, width=24, seed=0):
    """Classes around a centre each; half of the rows have another class's look, and are doubted for it."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    odd = rng.random(count) < 0.5
    look = np.where(odd, rng.integers(0, classes, count), labels)
    inputs = 2 * np.eye(classes, width)[look] + rng.normal(0, 0.6, (count, width))
    return (
        inputs.astype(np.float32),
        labels,
        np.where(odd, rng.uniform(0.3, 0.5, count), rng.uniform(0.01, 0.2, count)),
    )


def test_where_hard_rows_teach_nothing_the_plainer_ones_are_taken(given_doubts):
    recipe, tried = probe(*question(*hard_rows(), quota=20))
    assert recipe.aside == 0.5
    leads = {each.name: each.lead for each in tried}
    assert leads[recipe.name] > 0.05 and leads[DEFAULT.name] == 0


def test_where_doubts_tell_nothing_the_default_stays(given_doubts):
    inputs, labels, _ = hard_rows()
    doubts = np.random.default_rng(1).uniform(0.01, 0.5, len(labels))
    recipe, tried = probe(*question(inputs, labels, doubts, quota=40))
    assert recipe == DEFAULT and len(tried) == len(RECIPES)
    assert all(0 <= each.accuracy <= 1 and each.error >= 0 for each in tried)


@pytest.mark.parametrize("count", [40, 199])
def test_of_few_rows_a_probe_tells_nothing(count):
    inputs, labels, doubts = (column[:count] for column in hard_rows())
    assert probe(*question(inputs, labels, doubts, quota=3)) == (DEFAULT, [])


def test_without_labels_inputs_or_a_choice_to_make_there_is_no_probe():
    asked, signals = question(*hard_rows(400), quota=100)
    assert probe(asked, signals) == (DEFAULT, [])  # all rows are kept
    asked, signals = question(*hard_rows(400), quota=10)
    assert probe(asked, RowSignals(signals.groups, signals.status, signals.scores, signals.losses)) == (DEFAULT, [])
    one_class = question(hard_rows(400)[0], np.zeros(400, int), hard_rows(400)[2], quota=10)
    assert probe(*one_class) == (DEFAULT, [])


def test_a_part_of_a_question_has_its_part_of_the_quotas():
    asked, _ = question(*hard_rows(400), quota=30)
    half = asked.part(np.arange(0, 400, 3), 1 / 3)
    assert half.quotas.sum() == 40 and (half.quotas > 0).all()
    assert set(half.answer(DEFAULT)) <= set(range(0, 400, 3))
    same = asked.part(np.flatnonzero(np.arange(400) // 4 % 2), 1.0)
    assert same.quotas.tolist() == [30, 30, 30, 30]
    few = asked.part(np.arange(100), 1.0)
    assert few.quotas.tolist() == [25, 25, 25, 25]


def test_more_rows_than_are_looked_at_are_probed_by_some(monkeypatch, given_doubts):
    monkeypatch.setattr("sage_hf.selection.probe._MOST_ROWS", 800)
    monkeypatch.setattr("sage_hf.selection.probe._MOST_KNOWN", 50)
    recipe, tried = probe(*question(*hard_rows(), quota=40))
    assert recipe.aside == 0.5 and len(tried) == len(RECIPES)


def test_where_rows_are_called_wrong_that_are_right_all_may_be_kept(given_doubts):
    rng = np.random.default_rng(0)
    labels = np.arange(1600) % 4
    side = rng.random(1600) < 0.5  # half of each class looks different, and is called wrong for it
    inputs = (2 * np.eye(8, 24)[labels + 4 * side] + rng.normal(0, 0.5, (1600, 24))).astype(np.float32)
    asked, signals = question(inputs, labels, np.where(side, 0.8, 0.1), quota=20)
    asked = replace(asked, verdict=replace(asked.verdict, doubted=side))
    recipe, tried = probe(asked, signals)
    assert recipe.keeps_wrong and len(tried) == len(RECIPES)


@pytest.mark.parametrize("seed", range(3))
def test_of_labels_by_lot_plain_rows_teach_no_more(seed):
    # Doubts of classifiers that have seen the labels of those that judge would let the plainer half lead by 5 points.
    rng = np.random.default_rng(seed)
    inputs, labels = rng.normal(size=(1500, 24)).astype(np.float32), rng.integers(0, 5, 1500)
    _, tried = probe(*question(inputs, labels, np.zeros(1500), quota=30))
    assert all(each.lead < 3 * each.error + 1e-9 for each in tried)


def test_in_classes_of_a_few_rows_a_probe_tells_nothing():
    rng = np.random.default_rng(0)
    asked = question(rng.normal(size=(300, 8)).astype(np.float32), np.arange(300) % 60, np.full(300, 0.5), quota=1)
    assert probe(*asked) == (DEFAULT, [])
