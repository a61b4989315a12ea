import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_hf.errors import BudgetError
from sage_hf.strategies.quotas import allocate_quotas, allocate_shares, resolve_budget

sizes_and_budget = st.lists(st.integers(0, 60), min_size=1, max_size=12).flatmap(
    lambda sizes: st.tuples(st.just(sizes), st.integers(0, sum(sizes)))
)


@given(sizes_and_budget, st.sampled_from(["proportional", "sqrt", "equal"]))
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


@given(sizes_and_budget, st.sampled_from(["proportional", "sqrt", "equal"]), st.integers(0, 12))
def test_every_group_gets_the_least_that_it_has_and_the_budget_allows(case, balance, least):
    sizes, budget = np.array(case[0]), case[1]
    quotas = allocate_quotas(sizes, budget, balance, least)
    assert quotas.sum() == budget
    assert (quotas <= sizes).all() and (quotas >= 0).all()
    wanted = np.minimum(sizes, least)
    if wanted.sum() <= budget:
        assert (quotas >= wanted).all()
    else:  # as many each as the budget reaches, and one more for some
        level = max(each for each in range(least + 1) if np.minimum(sizes, each).sum() <= budget)
        assert (quotas >= np.minimum(sizes, level)).all() and (quotas <= np.minimum(sizes, level + 1)).all()


@given(sizes_and_budget, st.integers(0, 12))
def test_beyond_the_least_shares_are_proportional_to_the_sizes(case, least):
    sizes, budget = np.array(case[0]), case[1]
    quotas = allocate_quotas(sizes, budget, "proportional", least)
    rest = quotas > np.minimum(sizes, least)
    shares = sizes[rest] * quotas[rest].sum() / max(1, sizes[rest].sum())
    assert (np.abs(quotas[rest] - shares) <= 1 + 1e-9).all() or not rest.any()
    assert (np.diff(quotas[np.argsort(sizes, kind="stable")]) >= -1).all()


@given(sizes_and_budget, st.integers(0, 3))
def test_a_larger_budget_takes_no_more_than_one_row_from_a_group(case, least):
    sizes, budget = np.array(case[0]), case[1]
    if budget < sizes.sum():
        more = allocate_quotas(sizes, budget + 1, "proportional", least)
        assert (more >= allocate_quotas(sizes, budget, "proportional", least) - 1).all()


@given(sizes_and_budget)
def test_a_least_that_all_groups_have_anyway_changes_nothing(case):
    sizes, budget = np.array(case[0]), case[1]
    for balance in ("proportional", "sqrt", "equal"):
        plain = allocate_quotas(sizes, budget, balance)
        if (plain >= np.minimum(sizes, 1)).all():
            assert allocate_quotas(sizes, budget, balance, 1).tolist() == plain.tolist()


@given(sizes_and_budget, st.integers(0, 6), st.data())
def test_shares_of_targets_leave_each_the_least(case, least, data):
    sizes, budget = np.array(case[0]), case[1]
    weights = st.lists(st.floats(0.01, 100), min_size=len(sizes), max_size=len(sizes))
    quotas = allocate_shares(sizes, np.array(data.draw(weights)), budget, least)
    assert quotas.sum() == budget and (quotas <= sizes).all()
    wanted = np.minimum(sizes, least)
    assert wanted.sum() > budget or (quotas >= wanted).all()


def test_a_class_of_three_rows_gets_none_of_a_tenth_unless_asked():
    assert allocate_quotas([100, 97, 3], 20, "proportional").tolist() == [10, 10, 0]
    assert allocate_quotas([100, 97, 3], 20, "proportional", 1).tolist() == [10, 9, 1]
    assert allocate_quotas([100, 97, 3], 20, "proportional", 5).tolist() == [9, 8, 3]


def test_small_groups_are_topped_up_from_the_others():
    assert allocate_quotas([2, 50, 50], 32, "equal").tolist() == [2, 15, 15]


def test_roots_of_sizes_favour_small_groups():
    assert allocate_quotas([100, 900], 40, "sqrt").tolist() == [10, 30]
    assert allocate_quotas([100, 900], 40, "proportional").tolist() == [4, 36]
    assert allocate_quotas([4, 28, 28], 12, "sqrt").tolist() == [2, 5, 5]
    assert allocate_quotas([1, 400], 42, "sqrt").tolist() == [
        1,
        41,
    ]  # what a full group cannot take goes to the others


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


def test_a_budget_below_one_row_a_group_goes_to_the_largest_groups():
    assert allocate_quotas([2, 50, 9, 50], 2, "proportional", least=1).tolist() == [0, 1, 0, 1]
    assert allocate_quotas([2, 50, 0, 50], 3, "sqrt", least=1).tolist() == [1, 1, 0, 1]
