"""What a stream keeps is what a dataset of the same rows keeps; a quantile's error is the one that is stated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_hf import SageConfig
from sage_hf.data.groups import Groups
from sage_hf.data.status import SCORED, ZERO_GRADIENT
from sage_hf.selection.choice import choose_rows
from sage_hf.selection.resolve import compares_rows
from sage_hf.selection.signals import RowSignals
from sage_hf.selection.stream_choice import HighestRows, ScoreHistogram, bins_of, choice_for
from sage_hf.strategies.quotas import resolve_budget

# Many ties, both ends, rows without a score, and neighbours that no histogram tells apart.
SCORES = st.sampled_from([-1.0, -0.5, 0.0, 1e-7, 2e-7, 0.25, 0.2500001, 0.9999999, 1.0, np.nan])


def in_parts(array, cuts):
    return np.split(array, sorted(min(cut, len(array)) for cut in cuts))


@settings(deadline=None, max_examples=300)
@given(
    rows=st.lists(st.tuples(SCORES, st.integers(0, 3)), min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    budget=st.one_of(st.floats(0.01, 1.0), st.integers(1, 60)),
    balance=st.sampled_from(["proportional", "equal", "none"]),
    strategy=st.sampled_from(["agreement", "random"]),
    least=st.integers(0, 3),
)
def test_a_stream_keeps_what_a_dataset_keeps(rows, cuts, budget, balance, strategy, least):
    scores = np.array([score for score, _ in rows], dtype=np.float32)
    codes = np.array([code for _, code in rows], dtype=np.int64)
    asked = {"fraction": budget} if isinstance(budget, float) else {"num_examples": min(budget, len(rows))}
    asked["min_per_group"] = least if balance != "none" else 0
    config = SageConfig(strategy=strategy, balance=balance, seed=3, **asked)
    usable = ~np.isnan(scores)
    groups = Groups("column", codes.astype(np.int32), list("abcd"), {})
    signals = RowSignals(groups, np.where(usable, SCORED, ZERO_GRADIENT).astype(np.uint8), scores, scores)
    wanted = choose_rows(config, signals, resolve_budget(len(rows), config.fraction, config.num_examples)).indices
    choice = choice_for(config)
    for part, part_codes in zip(in_parts(scores, cuts), in_parts(codes, cuts), strict=True):
        choice.add(part, part_codes)
    kept = choice.finish()
    assert kept.rows.tolist() == wanted.tolist()
    assert np.array_equal(kept.scores, scores[wanted])
    assert np.array_equal(kept.groups, codes[wanted])


@settings(deadline=None)
@given(
    values=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=200),
    share=st.floats(0, 1),
)
def test_a_quantile_is_off_by_a_bin_at_most_and_its_rank_is_exact(values, share):
    merit = np.array(values, dtype=np.float32)
    histogram = ScoreHistogram()
    for part in np.array_split(merit, 5):
        histogram.update(part, np.zeros(len(part), dtype=np.int64))
    quota = max(1, int(share * len(merit)))
    (place,), (left,) = histogram.boundary(np.array([quota]))
    last = np.sort(merit)[::-1][quota - 1]
    edge = place * 2 / 2**14 - 1
    assert edge - 1e-9 <= last <= edge + 2 / 2**14 + 1e-9
    assert (bins_of(merit) > place).sum() + left == quota


def test_bins_follow_the_order_of_values_and_hold_both_ends():
    values = np.sort(np.random.default_rng(0).uniform(-1, 1, 10_000).astype(np.float32))
    values[0], values[-1] = -1, 1
    places = bins_of(values)
    assert (np.diff(places) >= 0).all()
    assert places[0] == 0
    assert places[-1] == 2**14 - 1


def test_the_heap_holds_no_more_than_it_says_however_long_the_stream():
    generator, most = np.random.default_rng(0), 0
    choice = HighestRows(SageConfig(num_examples=10, strategy="agreement"))
    for _ in range(200):
        choice.add(generator.uniform(-1, 1, 50).astype(np.float32), generator.integers(0, 3, 50))
        most = max(most, sum(map(len, choice._held)))
    assert most <= 2 * 3 * 10 + 50
    assert len(choice.finish()) == 10


@pytest.mark.parametrize(
    ("settings", "side_by_side"),
    [
        ({"strategy": "agreement"}, False),
        ({"strategy": "random"}, False),
        ({"strategy": "agreement", "gate": 0.2}, True),
        ({"strategy": "auto"}, True),
        ({"strategy": "coverage", "gate": None}, True),
        ({"strategy": "loss"}, True),
    ],
    ids=str,
)
def test_what_judges_rows_by_themselves_needs_no_windows(settings, side_by_side):
    assert compares_rows(SageConfig(fraction=0.1, **settings)) is side_by_side
