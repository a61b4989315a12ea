"""Bounds of the gradient sketch under any stream of rows and any tree of merges."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_hf import FrequentDirections
from sage_hf.passes.merge_tree import MergeTree, Partial

from .scale import cases, tried

# The error of one rounding to the type that rows are stored in.
ROUNDING = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
KINDS = ("random", "rank one", "copies", "zeros between", "rising", "falling", "one giant", "axes", "any scales")


def a_stream(kind, rows, width, scale, seed):
    """Rows [n, D] float64 of a kind that is hard on a sketch in its own way."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    steps = torch.arange(1, rows + 1, dtype=torch.float64)[:, None]
    if kind == "rank one":
        a = a[:, :1] * torch.randn(1, width, generator=generator, dtype=torch.float64)
    elif kind == "copies":
        a = a[torch.randint(0, max(1, rows // 5), (rows,), generator=generator)]
    elif kind == "zeros between":
        a[torch.rand(rows, generator=generator) < 0.6] = 0.0
    elif kind == "rising":  # each new direction pushes an old one out
        a = torch.eye(width, dtype=torch.float64)[torch.arange(rows) * width // rows] * steps
    elif kind == "falling":
        a = a / steps**3
    elif kind == "one giant":
        a[rows // 2] *= 1e9
    elif kind == "axes":  # equal singular values, so that no direction is better than another
        a = torch.eye(width, dtype=torch.float64)[torch.arange(rows) % width]
    elif kind == "any scales":
        a = a * 10.0 ** torch.randint(-12, 13, (rows, 1), generator=generator)
        scale = 1.0
    return a * scale


STREAMS = st.builds(
    a_stream,
    st.sampled_from(KINDS),
    st.integers(1, 120),
    st.integers(1, 30),
    st.sampled_from([1e-12, 1e-6, 1.0, 1e6, 1e12]),
    st.integers(0, 2**16),
)
DTYPES = st.sampled_from([torch.float32, torch.float64])


def hold_bounds(rows, sketch, dtype, compressions):
    """Asserts all that is promised of a sketch of rows [n, D], up to rounding.

    Rows are rounded to their type whenever they are compressed, and eigenvalues are found in float64.
    """
    total = float(rows.square().sum())
    slack = total * (4 * ROUNDING[dtype] * (compressions + 1) + 1e-12)
    made = sketch.sketch.double()
    assert made.shape == (sketch.sketch_size, rows.shape[1]) and made.isfinite().all()
    gaps = torch.linalg.eigvalsh(rows.T @ rows - made.T @ made)
    assert gaps[0] >= -slack and gaps[-1] <= sketch.error_bound + slack
    tail = torch.linalg.svdvals(rows).square().flip(0).cumsum(0).flip(0)  # tail[k] = |A - A_k|_F^2
    for k in range(sketch.sketch_size):
        left = float(tail[k]) if k < len(tail) else 0.0
        assert 0.0 <= sketch.error_bound <= left / (sketch.sketch_size - k) + slack
    values = sketch.singular_values
    # Equal eigenvalues of a 2l x 2l matrix are found to so many roundings of the largest.
    assert (values >= 0).all() and (values.diff() <= 2 * sketch.sketch_size * ROUNDING[dtype] * values[0]).all()
    # What a compression takes from the last direction it takes from each.
    assert float(values.square().sum()) + sketch.sketch_size * sketch.error_bound <= total + slack
    assert 0.0 <= sketch.energy <= 1.0
    assert sketch.energy == pytest.approx(float(made.square().sum()) / total if total else 1.0, rel=1e-6, abs=1e-9)
    assert sketch.squared_norm == pytest.approx(total, rel=1e-6)
    directions = made @ made.T
    off = directions - directions.diagonal().diag()
    lengths = made.norm(dim=1)
    assert (off.abs() <= 1e-4 * lengths[:, None] * lengths + slack).all()  # orthogonal


@settings(max_examples=cases(30, 2000))
@given(STREAMS, DTYPES, st.integers(1, 40), st.integers(1, 50))
def test_the_bounds_hold_for_any_stream(rows, dtype, size, batch):
    tried()
    rows = rows.to(dtype).double()
    sketch = FrequentDirections(size, dtype=dtype)
    for part in rows.split(batch):
        sketch.update(part)
    hold_bounds(rows, sketch, dtype, len(rows) // size)
    assert sketch.rows_seen == len(rows) and sketch.rows_set_aside == 0


def saved_and_read(sketch):
    """The same sketch after a restart."""
    made = FrequentDirections(sketch.sketch_size, dtype=sketch.dtype)
    made.load_state_dict(sketch.state_dict())
    return made


@settings(max_examples=cases(30, 2000))
@given(STREAMS, DTYPES, st.integers(1, 20), st.integers(1, 9), st.randoms(use_true_random=False))
def test_the_bounds_hold_for_any_tree_of_merges_with_restarts_between(rows, dtype, size, parts, random):
    tried()
    rows = rows.to(dtype).double()
    cuts = sorted(random.randint(0, len(rows)) for _ in range(parts - 1))
    sketches = []
    for part in rows.tensor_split(cuts):  # some are empty
        sketch = FrequentDirections(size, rows.shape[1] if random.random() < 0.7 else None, dtype=dtype)
        if len(part):
            sketch.update(part)
        sketches.append(sketch)
    while len(sketches) > 1:
        random.shuffle(sketches)
        other = sketches.pop()
        if random.random() < 0.3:
            other.compact()
        sketches[0].merge(other)
        if random.random() < 0.3:
            sketches[0].compact()
        if random.random() < 0.3 and sketches[0].rows_seen:
            sketches[0] = saved_and_read(sketches[0])
        if random.random() < 0.3 and sketches[0].rows_seen:
            _ = sketches[0].sketch  # which changes nothing
    hold_bounds(rows, sketches[0], dtype, len(rows) // size + 2 * parts)
    assert sketches[0].rows_seen == len(rows)


@settings(max_examples=cases(8, 500))
@given(STREAMS, DTYPES, st.integers(1, 12), st.integers(1, 40), st.randoms(use_true_random=False))
def test_the_tree_of_shards_is_one_whatever_of_it_was_made_elsewhere(rows, dtype, size, shard, random):
    tried()
    rows = rows.to(dtype).double()

    def node(part):
        sketch = FrequentDirections(size, dtype=dtype)
        sketch.update(part)
        return Partial(sketch)

    shards = rows.split(shard)
    whole, joined = MergeTree(), MergeTree()
    for number, part in enumerate(shards):
        whole.push(node(part), number)
    start = 0
    while start < len(shards):  # processes have runs of shards, and send their nodes
        stop = random.randint(start + 1, len(shards))
        mine = MergeTree()
        for number in range(start, stop):
            mine.push(node(shards[number]), number)
        for first, count, partial in mine.nodes:
            again = Partial(FrequentDirections(size, dtype=dtype))
            again.load_state_dict(partial.state_dict())
            joined.push(again, first, count)
        start = stop
    one, other = whole.result().sketch, joined.result().sketch
    assert torch.equal(one.sketch, other.sketch) and one.error_bound == other.error_bound
    assert one.energy == other.energy and one.rows_seen == other.rows_seen == len(rows)
    hold_bounds(rows, one, dtype, len(rows) // size + 2 * len(shards))


@settings(max_examples=cases(8, 300))
@given(STREAMS, DTYPES, st.integers(1, 12), st.integers(-30, 30))
def test_a_scale_of_all_rows_scales_the_sketch_and_nothing_else(rows, dtype, size, power):
    tried()
    rows = rows.to(dtype)
    one, other = FrequentDirections(size, dtype=dtype), FrequentDirections(size, dtype=dtype)
    one.update(rows)
    other.update(rows * 2.0**power)  # exact
    # Numbers below the type's normal ones have fewer digits.
    assert ((one.sketch * 2.0**power - other.sketch).abs() <= torch.finfo(dtype).tiny * 2.0 ** max(power, 0)).all()
    assert one.error_bound * 4.0**power == pytest.approx(other.error_bound, rel=1e-12)
    assert one.energy == pytest.approx(other.energy, rel=1e-12)
