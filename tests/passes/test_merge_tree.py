import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from sage_hf import Consensus, FrequentDirections
from sage_hf.passes.merge_tree import MergeTree, Partial


def leaf(rows):
    sketch = FrequentDirections(4, dtype=torch.float64)
    sketch.update(rows)
    consensus = Consensus(1, rows.shape[1])
    consensus.update(rows, torch.zeros(len(rows), dtype=torch.long))
    return Partial(sketch, consensus)


@given(st.integers(1, 17))
def test_the_tree_holds_the_whole_stream_in_few_nodes(count):
    shards = [torch.randn(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(count)]
    tree = MergeTree()
    for number, rows in enumerate(shards):
        tree.push(leaf(rows), number)
        assert len(tree.nodes) == (number + 1).bit_count()
    result = tree.result()
    assert result.sketch.rows_seen == 6 * count
    whole = Consensus(1, 9)
    whole.update(torch.cat(shards), torch.zeros(6 * count, dtype=torch.long))
    assert torch.allclose(result.consensus.sums, whole.sums)


@given(st.integers(1, 9))
def test_the_tree_is_fixed_by_the_shards_whoever_computed_them(count):
    shards = [torch.randn(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(count)]
    results = []
    for order in (range(count), reversed(range(count))):
        computed = {index: leaf(shards[index]) for index in order}
        tree = MergeTree()
        for index in range(count):
            tree.push(computed[index], index)
        results.append(tree.result().sketch.sketch)
    assert torch.equal(*results)


@given(st.integers(1, 40), st.lists(st.integers(0, 40), max_size=4))
def test_trees_over_neighbouring_shards_join_to_the_tree_over_all(count, cuts):
    """Nodes are numbers of shards here: what matters is which ones meet, and in which order."""

    class Node(Partial):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def merge(self, other):
            self.name = f"({self.name} {other.name})"

    def tree_over(shards):
        tree = MergeTree()
        for number in shards:
            tree.push(Node(str(number)), number)
        return tree

    bounds = sorted({0, count, *(cut for cut in cuts if cut < count)})
    joined = MergeTree()
    for first, last in itertools.pairwise(bounds):
        part = tree_over(range(first, last))
        assert len(part.nodes) <= 2 * (last - first).bit_length()
        for start, size, node in part.nodes:
            joined.push(node, start, size)
    assert joined.result().name == tree_over(range(count)).result().name


@given(st.integers(1, 12))
def test_a_state_goes_on_bit_for_bit(count):
    rows = torch.randn(2 * count, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(count))
    one, other = leaf(rows[:count]), leaf(rows[count:])
    restored = Partial(FrequentDirections(4, dtype=torch.float64), Consensus(1, 9))
    one.compact()
    restored.load_state_dict(one.state_dict())
    one.merge(other)
    restored.merge(other)
    assert one.state_dict().keys() == restored.state_dict().keys()
    assert all(torch.equal(value, restored.state_dict()[name]) for name, value in one.state_dict().items())
