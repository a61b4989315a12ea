"""How many rows to keep, in all and of every group."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ..config import BALANCES, check_budget
from ..errors import BudgetError


def resolve_budget(num_rows: int, fraction: float | None, num_examples: int | None) -> int:
    """The number of rows to keep of `num_rows`.

    A fraction is rounded half up and never down to nothing: the least that is kept is one row.

    Raises:
        BudgetError: Both or neither were given, or more is asked than there is.
    """
    check_budget(fraction, num_examples)
    if fraction is not None:
        return max(1, math.floor(fraction * num_rows + 0.5))
    if num_examples is None:
        raise BudgetError(
            "Neither fraction nor num_examples was given",
            where="fraction, num_examples",
            fix="Give exactly one of them, for example fraction=0.1.",
        )
    if num_examples > num_rows:
        raise BudgetError(
            f"{num_examples} rows were asked for, and the dataset has {num_rows}",
            where="num_examples",
            fix=f"Ask for at most {num_rows}.",
        )
    return num_examples


def allocate_quotas(
    sizes: Sequence[int] | npt.NDArray[np.int64], budget: int, balance: str, least: int = 0
) -> npt.NDArray[np.int64]:
    """Shares a budget out over groups by the largest-remainder (Hamilton) method, in integers throughout.

    Args:
        sizes: [G], the rows that each group has to offer.
        budget: Rows to keep in all, at most the sum of `sizes`.
        balance: "proportional" gives each group the budget's share of its size; "equal" the same number each, and what
            a small group cannot fill goes to the others in equal parts.
        least: What each group gets at least, or all that it has; the others' shares then are of what is left. Where
            the budget does not reach that far, the groups get as many each as it reaches for.

    Returns:
        [G] int64, at most `sizes`, summing to exactly `budget`. Equal remainders go to the lower group.

    Raises:
        BudgetError: More is asked than the groups hold, or the balance is not one of these two.
    """
    available = np.asarray(sizes, dtype=np.int64)
    if budget > available.sum():
        raise BudgetError(
            f"{budget} rows were asked for, and the groups hold {available.sum()}",
            where="budget",
            fix=f"Ask for at most {available.sum()}.",
        )
    if balance == "proportional":
        return _at_least(
            least_quotas(available, budget, least),
            budget,
            lambda some, left: _largest_remainder(available[some], left),
        )
    if balance != "equal":
        raise BudgetError(
            f"balance {balance!r} has no quotas", where="balance", fix=f"Use one of {', '.join(BALANCES[:2])}."
        )
    return _fill_evenly(available, budget)


def least_quotas(sizes: npt.NDArray[np.int64], budget: int, least: int) -> npt.NDArray[np.int64]:
    """[G] what groups get before the rest is shared out: `least`, all that they have, or what the budget reaches."""
    wanted = np.minimum(sizes, least)
    return wanted if wanted.sum() <= budget else _fill_evenly(wanted, budget)


def _at_least(
    lowest: npt.NDArray[np.int64],
    budget: int,
    quotas_for: Callable[[npt.NDArray[np.bool_], int], npt.NDArray[np.int64]],
) -> npt.NDArray[np.int64]:
    """Quotas of at least `lowest`: groups that would get less get that, and the others share what is left.

    Args:
        lowest: [G], in all at most the budget.
        budget: Rows to keep.
        quotas_for: (which groups [G], rows) -> their quotas.
    """
    is_open = np.ones(len(lowest), dtype=bool)
    while True:
        quotas = lowest.copy()
        if is_open.any():
            quotas[is_open] = quotas_for(is_open, budget - int(lowest[~is_open].sum()))
        short = quotas < lowest
        if not short.any():
            return quotas
        is_open &= ~short


def allocate_shares(
    sizes: npt.NDArray[np.int64], shares: npt.NDArray[np.floating], budget: int, least: int = 0
) -> npt.NDArray[np.int64]:
    """Shares a budget out by wanted shares; what a small group cannot fill goes to the others by their shares.

    Args:
        sizes: [G], the rows that each group has to offer.
        shares: [G] positive weights.
        budget: Rows to keep in all, at most the sum of `sizes`.
        least: As for `allocate_quotas`.

    Returns:
        [G] int64, at most `sizes`, summing to exactly `budget`.
    """
    return _at_least(
        least_quotas(sizes, budget, least), budget, lambda some, left: _by_shares(sizes[some], shares[some], left)
    )


def _by_shares(sizes: npt.NDArray[np.int64], shares: npt.NDArray[np.floating], budget: int) -> npt.NDArray[np.int64]:
    quotas = np.zeros_like(sizes)
    while (left := budget - int(quotas.sum())) > 0:
        is_open = quotas < sizes
        wanted = np.where(is_open, shares / shares[is_open].sum() * left, 0.0)
        more = np.minimum(np.floor(wanted).astype(np.int64), sizes - quotas)
        if not more.any():  # less than one each: the largest remainders first
            more[np.argsort(-wanted, kind="stable")[: min(left, int(is_open.sum()))]] = 1
        quotas += more
    return quotas


def _fill_evenly(available: npt.NDArray[np.int64], budget: int) -> npt.NDArray[np.int64]:
    """As many from each group, or all that it has; what does not divide goes to the lower groups."""
    low, high = 0, int(available.max(initial=0))
    while low < high:  # the highest level that the budget reaches
        level = (low + high + 1) // 2
        if np.minimum(available, level).sum() <= budget:
            low = level
        else:
            high = level - 1
    quotas = np.minimum(available, low)
    quotas[np.flatnonzero(available > low)[: budget - int(quotas.sum())]] += 1
    return quotas


def _largest_remainder(weights: npt.NDArray[np.int64], budget: int) -> npt.NDArray[np.int64]:
    total = int(weights.sum())
    if total == 0:
        return np.zeros_like(weights)
    exact = [budget * int(weight) for weight in weights]
    quotas = np.array([share // total for share in exact], dtype=np.int64)
    remainders = [share % total for share in exact]
    order = sorted(range(len(exact)), key=lambda group: (-remainders[group], group))
    quotas[order[: budget - int(quotas.sum())]] += 1
    return quotas
