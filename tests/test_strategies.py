import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_hf.budget import allocate_quotas
from sage_hf.strategies import STRATEGIES, Candidates


def candidates(count, groups, seed, levels=1000):
    """Candidates with gaps in their row numbers and, at few levels, many ties."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(3 * count, count, replace=False)).astype(np.int64)
    scores = (rng.integers(0, levels, count) / levels).astype(np.float32)
    return Candidates(rows, scores, scores, rng.integers(0, groups, count))


@pytest.mark.parametrize("name", STRATEGIES)
@given(count=st.integers(1, 80), groups=st.integers(1, 5), share=st.floats(0, 1), seed=st.integers(0, 999))
def test_every_strategy_fills_the_quotas_with_distinct_sorted_candidates(name, count, groups, share, seed):
    pool = candidates(count, groups, seed)
    sizes = np.bincount(pool.groups, minlength=groups)
    quotas = allocate_quotas(sizes, int(share * count), "proportional")
    rows = STRATEGIES[name](pool, quotas, seed)
    assert (np.diff(rows) > 0).all()
    assert np.isin(rows, pool.rows).all()
    taken = pool.groups[np.isin(pool.rows, rows)]
    assert np.bincount(taken, minlength=groups).tolist() == quotas.tolist()
    assert np.array_equal(rows, STRATEGIES[name](pool, quotas, seed))


@given(st.integers(1, 60), st.integers(0, 999))
def test_agreement_keeps_the_highest_scores_and_gives_ties_to_the_lower_row(count, seed):
    pool = candidates(count, 1, seed, levels=4)
    quota = count // 2
    wanted = sorted(range(count), key=lambda i: (-pool.scores[i], pool.rows[i]))[:quota]
    found = STRATEGIES["agreement"](pool, np.array([quota]), 0)
    assert found.tolist() == sorted(pool.rows[wanted].tolist())


@pytest.mark.parametrize("name", STRATEGIES)
@given(count=st.integers(2, 60), seed=st.integers(0, 999))
def test_a_smaller_budget_lies_inside_a_larger_one(name, count, seed):
    pool = candidates(count, 1, seed, levels=4)
    larger = STRATEGIES[name](pool, np.array([count // 2]), 3)
    smaller = STRATEGIES[name](pool, np.array([count // 4]), 3)
    assert np.isin(smaller, larger).all()


def test_random_depends_on_the_seed():
    pool = candidates(100, 1, 0)
    first, second = (STRATEGIES["random"](pool, np.array([10]), seed) for seed in (0, 1))
    assert first.tolist() != second.tolist()
