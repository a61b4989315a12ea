"""How many rows to keep, in all and of every group."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ..config import BALANCES, check_budget
from ..errors import BudgetError

Ints = npt.NDArray[np.int64]


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
        fix = "Give exactly one of them, for example fraction=0.1."
        raise BudgetError("Neither fraction nor num_examples was given", where="fraction, num_examples", fix=fix)
    if num_examples > num_rows:
        raise BudgetError(
            f"{num_examples} rows were asked for, and the dataset has {num_rows}",
            where="num_examples",
            fix=f"Ask for at most {num_rows}.",
        )
    return num_examples


def allocate_quotas(sizes: Sequence[int] | Ints, budget: int, balance: str, least: int = 0) -> Ints:
    """Shares a budget out over groups by the largest-remainder (Hamilton) method, in integers throughout.

    Args:
        sizes: [G], the rows that each group has to offer.
        budget: Rows to keep in all, at most the sum of `sizes`.
        balance: "proportional" gives each group the budget's share of its size; "sqrt" by the root of its size;
            "equal" the same number each. What a small group cannot fill goes to the others in the same way.
        least: What each group gets at least, or all that it has; the others' shares then are of what is left. Where
            the budget does not reach that far, the groups get as many each as it reaches for; where it does not reach
            for one each, the largest get one.

    Returns:
        [G] int64, at most `sizes`, summing to exactly `budget`. Equal remainders go to the lower group.

    Raises:
        BudgetError: More is asked than the groups hold, or the balance is not one of these.
    """
    available = np.asarray(sizes, dtype=np.int64)
    if budget > available.sum():
        raise BudgetError(
            f"{budget} rows were asked for, and the groups hold {available.sum()}",
            where="budget",
            fix=f"Ask for at most {available.sum()}.",
        )
    if balance == "proportional":
        lowest = least_quotas(available, budget, least)
        return _at_least(lowest, budget, lambda some, left: _largest_remainder(available[some], left))
    if balance == "sqrt":
        return allocate_shares(available, np.sqrt(available), budget, least)
    if balance != "equal":
        raise BudgetError(
            f"balance {balance!r} has no quotas", where="balance", fix=f"Use one of {', '.join(BALANCES[:3])}."
        )
    return _fill_evenly(available, budget)


def least_quotas(sizes: Ints, budget: int, least: int) -> Ints:
    """[G] what groups get before the rest is shared out: `least`, all that they have, or what the budget reaches.

    Where it does not reach for one row each, the largest groups get one, the lower of equal ones.
    """
    wanted = np.minimum(sizes, least)
    if wanted.sum() <= budget:
        return wanted
    if np.count_nonzero(sizes) <= budget:
        return _fill_evenly(wanted, budget)
    wanted[:] = 0
    wanted[np.argsort(-sizes, kind="stable")[:budget]] = 1
    return wanted


def _at_least(
    lowest: Ints,
    budget: int,
    quotas_for: Callable[[npt.NDArray[np.bool_], int], Ints],
) -> Ints:
    """Quotas of at least `lowest` [G]: groups that would get less get that, and the others share what is left.

    `quotas_for` is (which groups [G], rows) -> their quotas.
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


def allocate_shares(sizes: Ints, shares: npt.NDArray[np.floating], budget: int, least: int = 0) -> Ints:
    """`allocate_quotas` by wanted shares, [G] positive weights, in the place of sizes.

    What a small group cannot fill goes to the others by their shares.
    """
    lowest = least_quotas(sizes, budget, least)
    return _at_least(lowest, budget, lambda some, left: _by_shares(sizes[some], shares[some], left))


def _by_shares(sizes: Ints, shares: npt.NDArray[np.floating], budget: int) -> Ints:
    quotas = np.zeros_like(sizes)
    while (left := budget - int(quotas.sum())) > 0:
        room = sizes - quotas
        wanted = np.where(room > 0, shares / shares[room > 0].sum() * left, 0.0)
        whole = np.floor(wanted).astype(np.int64)
        more = np.minimum(whole, room)
        if (more == whole).all():  # no group is full: what does not divide goes to the largest remainders
            has_room = np.flatnonzero(room > more)
            order = has_room[np.argsort(-(wanted - whole)[has_room], kind="stable")]
            more[order[: left - int(more.sum())]] += 1
        quotas += more
    return quotas


def _fill_evenly(available: Ints, budget: int) -> Ints:
    """As many from each group, or all that it has; what does not divide goes to the lower groups."""
    levels = range(1, int(available.max(initial=0)) + 1)
    level = bisect_right(levels, budget, key=lambda level: int(np.minimum(available, level).sum()))  # that it reaches
    quotas = np.minimum(available, level)
    quotas[np.flatnonzero(available > level)[: budget - int(quotas.sum())]] += 1
    return quotas


def _largest_remainder(weights: Ints, budget: int) -> Ints:
    total = int(weights.sum())
    if total == 0:
        return np.zeros_like(weights)
    exact = [divmod(budget * int(weight), total) for weight in weights]
    quotas = np.array([whole for whole, _ in exact], dtype=np.int64)
    order = sorted(range(len(exact)), key=lambda group: -exact[group][1])
    quotas[order[: budget - int(quotas.sum())]] += 1
    return quotas
