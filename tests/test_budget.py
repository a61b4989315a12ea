import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_hf.budget import allocate_quotas, resolve_budget
from sage_hf.errors import BudgetError

sizes_and_budget = st.lists(st.integers(0, 60), min_size=1, max_size=12).flatmap(
    lambda sizes: st.tuples(st.just(sizes), st.integers(0, sum(sizes)))
)


@given(sizes_and_budget, st.sampled_from(["proportional", "equal"]))
def test_quotas_sum_to_exactly_the_budget_and_no_group_gives_more_than_it_has(case, balance):
    sizes, budget = case
    quotas = allocate_quotas(sizes, budget, balance)
    assert quotas.sum() == budget
    assert (quotas <= np.array(sizes)).all()
    assert (quotas >= 0).all()


@given(sizes_and_budget)
def test_proportional_quotas_are_the_exact_share_rounded_up_or_down(case):
    sizes, budget = case
    quotas = allocate_quotas(sizes, budget, "proportional")
    shares = np.array(sizes) * budget / max(1, sum(sizes))
    assert (np.abs(quotas - shares) < 1).all()


@given(sizes_and_budget)
def test_equal_quotas_differ_by_at_most_one_between_groups_that_are_not_used_up(case):
    sizes, budget = case
    quotas = allocate_quotas(sizes, budget, "equal")
    unfilled = quotas[quotas < np.array(sizes)]
    if len(unfilled):
        assert quotas.max() - unfilled.min() <= 1


def test_small_groups_are_topped_up_from_the_others():
    assert allocate_quotas([2, 50, 50], 32, "equal").tolist() == [2, 15, 15]


def test_equal_remainders_go_to_the_lower_group():
    assert allocate_quotas([10, 10, 10], 4, "proportional").tolist() == [2, 1, 1]


@pytest.mark.parametrize(("fraction", "rows", "kept"), [(0.1, 100, 10), (0.1, 25, 3), (0.001, 10, 1), (1.0, 7, 7)])
def test_a_fraction_is_rounded_half_up_and_never_down_to_nothing(fraction, rows, kept):
    assert resolve_budget(rows, fraction, None) == kept


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(BudgetError, match="above 0 and at most 1"):
        resolve_budget(10, fraction, None)


def test_impossible_budgets_are_refused_with_the_number_that_is_there():
    with pytest.raises(BudgetError, match="Neither"):
        resolve_budget(10, None, None)
    with pytest.raises(BudgetError, match="Both"):
        resolve_budget(10, 0.5, 5)
    with pytest.raises(BudgetError, match="at most 10"):
        resolve_budget(10, None, 11)
    with pytest.raises(BudgetError, match="at least one row"):
        resolve_budget(10, None, 0)
    with pytest.raises(BudgetError, match="the groups hold 3"):
        allocate_quotas([1, 2], 4, "equal")
    with pytest.raises(BudgetError, match="balance"):
        allocate_quotas([1, 2], 2, "none")
