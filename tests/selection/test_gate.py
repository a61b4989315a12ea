import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from sage_hf import SageConfig
from sage_hf.data.groups import Groups
from sage_hf.selection.gate import (
    PLENTY,
    Verdict,
    judge,
    label_doubts,
    let_through,
    set_hard_aside,
)
from sage_hf.selection.signals import RowSignals
from sage_hf.strategies import Candidates

from .noisy_labels import digits, made_wrong


@pytest.fixture(scope="module", name="digits")
def load():
    return digits()


@pytest.mark.parametrize("kind", ["uniform", "class"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.2, 0.4])
def test_as_many_labels_are_called_wrong_as_are(digits, share, kind):
    if (share, kind) == (0.4, "class"):
        return  # nearly half of a class with one other name: nobody can tell which is right
    images, labels = digits
    noisy, wrong = made_wrong(labels, share, kind)
    found = label_doubts([images, images], noisy, None, seed=0)
    assert found.share == pytest.approx(share, abs=0.02)
    assert found.wrong.mean() == pytest.approx(share, abs=0.02)
    if share:
        assert wrong[found.wrong].mean() > 0.8
        assert roc_auc_score(wrong, found.doubts) > 0.95
    assert (found.unsafe | ~found.wrong).all() and found.unsafe.sum() <= 2 * share_rows(found) + 1
    assert (found.doubts[found.unsafe] > 0.5).all()
    assert wrong[found.unsafe].sum() >= wrong[found.wrong].sum()


def share_rows(found):
    return found.share * len(found.doubts)


def test_rows_of_which_nothing_can_be_told_are_not_called_wrong(digits):
    images, labels = digits[0][:60], np.arange(60)
    found = label_doubts([images], labels, np.full(60, 0.9), seed=0)
    assert found.share is None and not found.wrong.any() and (found.doubts == 0).all()


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
    assert not judge(SageConfig(), signals, candidates).doubted.any()  # the labels are right


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


def test_right_labels_that_no_linear_rule_tells_are_not_called_wrong():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 8)).astype(np.float32)
    parity = ((x[:, :3] > 0).sum(1) % 2).astype(np.int64)
    found = label_doubts([x, x], parity, None, seed=0)
    assert found.share is None and not found.wrong.any()
