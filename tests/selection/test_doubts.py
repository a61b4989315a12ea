import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sage_hf.selection.doubts import FOLDS, cross_fold, cross_fold_without, joined_doubts, mixture_doubts
from sage_hf.strategies.coverage import Centred

from .noisy_labels import digits, made_wrong

LIMIT = 2 / 3


@pytest.fixture(scope="module", name="digits")
def load():
    return digits()


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_wrong_labels_are_doubted_more_than_others(digits, share):
    images, labels = digits
    noisy, wrong = made_wrong(labels, share)
    doubts = cross_fold([images], noisy, seed=0).doubts
    assert roc_auc_score(wrong, doubts) > 0.97


def test_doubts_do_not_depend_on_the_names_of_the_classes_and_follow_the_seed(digits):
    images, labels = digits[0][:300], digits[1][:300]
    doubts = cross_fold([images], labels, seed=0).doubts
    assert np.array_equal(doubts, cross_fold([images], 7 * labels - 3, seed=0).doubts)
    assert not np.array_equal(doubts, cross_fold([images], labels, seed=1).doubts)
    assert doubts.min() >= 0 and doubts.max() <= 1


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_two_doubts_join_between_them(pairs):
    one, other = (np.array(column) for column in zip(*pairs, strict=True))
    both = joined_doubts(one, other, views=2)
    assert np.allclose(joined_doubts(one, one, views=1)[one > 0], np.clip(one, 1e-6, 1 - 1e-6)[one > 0])
    judged = one > 0
    assert (both >= np.minimum(one, other) - 2e-6)[judged].all() and (both <= np.maximum(one, other) + 2e-6)[
        judged
    ].all()
    assert np.array_equal(joined_doubts(one, np.full(len(one), np.nan), views=2), one)
    assert (both[~judged] == 0).all()


def test_no_row_of_a_class_of_few_rows_is_doubted(digits):
    images, labels = digits[0][:400], digits[1][:400].copy()
    labels[labels == 3] = np.where(np.arange((labels == 3).sum()) < 9, 3, 4)
    doubts = cross_fold([images], labels, seed=0).doubts
    assert (doubts[labels == 3] == 0).all()
    assert (doubts[labels == 4] > 0).all()


@pytest.mark.parametrize("labels", [np.zeros(60, dtype=int), np.arange(60), np.repeat([0, 1], [55, 5])])
def test_without_two_classes_of_some_rows_nothing_is_doubted(labels):
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    assert (cross_fold([x], labels, seed=0).doubts == 0).all()


def test_rows_that_are_harder_to_learn_than_most_are_found_without_labels():
    rng = np.random.default_rng(0)
    losses = np.concatenate([rng.normal(2.0, 0.3, 800), rng.normal(4.0, 0.6, 200)]).astype(np.float32)
    doubts = mixture_doubts(losses, seed=0)
    assert (doubts > LIMIT)[800:].mean() > 0.9
    assert (doubts > LIMIT)[:800].mean() < 0.02
    assert doubts[losses < 1.9].max() == 0


def test_where_there_is_one_kind_of_rows_none_is_doubted():
    losses = np.random.default_rng(0).normal(2.0, 0.3, 1000).astype(np.float32)
    assert (mixture_doubts(losses, seed=0) == 0).all()
    assert (mixture_doubts(losses[:5], seed=0) == 0).all()
    assert (mixture_doubts(np.ones(50, np.float32), seed=0) == 0).all()
    mostly_hard = np.concatenate([losses[:300] - 1.5, losses[:700]])
    assert (mixture_doubts(mostly_hard, seed=0) == 0).all()


def test_a_view_that_knows_nothing_of_the_labels_finds_what_one_that_has_learned_them_does_not(digits):
    images, labels = digits
    noisy, wrong = made_wrong(labels, 0.2)
    # Embeddings of a model that has learned the labels by heart, in part.
    learned = np.concatenate([images / 16, 1.5 * np.eye(10)[noisy]], axis=1).astype(np.float32)
    alone = cross_fold([learned], noisy, seed=0)
    both = cross_fold([learned, images], noisy, seed=0)
    assert roc_auc_score(wrong, both.doubts) > max(0.95, roc_auc_score(wrong, alone.doubts))


def test_a_view_without_anything_in_it_changes_no_order_of_classes(digits):
    images, labels = digits[0][:500], digits[1][:500]
    alone, both = cross_fold([images], labels, 0), cross_fold([images, np.zeros((500, 1), np.float32)], labels, 0)
    assert ((alone.doubts > 0.5) == (both.doubts > 0.5)).mean() > 0.99


def test_confidence_is_that_of_the_likeliest_class(digits):
    images, labels = digits[0][:500], digits[1][:500]
    found = cross_fold([images, images], labels, 0)
    assert (found.confidence > 0.1 - 1e-9).all() and (found.confidence <= 1).all()
    predicted_own = found.doubts < 0.5
    assert (found.others[~predicted_own] != labels[~predicted_own]).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_rare_class_of_many_rows_is_known_to_every_fold(seed, monkeypatch):
    monkeypatch.setattr("sage_hf.selection.doubts._MOST_ROWS", 300)
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(6000) % 2, np.full(12, 2)])
    x = (4 * np.eye(3, 6)[labels] + rng.normal(0, 0.3, (len(labels), 6))).astype(np.float32)
    assert cross_fold([x, x], labels, seed).doubts[labels == 2].max() < 0.5
    few = np.concatenate([np.zeros(6000, np.int64), np.ones(10, np.int64)])
    assert (cross_fold([x[: len(few)]], few, seed).confidence > 0).all()


def test_doubts_without_a_fold_are_those_of_classifiers_that_saw_neither_it_nor_the_row(digits):
    images, labels = digits[0][:400], made_wrong(digits[1], 0.2)[0][:400]
    folds, without = cross_fold_without([images], labels, seed=0, tolerance=1e-4)
    for left_out in range(FOLDS):
        assert not without[left_out].doubts[folds == left_out].any()
        for asked in set(range(FOLDS)) - {left_out}:
            known, rows = ~np.isin(folds, (left_out, asked)), folds == asked
            x = Centred(images)[np.arange(400)]
            found = LogisticRegression(C=10, max_iter=200).fit(x[known], labels[known]).predict_proba(x[rows])
            own, here = labels[rows], np.arange(rows.sum())
            others = found.copy()
            others[here, own] = 0
            doubts = others.max(1) / (others.max(1) + found[here, own])
            assert np.allclose(without[left_out].doubts[rows], doubts, atol=1e-6)
            assert np.array_equal(without[left_out].others[rows], others.argmax(1))
            assert np.allclose(without[left_out].confidence[rows], found.max(1), atol=1e-6)


def test_without_two_classes_of_some_rows_no_fold_tells_anything():
    folds, without = cross_fold_without([np.ones((12, 3))], np.zeros(12, np.int64), seed=0)
    assert (folds == FOLDS).all() and not any(each.confidence.any() or each.doubts.any() for each in without)
