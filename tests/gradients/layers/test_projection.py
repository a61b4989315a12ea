import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sage_hf import GradientCollector
from sage_hf.config import ROW_WIDTH, width_for
from sage_hf.gradients.layers.projection import block_widths, projection_matrix

from ...cases import llama, lm_batch

shapes = st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900)), min_size=1, max_size=40)


@given(shapes)
def test_auto_rows_are_as_wide_as_they_may_be_and_no_side_grows(shape_list):
    widths = block_widths(shape_list, "auto")
    most = width_for(sum(math.prod(shape) for shape in shape_list))
    total = sum(math.prod(width) for width in widths)
    assert total <= most <= ROW_WIDTH
    assert all(r <= rows and c <= columns for (r, c), (rows, columns) in zip(widths, shape_list, strict=True))
    if sum(math.prod(shape) for shape in shape_list) <= ROW_WIDTH:
        assert widths == shape_list
    else:
        assert total > most / 2


@given(shapes, st.integers(40, 5000))
def test_a_row_is_at_most_as_wide_as_it_is_told_to_be_and_more_than_half(shape_list, row_width):
    total = sum(math.prod(width) for width in block_widths(shape_list, "auto", row_width))
    whole = sum(math.prod(shape) for shape in shape_list)
    assert total == whole if whole <= row_width else row_width / 4 < total <= row_width


def test_small_models_have_narrower_rows_and_the_smallest_exact_ones():
    widths = {weights: width_for(weights) for weights in (100, 16_384, 16_385, 99_200, 400_000, 524_288, 10**9)}
    assert list(widths.values()) == [16_384, 16_384, 4_096, 4_096, 12_500, 16_384, 16_384]


def test_auto_leaves_a_short_side_as_it_is_and_gives_the_rest_to_the_long_one():
    (rows, columns), *_ = block_widths([(2, 4096), *[(512, 512)] * 15], "auto")
    assert rows == 2
    assert columns > 256


def test_none_is_exact_and_a_number_is_a_side():
    assert block_widths([(3, 900), (900, 1)], None) == [(3, 900), (900, 1)]
    assert block_widths([(3, 900), (900, 1)], 8) == [(3, 8), (64, 1)]


def test_matrices_are_a_pure_function_of_seed_name_and_side():
    first = projection_matrix("layer.weight", "left", 50, 8, 0)
    assert torch.equal(first, projection_matrix("layer.weight", "left", 50, 8, 0))
    for other in (("layer.weight", "left", 50, 8, 1), ("layer.weight", "right", 50, 8, 0), ("b", "left", 50, 8, 0)):
        assert not torch.equal(first, projection_matrix(*other))
    assert torch.allclose(first.abs(), torch.full_like(first, 8**-0.5))


def test_inner_products_are_kept_on_average():
    torch.manual_seed(0)
    left, right = torch.randn(40), torch.randn(40)
    right += left
    found = [(left @ (p := projection_matrix("w", "left", 40, 16, seed))) @ (right @ p) for seed in range(400)]
    spread = torch.stack(found).std() / 400**0.5
    assert (torch.stack(found).mean() - left @ right).abs() < 4 * spread


@pytest.mark.parametrize("projection", ["auto", 4])
def test_two_collectors_of_one_seed_give_the_same_rows_to_the_bit(projection):
    batch = lm_batch()
    first, second, other = (GradientCollector(llama(), projection=projection, seed=seed)(batch) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert projection == "auto" or not torch.equal(first, other)
