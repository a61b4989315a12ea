import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_hf.strategies.duplicates import SIMILAR, near_duplicates
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


def clusters(x, groups=None, seed=0):
    groups = np.zeros(len(x), dtype=np.int64) if groups is None else groups
    return near_duplicates(x, groups, seed, JobRunner())


@pytest.mark.parametrize(("cosine", "share"), [(1.0, 1.0), (0.995, 0.97), (0.985, 0.9)])
def test_copies_are_found_among_many_rows(cosine, share):
    x = with_copies(5000, 300, cosine)
    first = clusters(x)
    assert (first[5000:] == np.arange(300)).mean() >= share
    assert (first[:5000] == np.arange(5000)).all()


def test_rows_that_are_only_alike_are_none():
    x = with_copies(3000, 300, 0.96)
    assert (clusters(x) == np.arange(len(x))).all()


def test_rows_of_two_groups_are_none():
    x = with_copies(200, 100, 1.0)
    groups = np.concatenate([np.zeros(200, np.int64), np.ones(100, np.int64)])
    assert (clusters(x, groups) == np.arange(300)).all()


def test_a_long_row_of_copies_is_one_cluster():
    x = np.repeat(unit(np.random.default_rng(0).normal(size=(3, 32))), 200, axis=0)
    assert (clusters(x) == np.repeat([0, 200, 400], 200)).all()


def test_rows_of_zeros_have_none():
    assert (clusters(np.zeros((20, 8), dtype=np.float32)) == np.arange(20)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(1, 6), st.integers(0, 99))
def test_whatever_is_put_together_is_similar_to_some_row_of_its_cluster(rows, width, seed):
    rng = np.random.default_rng(seed)
    x, groups = rng.normal(size=(rows, width)).astype(np.float32), rng.integers(0, 2, rows)
    first = clusters(x, groups, seed)
    assert (first <= np.arange(rows)).all() and (first[first] == first).all()
    assert (groups[first] == groups).all()
    cosines = unit(x) @ unit(x).T if rows else np.zeros((0, 0))
    np.fill_diagonal(cosines, 0)
    for row in np.flatnonzero(first != np.arange(rows)):
        mates = np.flatnonzero(first == first[row])
        assert cosines[row, mates].max() >= SIMILAR - 1e-5
