import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_hf.strategies import duplicates
from sage_hf.strategies.duplicates import LIMIT, near_duplicates
from sage_hf.strategies.jobs import JobRunner


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def with_copies(rows, copies, cosine, width=64, seed=0):
    """Random rows, and behind them rows at a cosine from the first ones."""
    rng = np.random.default_rng(seed)
    x = unit(rng.normal(size=(rows, width)))
    aside = rng.normal(size=(copies, width))
    aside = unit(aside - (aside * x[:copies]).sum(1, keepdims=True) * x[:copies])
    return np.concatenate([x, cosine * x[:copies] + np.sqrt(1 - cosine**2) * aside]).astype(np.float32)


def copies(x, groups=None, doubts=None, seed=0):
    groups = np.zeros(len(x), dtype=np.int64) if groups is None else groups
    doubts = np.zeros(len(x)) if doubts is None else doubts
    return near_duplicates(x, groups, doubts, seed, JobRunner())


@pytest.mark.parametrize(("cosine", "share"), [(1.0, 1.0), (0.995, 0.97), (0.985, 0.9)])
def test_copies_are_found_among_many_rows(cosine, share):
    found = copies(with_copies(5000, 300, cosine))
    assert found[5000:].mean() >= share and not found[:5000].any()


def test_of_a_pair_the_more_doubted_is_the_copy():
    x = with_copies(1000, 100, 1.0)
    doubts = np.where(np.arange(1100) < 1000, 0.4, 0.1)
    found = copies(x, doubts=doubts)
    assert found[:100].all() and not found[100:].any()


def test_rows_that_are_only_alike_are_none():
    assert not copies(with_copies(3000, 300, 0.96)).any()


def test_rows_of_two_groups_are_none():
    groups = np.concatenate([np.zeros(200, np.int64), np.ones(100, np.int64)])
    assert not copies(with_copies(200, 100, 1.0), groups).any()


def test_of_many_copies_one_stays():
    x = np.repeat(unit(np.random.default_rng(0).normal(size=(3, 32))), 200, axis=0)
    assert np.flatnonzero(~copies(x)).tolist() == [0, 200, 400]


def test_rows_of_zeros_have_none():
    assert not copies(np.zeros((20, 8), dtype=np.float32)).any()


@pytest.mark.parametrize("kind", ["a curve", "two dimensions", "windows of a series"])
def test_rows_that_lie_close_without_being_copies_stay(kind):
    rng = np.random.default_rng(0)
    if kind == "a curve":
        angle = np.linspace(0, np.pi, 1500)
        x = np.stack([np.cos(angle), np.sin(angle), angle], 1)
    elif kind == "two dimensions":
        x = rng.normal(size=(1500, 2))
    else:
        series = np.cumsum(rng.normal(size=1600))
        x = np.stack([series[start : start + 64] for start in range(1500)])
        x = x - x.mean(1, keepdims=True)
    found = copies(x.astype(np.float32))
    assert found.mean() < 0.35
    # Where a row is out, a row that stays is near.
    x = unit(x)
    nearest = ((x[found][:, None] - x[~found][None]) ** 2).sum(-1).min(1) if found.any() else np.zeros(1)
    assert nearest.max() <= LIMIT + 1e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(1, 6), st.integers(0, 99))
def test_whatever_is_out_is_near_to_a_row_of_its_group_that_stays(rows, width, seed):
    rng = np.random.default_rng(seed)
    x, groups = rng.normal(size=(rows, width)).astype(np.float32), rng.integers(0, 2, rows)
    found = copies(x, groups, rng.random(rows), seed)
    for row in np.flatnonzero(found):
        stays = ~found & (groups == groups[row])
        assert ((unit(x[stays]) - unit(x[row : row + 1])) ** 2).sum(1).min() <= LIMIT + 1e-6


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_large_clusters_are_led_block_by_block_as_at_once(monkeypatch, rows):
    x = unit(np.random.default_rng(0).normal(size=(4, 8)) * 0.1 + 1)[np.arange(300) % 4]
    x[::7] = unit(x[::7] + 0.05)
    doubts = np.random.default_rng(1).random(300)
    wanted = copies(x, doubts=doubts)
    monkeypatch.setattr(duplicates, "_LED_ROWS", rows)
    assert np.array_equal(copies(x, doubts=doubts), wanted) and wanted.any()
