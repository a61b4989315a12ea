import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from examples.python_text import train_tokenizer
from sage_hf.data import RowSource, check_dataset
from sage_hf.encoding import Encoder
from sage_hf.errors import BatchAxisError, DatasetError

TOKENIZER = train_tokenizer(["a b c"], 260)


def source(lengths, batch_size=3, shard_size=5, collator=None):
    """Row i holds its own number, as often as its length says."""
    rows = Dataset.from_dict({"input_ids": [[index] * length for index, length in enumerate(lengths)]})
    encoder = Encoder(rows[0], frozenset({"input_ids", "labels"}), TOKENIZER, collator, causal_lm=True)
    return RowSource(rows, encoder, batch_size, shard_size)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 7), st.integers(1, 12))
def test_every_row_comes_once_with_its_own_number(lengths, batch_size, shard_size):
    made = source(lengths, batch_size, shard_size)
    seen = []
    for shard in made.shards():
        for rows, batch in made.batches(shard):
            assert len(rows) <= batch_size
            assert batch["input_ids"][:, 0].tolist() == rows.tolist()
            seen += rows.tolist()
    assert sorted(seen) == list(range(len(lengths)))


def test_batches_of_tokens_are_of_like_length():
    made = source([1, 9, 1, 9, 1, 9], batch_size=3, shard_size=6)
    assert [batch["input_ids"].shape[1] for _, batch in made.batches(range(6))] == [9, 1]


def test_shards_depend_on_the_length_and_the_shard_size_alone():
    assert source([1] * 12, batch_size=2).shards() == source([3] * 12, batch_size=7).shards()
    assert source([1] * 12).shards() == [range(0, 5), range(5, 10), range(10, 12)]


def test_a_transform_is_part_of_the_data_and_a_tensor_format_is_not():
    rows = Dataset.from_dict({"word": ["a", "b"]})
    made = rows.with_transform(lambda batch: {"x": [[float(ord(word))] for word in batch["word"]]})
    encoder = Encoder(made[0], frozenset({"x"}))
    ((_, batch),) = RowSource(made, encoder, 8, 8).batches(range(2))
    assert batch["x"].tolist() == [[97.0], [98.0]]
    numbers = Dataset.from_dict({"x": [[1.0], [2.0]]}).with_format("numpy")
    ((_, batch),) = RowSource(numbers, Encoder(numbers[0], frozenset({"x"})), 8, 8).batches(range(2))
    assert torch.equal(batch["x"], torch.tensor([[1.0], [2.0]]))


def test_a_collator_that_packs_is_refused_with_the_options_that_ask_for_it():
    def pack(rows):
        return {"input_ids": torch.tensor([[token for row in rows for token in row["input_ids"]]])}

    with pytest.raises(BatchAxisError, match=r"1 rows of 2.*padding_free=False and packing=False"):
        next(source([2, 3], collator=pack).batches(range(2)))


def test_what_is_no_dataset_is_refused_with_the_way_out():
    rows = Dataset.from_dict({"x": [1]})
    with pytest.raises(DatasetError, match="no rows"):
        check_dataset(rows.select([]))
    with pytest.raises(DatasetError, match=r"several splits, \['train'\]"):
        check_dataset(DatasetDict(train=rows))
    with pytest.raises(DatasetError, match="without streaming=True"):
        check_dataset(rows.to_iterable_dataset())
    with pytest.raises(DatasetError, match="list is no dataset"):
        check_dataset([1, 2])
