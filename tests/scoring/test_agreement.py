import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sage_hf import Consensus, FrequentDirections, agreement
from sage_hf.scoring.agreement import cut

from ..reference import exact_agreement


def gradients(count, width, seed):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def sketched(rows, size):
    sketch = FrequentDirections(size, dtype=torch.float64)
    sketch.update(rows)
    return sketch.sketch


def exact_scores(rows, matrix, groups, count):
    z = rows @ matrix.T
    consensus = Consensus(count, matrix.shape[0])
    consensus.update(z, groups)
    return agreement(z, consensus.directions(), groups)


@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 999))
def test_the_exact_consensus_is_the_formula_of_the_paper(count, group_count, seed):
    rows = gradients(count, 9, seed)
    groups = torch.arange(count) % group_count
    matrix = sketched(rows, 5)
    found = exact_scores(rows, matrix, groups, group_count)
    assert torch.allclose(found.double(), exact_agreement(rows, matrix, groups.tolist()).double(), atol=1e-6)


@given(st.integers(2, 40), st.integers(1, 40), st.integers(0, 999))
def test_parts_of_a_stream_merge_to_the_whole(count, cut, seed):
    rows, groups = gradients(count, 7, seed), torch.arange(count) % 3
    whole, first, second = Consensus(3, 7), Consensus(3, 7), Consensus(3, 7)
    whole.update(rows, groups)
    first.update(rows[:cut], groups[:cut])
    second.update(rows[cut:], groups[cut:])
    first.merge(second)
    assert torch.allclose(whole.directions(), first.directions())


@given(st.integers(2, 30), st.integers(0, 999))
def test_scores_follow_scaling_rotation_and_permutation_of_z_as_they_should(count, seed):
    z, groups = gradients(count, 6, seed), torch.arange(count) % 2
    identity = torch.eye(6, dtype=torch.float64)
    before = exact_scores(z, identity, groups, 2)
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(count, 1, generator=generator, dtype=torch.float64) * 100 + 1e-6
    assert torch.allclose(exact_scores(z * scale, identity, groups, 2), before, atol=1e-6)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    assert torch.allclose(exact_scores(z @ rotation, identity, groups, 2), before, atol=1e-6)
    order = torch.randperm(count, generator=generator)
    assert torch.allclose(exact_scores(z[order], identity, groups[order], 2), before[order], atol=1e-6)
    assert (before.abs() <= 1).all()


def test_the_streaming_consensus_is_the_sum_of_units_carried_into_the_sketch():
    rows, groups = gradients(30, 8, 0), torch.arange(30) % 2
    matrix = sketched(rows, 4)
    consensus = Consensus(2, 8)
    consensus.update(rows, groups)
    units = rows / rows.norm(dim=1, keepdim=True)
    wanted = torch.stack([matrix @ units[groups == group].sum(0) for group in range(2)])
    wanted = wanted / wanted.norm(dim=1, keepdim=True)
    assert torch.allclose(consensus.directions(matrix), wanted)


def test_streaming_and_exact_agree_where_the_sketch_is_a_multiple_of_the_identity():
    rows, groups = gradients(30, 8, 0), torch.zeros(30, dtype=torch.long)
    matrix = 3 * torch.eye(8, dtype=torch.float64)
    consensus = Consensus(1, 8)
    consensus.update(rows, groups)
    streaming = agreement(rows @ matrix.T, consensus.directions(matrix), groups)
    assert torch.allclose(streaming, exact_scores(rows, matrix, groups, 1), atol=1e-6)


def test_one_direction_opposite_and_orthogonal_score_one_minus_one_and_zero():
    direction = torch.tensor([[3.0, 4.0]])
    z = torch.tensor([[6.0, 8.0], [-1.5, -2.0], [4.0, -3.0], [0.0, 0.0]])
    scores = agreement(z, direction / 5, torch.zeros(4, dtype=torch.long))
    assert torch.allclose(scores, torch.tensor([1.0, -1.0, 0.0, 0.0]), atol=1e-7)


def test_zero_and_non_finite_vectors_leave_the_consensus_alone_at_every_scale():
    consensus = Consensus(1, 2)
    nan, tiny, huge = float("nan"), 1e-200, 1e200
    rows = torch.tensor(
        [[0.0, 0.0], [nan, 1.0], [float("inf"), 1.0], [tiny, tiny], [huge, -huge]], dtype=torch.float64
    )
    consensus.update(rows, torch.zeros(5, dtype=torch.long))
    assert torch.allclose(consensus.sums, torch.tensor([[2**0.5, 0.0]], dtype=torch.float64))


def test_a_group_without_rows_has_no_direction():
    consensus = Consensus(2, 3)
    consensus.update(torch.ones(1, 3), torch.tensor([1]))
    assert not consensus.directions()[0].any()


def test_the_state_comes_back():
    consensus, other = Consensus(2, 3), Consensus(2, 3)
    consensus.update(torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 1]))
    other.load_state_dict(consensus.state_dict())
    assert torch.equal(consensus.sums, other.sums)


@pytest.mark.parametrize("size", [1, 3, 40])
def test_the_consensus_is_the_same_to_the_bit_in_any_batches_and_with_room_for_any_groups(size):
    vectors, groups = torch.randn(40, 7), torch.arange(40) % 5
    wanted, found = Consensus(5, 7), Consensus(10_000, 7)
    wanted.update(vectors, groups)
    for rows, codes in zip(vectors.split(size), groups.split(size), strict=True):
        found.update(rows, codes)
    assert torch.equal(found.sums[:5], wanted.sums) and not found.sums[5:].any()


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_rows_that_are_cut_keep_their_directions_and_others_all_bits(scale):
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [-3e5, 4e5]]) * scale
    assert cut(rows, None) is rows
    found = cut(rows, scale)
    assert torch.equal(found[1:3], rows[1:3])
    assert torch.allclose(found[[0, 3]] / scale, torch.tensor([[0.6, 0.8], [-0.6, 0.8]]))
