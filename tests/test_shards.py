import torch
from hypothesis import given
from hypothesis import strategies as st

from sage_hf import Consensus, FrequentDirections
from sage_hf.shards import MergeTree, Partial


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
    for number, rows in enumerate(shards, start=1):
        tree.push(leaf(rows))
        assert len(tree._nodes) == number.bit_count()
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
            tree.push(computed[index])
        results.append(tree.result().sketch.sketch)
    assert torch.equal(*results)
