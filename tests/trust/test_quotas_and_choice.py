"""Quotas of any groups, and the choice of every strategy from any rows."""

import logging

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from sage_hf import SageConfig
from sage_hf.data.groups import Groups
from sage_hf.data.status import NO_TOKENS, NOT_FINITE, SCORED, ZERO_GRADIENT
from sage_hf.errors import ConfigError
from sage_hf.selection.choice import choose_rows, quotas_for
from sage_hf.selection.signals import RowSignals
from sage_hf.strategies import STRATEGIES
from sage_hf.strategies.quotas import allocate_shares

from .scale import cases, some, tried

SIZES = st.one_of(
    st.lists(st.integers(0, 30), min_size=1, max_size=40),
    st.lists(st.one_of(st.integers(0, 3), st.integers(0, 10**12)), min_size=1, max_size=12),
    st.builds(lambda size, count: [size] * count, st.integers(0, 5), st.integers(1, 300)),
)
SETTINGS = st.fixed_dictionaries(
    {"balance": st.sampled_from(["proportional", "sqrt", "equal", "none"]), "min_per_group": st.integers(0, 20)}
).filter(lambda each: each["balance"] != "none" or each["min_per_group"] < 2)


@pytest.fixture(autouse=True)
def _silent():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def hold_quotas(sizes, quotas, budget, least):
    """As many as the budget, no more than a group has, and the least each where the budget reaches that far."""
    assert quotas.dtype == np.int64 and quotas.sum() == min(budget, sizes.sum())
    assert (quotas >= 0).all() and (quotas <= sizes).all()
    wanted = np.minimum(sizes, least)
    if wanted.sum() <= budget:
        assert (quotas >= wanted).all()
    elif np.count_nonzero(sizes) <= budget:
        assert (quotas[sizes > 0] > 0).all()


@settings(max_examples=cases(40, 2000))
@given(SIZES, SETTINGS, st.floats(0, 1.2))
def test_quotas_sum_to_the_budget_and_never_exceed_a_group(sizes, chosen, share):
    tried()
    sizes = np.array([sum(sizes)] if chosen["balance"] == "none" else sizes, dtype=np.int64)
    budget = max(1, int(share * int(sizes.sum())))
    quotas = quotas_for(SageConfig(num_examples=budget, **chosen), sizes, budget)
    hold_quotas(sizes, quotas, budget, 0 if chosen["balance"] == "none" else chosen["min_per_group"])


@pytest.mark.parametrize("balance", ["proportional", "sqrt", "equal"])
@pytest.mark.parametrize("least", [0, 1, 7])
@pytest.mark.parametrize("kind", ["powers", "ones", "one giant", "random"])
def test_quotas_of_ten_thousand_groups(balance, least, kind):
    generator = np.random.default_rng(0)
    sizes = {
        "powers": (1e6 / np.arange(1, 10_001)).astype(np.int64),
        "ones": np.ones(10_000, dtype=np.int64),
        "one giant": np.array([10**9] + [1] * 9_999),
        "random": generator.integers(0, 1000, 10_000),
    }[kind]
    total = int(sizes.sum())
    for budget in some([1, 5_000, 9_999, 10_000, 10_001, 30_000, total // 3, total - 1, total, total + 5], 3):
        tried()
        config = SageConfig(num_examples=budget, balance=balance, min_per_group=least)
        hold_quotas(sizes, quotas_for(config, sizes, budget), budget, least)


@settings(max_examples=cases(20, 1000))
@given(SIZES, st.integers(0, 9), st.floats(0, 1), st.data())
def test_quotas_by_any_shares_sum_to_the_budget(sizes, least, share, data):
    tried()
    sizes = np.array(sizes, dtype=np.int64)
    weight = st.floats(1e-150, 1e150) if data.draw(st.booleans()) else st.floats(0.01, 100)
    shares = np.array(data.draw(st.lists(weight, min_size=len(sizes), max_size=len(sizes))))
    budget = int(share * int(sizes.sum()))
    hold_quotas(sizes, allocate_shares(sizes, shares, budget, least), budget, least)


# ------------------------------------------------------------------------------------------ which rows
def some_vectors(draw, rows, width, generator):
    """[N, width] float32 with ties, constant columns, copies and zeros."""
    kind = draw(st.sampled_from(["random", "copies", "constant", "zeros", "one column", "whole numbers", "scales"]))
    vectors = generator.standard_normal((rows, width))
    if kind == "copies":
        vectors = vectors[generator.integers(0, max(1, rows // 4), rows)]
    elif kind == "constant":
        vectors[:] = vectors[0]
    elif kind == "zeros":
        vectors[generator.random(rows) < 0.5] = 0
    elif kind == "one column":
        vectors[:, 1:] = 1.0
    elif kind == "whole numbers":
        vectors = np.round(vectors)
    elif kind == "scales":
        vectors *= 10.0 ** generator.integers(-12, 12, (rows, 1))
    return vectors.astype(np.float32)


@st.composite
def some_signals(draw):
    """All that can be known of 1 to 60 rows, in groups of any size, some of them set aside."""
    rows, width = draw(st.integers(1, 60)), draw(st.integers(1, 6))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    codes = generator.integers(0, draw(st.integers(1, max(1, rows // 2))), rows)
    status = np.full(rows, SCORED, dtype=np.uint8)
    aside = generator.random(rows) < draw(st.sampled_from([0.0, 0.0, 0.3, 0.95, 1.0]))
    status[aside] = generator.choice([NO_TOKENS, NOT_FINITE, ZERO_GRADIENT], int(aside.sum()))
    numbers = {name: generator.standard_normal(rows).astype(np.float32) for name in ("scores", "losses", "norms")}
    if draw(st.booleans()):  # ties
        numbers = {name: np.round(each) for name, each in numbers.items()}
    numbers = {name: np.where(status == SCORED, each, np.nan) for name, each in numbers.items()}
    if draw(st.sampled_from([False, False, True])):  # a hook or a target of one's own may make such scores
        numbers["scores"][generator.random(rows) < 0.3] = np.nan
    has_classes = draw(st.sampled_from([True, True, False]))
    spectrum = np.sort(np.abs(generator.standard_normal(width)))[::-1].astype(np.float32)
    spectrum[draw(st.integers(1, width)) :] = 0
    return RowSignals(
        Groups.from_values("label", codes.tolist()),
        status,
        numbers["scores"],
        np.abs(numbers["losses"]),
        labels=codes.astype(np.int32) if has_classes else None,
        norms=np.abs(numbers["norms"]),
        sketched=some_vectors(draw, rows, width, generator),
        spectrum=spectrum / spectrum[0],
        embeddings=some_vectors(draw, rows, draw(st.integers(1, 5)), generator),
        inputs=some_vectors(draw, rows, 3, generator) if draw(st.booleans()) else None,
        el2n=generator.random(rows).astype(np.float32),
        doubts=generator.random(rows).astype(np.float32) if has_classes and draw(st.booleans()) else None,
    )


GATES = st.sampled_from(["auto", "auto", None, 0.3, 0.99])


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@settings(max_examples=cases(2, 60), suppress_health_check=list(HealthCheck))
@given(some_signals(), SETTINGS, GATES, st.floats(0, 1.2), st.integers(0, 5))
def test_exactly_the_budget_of_distinct_scored_rows_is_chosen_and_the_same_again(
    strategy, signals, chosen, gate, share, seed
):
    tried()
    rows = len(signals.status)
    budget = max(1, int(share * rows))
    config = SageConfig(num_examples=budget, strategy=strategy, gate=gate, seed=seed, **chosen)
    note(f"{signals.status} {signals.groups.codes} {budget} {config}")
    choice = choose_rows(config, signals, budget)
    kept = choice.indices
    usable = np.flatnonzero(signals.status == SCORED)
    assert len(kept) == min(budget, len(usable))
    assert (np.diff(kept) > 0).all() and np.isin(kept, usable).all()
    balanced = config.balance != "none"
    sizes = signals.sizes(balanced)
    codes = signals.groups.codes if balanced else np.zeros(rows, dtype=np.int64)
    quotas = quotas_for(config, sizes, budget)
    assert np.bincount(codes[kept], minlength=len(sizes)).tolist() == quotas.tolist()
    again = choose_rows(config, signals, budget)
    assert np.array_equal(kept, again.indices) and choice.gate == again.gate


@pytest.mark.parametrize("strategy", sorted(name for name in STRATEGIES if name in ("agreement", "random", "loss")))
@settings(max_examples=cases(3, 150), suppress_health_check=list(HealthCheck))
@given(some_signals(), st.integers(0, 5))
def test_without_groups_a_smaller_budget_of_rows_judged_one_by_one_is_part_of_a_larger(strategy, signals, seed):
    tried()
    kept = set()
    for budget in range(1, len(signals.status) + 1):
        config = SageConfig(num_examples=budget, strategy=strategy, gate=None, seed=seed, balance="none")
        more = set(choose_rows(config, signals, budget).indices.tolist())
        assert kept <= more
        kept = more


@settings(max_examples=cases(4, 100), suppress_health_check=list(HealthCheck))
@given(some_signals(), st.sampled_from(sorted(STRATEGIES)))
def test_what_was_not_stored_is_told_before_anything_is_chosen(signals, strategy):
    tried()
    lacking = sorted(STRATEGIES[strategy].needs)
    for name in lacking:
        setattr(signals, name, None)
    if lacking:
        with pytest.raises(ConfigError, match=strategy):
            choose_rows(SageConfig(num_examples=1, strategy=strategy), signals, 1)
