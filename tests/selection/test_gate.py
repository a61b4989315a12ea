import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from sage_hf import SageConfig
from sage_hf.data.groups import Groups
from sage_hf.selection.gate import (
    DOUBT_LIMIT,
    PLENTY,
    Verdict,
    cross_fold_doubts,
    joined_doubts,
    judge,
    let_through,
    mixture_doubts,
    set_hard_aside,
)
from sage_hf.selection.signals import RowSignals
from sage_hf.strategies import Candidates


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return data.data.astype(np.float32), data.target


def made_wrong(labels, share, seed=0):
    """Labels of which a share is another class, and which these are."""
    rng = np.random.default_rng(seed)
    wrong = np.zeros(len(labels), dtype=bool)
    wrong[rng.permutation(len(labels))[: round(share * len(labels))]] = True
    return np.where(wrong, (labels + rng.integers(1, 10, len(labels))) % 10, labels), wrong


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_wrong_labels_are_doubted_and_their_share_is_found(digits, share):
    images, labels = digits
    noisy, wrong = made_wrong(labels, share)
    doubts = cross_fold_doubts(images, noisy, seed=0)
    assert roc_auc_score(wrong, doubts) > 0.97
    doubted = doubts > DOUBT_LIMIT
    assert doubted[wrong].mean() > 0.9
    assert doubted.mean() < share + 0.08


def test_of_clean_easy_data_hardly_a_row_goes(digits):
    images, labels = digits
    assert (cross_fold_doubts(images, labels, seed=0) > DOUBT_LIMIT).mean() < 0.05


def test_doubts_do_not_depend_on_the_names_of_the_classes_and_follow_the_seed(digits):
    images, labels = digits[0][:300], digits[1][:300]
    doubts = cross_fold_doubts(images, labels, seed=0)
    assert np.array_equal(doubts, cross_fold_doubts(images, 7 * labels - 3, seed=0))
    assert not np.array_equal(doubts, cross_fold_doubts(images, labels, seed=1))
    assert doubts.min() >= 0 and doubts.max() <= 1


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_two_doubts_join_between_them(pairs):
    one, other = (np.array(column) for column in zip(*pairs, strict=True))
    both = joined_doubts(one, other)
    judged = one > 0
    assert (both >= np.minimum(one, other) - 2e-6)[judged].all() and (both <= np.maximum(one, other) + 2e-6)[
        judged
    ].all()
    assert np.array_equal(joined_doubts(one, np.full(len(one), np.nan)), one)
    assert (both[~judged] == 0).all()


def test_no_row_of_a_class_of_few_rows_is_doubted(digits):
    images, labels = digits[0][:400], digits[1][:400].copy()
    labels[labels == 3] = np.where(np.arange((labels == 3).sum()) < 9, 3, 4)
    doubts = cross_fold_doubts(images, labels, seed=0)
    assert (doubts[labels == 3] == 0).all()
    assert (doubts[labels == 4] > 0).all()


@pytest.mark.parametrize("labels", [np.zeros(60, dtype=int), np.arange(60), np.repeat([0, 1], [55, 5])])
def test_without_two_classes_of_some_rows_nothing_is_doubted(labels):
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    assert (cross_fold_doubts(x, labels, seed=0) == 0).all()


def test_rows_that_are_harder_to_learn_than_most_are_found_without_labels():
    rng = np.random.default_rng(0)
    losses = np.concatenate([rng.normal(2.0, 0.3, 800), rng.normal(4.0, 0.6, 200)]).astype(np.float32)
    doubts = mixture_doubts(losses, seed=0)
    assert (doubts > DOUBT_LIMIT)[800:].mean() > 0.9
    assert (doubts > DOUBT_LIMIT)[:800].mean() < 0.02
    assert doubts[losses < 1.9].max() == 0


def test_where_there_is_one_kind_of_rows_none_is_doubted():
    losses = np.random.default_rng(0).normal(2.0, 0.3, 1000).astype(np.float32)
    assert (mixture_doubts(losses, seed=0) == 0).all()
    assert (mixture_doubts(losses[:5], seed=0) == 0).all()
    assert (mixture_doubts(np.ones(50, np.float32), seed=0) == 0).all()
    mostly_hard = np.concatenate([losses[:300] - 1.5, losses[:700]])
    assert (mixture_doubts(mostly_hard, seed=0) == 0).all()


def pool_of(groups, seed=0):
    count = len(groups)
    flat = np.random.default_rng(seed).random(count).astype(np.float32)
    return Candidates(2 * np.arange(count), flat, flat, np.asarray(groups, dtype=np.int64))


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(0, 99)
)
def test_what_passes_fills_the_quotas_with_as_few_doubted_as_can_be(rows, seed):
    groups = [group for group, _, _ in rows]
    doubts, doubted = np.array([doubt for _, doubt, _ in rows]), np.array([is_doubted for _, _, is_doubted in rows])
    pool = pool_of(groups)
    sizes = np.bincount(groups, minlength=3)
    quotas = np.random.default_rng(seed).integers(0, sizes + 1)
    through = let_through(pool, quotas, Verdict(doubts, doubted, "share"))
    place = np.searchsorted(pool.rows, through.rows)
    for group in range(3):
        mine = pool.groups == group
        kept = np.isin(np.arange(len(rows)), place) & mine
        clean = mine & ~doubted
        assert kept[clean].all()
        assert kept.sum() == max(clean.sum(), quotas[group])
        stayed, went = doubts[kept & doubted], doubts[mine & ~kept]
        assert not len(stayed) or not len(went) or stayed.max() <= went.min()


def test_a_share_takes_the_most_doubted_of_each_group(digits):
    images, labels = digits[0][:500], digits[1][:500]
    groups = Groups.from_values("label", labels.tolist())
    flat = np.ones(500, dtype=np.float32)
    signals = RowSignals(
        groups, np.zeros(500, np.uint8), flat, flat, labels=labels.astype(np.int32), embeddings=images
    )
    candidates = signals.candidates(True, None)
    verdict = judge(SageConfig(gate=0.25), signals, candidates)
    for group in range(10):
        mine = labels == group
        assert verdict.doubted[mine].sum() == int(0.25 * mine.sum() + 0.5)
        assert verdict.doubts[mine & verdict.doubted].min() >= verdict.doubts[mine & ~verdict.doubted].max()
    assert np.array_equal(judge(SageConfig(), signals, candidates).doubted, verdict.doubts > DOUBT_LIMIT)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1), st.booleans()), min_size=1, max_size=60),
    st.lists(st.integers(0, 2 * PLENTY), min_size=3, max_size=3),
)
def test_the_fewer_rows_a_group_keeps_the_more_of_its_doubtful_half_goes(rows, quotas):
    groups = np.array([group for group, _, _ in rows])
    doubts, doubted = np.array([doubt for _, doubt, _ in rows]), np.array([is_doubted for _, _, is_doubted in rows])
    before = Verdict(doubts, doubted, "cross-fold")
    after = set_hard_aside(pool_of(groups), np.array(quotas), before)
    assert after.doubted[doubted].all() and np.array_equal(before.doubted, doubted)
    for group, quota in enumerate(quotas):
        mine = (groups == group) & (doubts > 0)
        new = after.doubted & ~doubted & (groups == group)
        most = (1 - quota / PLENTY) / 2 * mine.sum() + 0.5 if 0 < quota < PLENTY else 0
        assert new.sum() <= most
        assert not new[doubts == 0].any()
        stays = mine & ~after.doubted
        assert not new.any() or not stays.any() or doubts[stays].max() <= doubts[new].min()


def test_half_of_a_group_is_set_aside_for_its_single_row_and_nothing_where_rows_are_plenty():
    doubts = np.linspace(0.01, 0.5, 120)
    pool, nobody = pool_of([0] * 120), Verdict(doubts, np.zeros(120, dtype=bool), "cross-fold")
    shares = [set_hard_aside(pool, np.array([quota]), nobody).doubted.mean() for quota in (1, 3, 6, 12, 60)]
    assert np.allclose(shares, [0.4583, 0.375, 0.25, 0, 0], atol=0.005)
