import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sage_hf import FrequentDirections
from sage_hf.errors import SketchError

from ..reference import gram_gap


def stream(kind, rows, width, seed):
    """Rows of a kind that is hard on a sketch in its own way."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    if kind == "low-rank":
        left = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
        return left @ torch.randn(3, width, generator=generator, dtype=torch.float64)
    if kind == "heavy-tailed":
        return a / torch.rand(rows, 1, generator=generator, dtype=torch.float64).pow(2).clamp_min(1e-4)
    if kind == "adversarial":  # directions one after the other, rising: each new block pushes the last one out
        spread = torch.arange(rows, dtype=torch.float64) * width // rows
        a = torch.nn.functional.one_hot(spread.long(), width).double() * (1 + torch.arange(rows).double())[:, None]
    if kind == "constant":
        return torch.ones(rows, width, dtype=torch.float64)
    if kind == "mixed-scales":
        return a * 10.0 ** torch.randint(-6, 7, (rows, 1), generator=generator)
    return a


KINDS = ("random", "low-rank", "heavy-tailed", "adversarial", "constant", "mixed-scales")
streams = st.builds(stream, st.sampled_from(KINDS), st.integers(1, 90), st.integers(1, 24), st.integers(0, 2**16))


def feed(rows, size, batch=7, dtype=torch.float64):
    sketch = FrequentDirections(size, dtype=dtype)
    for part in rows.split(batch):
        sketch.update(part)
    return sketch


def assert_bounds(rows, sketch):
    """0 <= A^T A - S^T S <= error_bound <= |A - A_k|^2 / (l - k), up to rounding of the largest eigenvalue."""
    slack = 1e-9 * float(rows.square().sum()) + 1e-300
    low, high = gram_gap(rows, sketch.sketch)
    assert low >= -slack
    assert high <= sketch.error_bound + slack
    tail = torch.linalg.svdvals(rows).square().flip(0).cumsum(0).flip(0)  # tail[k] = |A - A_k|_F^2
    for k in range(min(sketch.sketch_size, len(tail))):
        assert sketch.error_bound <= float(tail[k]) / (sketch.sketch_size - k) + slack


@given(streams, st.integers(1, 20), st.integers(1, 40))
def test_the_proven_bounds_hold_on_every_stream(rows, size, batch):
    assert_bounds(rows, feed(rows, size, batch))


@given(streams, st.integers(1, 12), st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_bounds_hold_after_merges_in_any_order(rows, size, parts, random):
    sketches = [feed(part, size) for part in rows.tensor_split(parts) if len(part)]
    while len(sketches) > 1:
        random.shuffle(sketches)
        sketches[0].merge(sketches.pop())
        if random.random() < 0.5:
            sketches[0].compact()
    assert_bounds(rows, sketches[0])
    assert sketches[0].rows_seen == len(rows)


@given(streams, st.integers(1, 12), st.integers(1, 40), st.integers(1, 40))
def test_batch_boundaries_do_not_change_a_bit(rows, size, one, other):
    first, second = feed(rows, size, one), feed(rows, size, other)
    assert torch.equal(first.sketch, second.sketch)


@given(streams, st.integers(1, 12), st.integers(0, 90))
def test_a_resumed_stream_goes_on_bit_for_bit(rows, size, cut):
    whole = feed(rows, size)
    first = FrequentDirections(size, width=rows.shape[1], dtype=torch.float64)
    first.update(rows[:cut])
    second = FrequentDirections(size, dtype=torch.float64)
    second.load_state_dict(first.state_dict())
    second.update(rows[cut:])
    assert torch.equal(whole.sketch, second.sketch)
    assert whole.error_bound == second.error_bound
    assert whole.energy == pytest.approx(second.energy, rel=1e-12)  # a sum, in another order
    assert whole.rows_seen == second.rows_seen


@given(streams, st.integers(1, 12))
def test_reading_the_sketch_changes_nothing_that_follows(rows, size):
    read = FrequentDirections(size, dtype=torch.float64)
    for part in rows.split(5):
        read.update(part)
        assert read.sketch.shape == (size, rows.shape[1])
    assert torch.equal(read.sketch, feed(rows, size, 5).sketch)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6, 1e12])
def test_float32_keeps_the_bounds_at_every_scale(scale):
    rows = (stream("random", 300, 40, 0) * scale).float()
    sketch = feed(rows, 10, dtype=torch.float32)
    low, high = gram_gap(rows / scale, sketch.sketch / scale)
    assert low >= -1e-3  # of |A|^2 = 12,000: float32 rounding of the kept rows
    assert high <= sketch.error_bound / scale**2 * (1 + 1e-4)
    assert 0 < sketch.energy < 1


@pytest.mark.parametrize("kind", ["random", "heavy-tailed", "adversarial"])
def test_rows_that_a_shrink_has_left_count_as_orthogonal_in_float32_too(kind):
    rows = stream(kind, 900, 40, 0).float()
    found, wanted = feed(rows, 12, dtype=torch.float32), feed(rows.double(), 12)  # 70 shrinks, one after the other
    assert torch.allclose(found.singular_values, wanted.singular_values, rtol=1e-4, atol=1e-5 * wanted.energy)
    assert found.error_bound == pytest.approx(wanted.error_bound, rel=1e-4)


@given(streams, st.integers(1, 12))
def test_a_compact_sketch_is_read_as_it_is_and_goes_on_bit_for_bit_after_it_was_saved(rows, size):
    sketch, other = feed(rows, size), FrequentDirections(size, dtype=torch.float64)
    before = sketch.sketch.clone()
    sketch.compact()
    assert torch.equal(sketch.sketch, before)
    other.load_state_dict(sketch.state_dict())
    assert torch.equal(other.sketch, before)
    for each in (sketch, other):
        each.update(rows)
    assert torch.equal(other.sketch, sketch.sketch)
    assert other.error_bound == sketch.error_bound


def test_it_is_exact_while_the_rank_is_below_the_size():
    rows = stream("low-rank", 200, 30, 0)
    sketch = feed(rows, 8)
    assert torch.allclose(sketch.sketch.T @ sketch.sketch, rows.T @ rows, rtol=1e-9, atol=1e-9)
    assert sketch.energy == pytest.approx(1.0, abs=1e-12)
    assert sketch.error_bound <= 1e-12 * float(rows.square().sum())


def test_rows_of_the_sketch_are_orthogonal_and_descending():
    sketch = feed(stream("random", 100, 30, 0), 8)
    gram = sketch.sketch @ sketch.sketch.T
    assert torch.allclose(gram, gram.diagonal().diag(), atol=1e-9)
    assert (sketch.singular_values.diff() <= 0).all()


def test_fewer_rows_than_the_size_and_a_width_below_it_are_exact():
    for rows in (stream("random", 3, 20, 0), stream("random", 100, 4, 0)):
        sketch = feed(rows, 10)
        assert torch.allclose(sketch.sketch.T @ sketch.sketch, rows.T @ rows)
        assert sketch.sketch.shape[0] == 10


def test_a_row_that_is_not_finite_is_set_aside_and_touches_nothing():
    rows = stream("random", 60, 12, 0)
    spoilt = rows.clone()
    spoilt[[3, 40]] = torch.tensor([[float("nan")], [float("inf")]], dtype=torch.float64)
    sketch = feed(spoilt, 5)
    rest = torch.cat([rows[:3], rows[4:40], rows[41:]])
    assert sketch.rows_set_aside == 2
    assert sketch.squared_norm == pytest.approx(float(rest.square().sum()))
    assert_bounds(rest, sketch)


def test_a_stream_of_zeros_loses_nothing():
    sketch = feed(torch.zeros(20, 6, dtype=torch.float64), 4)
    assert sketch.energy == 1.0
    assert not sketch.sketch.any()


def test_an_empty_stream_says_so():
    with pytest.raises(SketchError, match="seen no row"):
        _ = FrequentDirections(4).sketch
    with pytest.raises(SketchError, match="stream was empty"):
        _ = FrequentDirections(4, width=3).sketch


def test_what_does_not_fit_is_refused_with_a_reason():
    sketch = feed(torch.ones(2, 6, dtype=torch.float64), 4)
    with pytest.raises(SketchError, match="5 wide, the sketch is 6 wide"):
        sketch.update(torch.ones(2, 5))
    with pytest.raises(SketchError, match="shape"):
        sketch.update(torch.ones(6))
    with pytest.raises(SketchError, match="4 and 3 rows"):
        sketch.merge(FrequentDirections(3))
    with pytest.raises(SketchError, match="float16"):
        FrequentDirections(3, dtype=torch.float16)
    with pytest.raises(SketchError, match="sketch_size is 0"):
        FrequentDirections(0)
    with pytest.raises(SketchError, match="lacks"):
        sketch.load_state_dict({})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_bounds_hold_on_a_gpu():
    rows = stream("random", 500, 60, 0)
    sketch = FrequentDirections(12, dtype=torch.float64)
    sketch.update(rows.cuda())
    assert sketch.device.type == "cuda"
    low, high = gram_gap(rows, sketch.sketch.cpu())
    assert low >= -1e-8
    assert high <= sketch.error_bound * (1 + 1e-9)
