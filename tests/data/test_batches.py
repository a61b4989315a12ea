import pyarrow as pa
import pytest
import torch
from datasets import Audio, Dataset, DatasetDict, Image, List
from hypothesis import given
from hypothesis import strategies as st

from examples.python_text import train_tokenizer
from sage_hf.data.batches import RowSource, check_dataset, sampled
from sage_hf.data.encoding import Encoder
from sage_hf.data.encoding.model import ModelFacts
from sage_hf.data.reading import read_rows
from sage_hf.data.training_batches import TrainingBatches
from sage_hf.errors import BatchAxisError, DatasetError

TOKENIZER = train_tokenizer(["a b c"], 260)


def source(lengths, batch_size=3, shard_size=5, collator=None):
    """Row i holds its own number, as often as its length says."""
    rows = Dataset.from_dict({"input_ids": [[index] * length for index, length in enumerate(lengths)]})
    encoder = Encoder(rows[0], ModelFacts(frozenset({"input_ids", "labels"}), "causal"), TOKENIZER, collator)
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
    encoder = Encoder(made[0], ModelFacts(frozenset({"x"})))
    ((_, batch),) = RowSource(made, encoder, 8, 8).batches(range(2))
    assert batch["x"].tolist() == [[97.0], [98.0]]
    numbers = Dataset.from_dict({"x": [[1.0], [2.0]]}).with_format("numpy")
    ((_, batch),) = RowSource(numbers, Encoder(numbers[0], ModelFacts(frozenset({"x"}))), 8, 8).batches(range(2))
    assert torch.equal(batch["x"], torch.tensor([[1.0], [2.0]]))


def test_a_collator_that_packs_is_refused_with_the_options_that_ask_for_it():
    def pack(rows):
        return {"input_ids": torch.tensor([[token for row in rows for token in row["input_ids"]]])}

    with pytest.raises(BatchAxisError, match=r"turned 2 rows into 1.*padding_free=False and packing=False"):
        next(source([2, 3], collator=pack).batches(range(2)))


def test_what_is_no_dataset_is_refused_with_the_way_out():
    rows = Dataset.from_dict({"x": [1]})
    with pytest.raises(DatasetError, match="no rows"):
        check_dataset(rows.select([]))
    with pytest.raises(DatasetError, match=r"several splits, \['train'\]"):
        check_dataset(DatasetDict(train=rows))
    with pytest.raises(DatasetError, match="without streaming=True"):
        check_dataset(rows.to_iterable_dataset())
    with pytest.raises(DatasetError, match="list is not a dataset"):
        check_dataset([1, 2])


def test_rows_without_tokens_come_last_and_without_a_batch():
    made = source([2, 0, 1, 0, 3, 0, 0], batch_size=2, shard_size=7)
    seen = [(rows.tolist(), batch is None) for rows, batch in made.batches(range(7))]
    assert seen == [([4, 0], False), ([2], False), ([1, 3], True), ([5, 6], True)]
    assert all(batch is None for _, batch in source([0, 0, 0]).batches(range(3)))


def test_rows_of_nothing_but_padding_have_no_tokens():
    rows = Dataset.from_dict({"input_ids": [[5, 6]] * 3, "attention_mask": [[1, 0], [0, 0], [1, 1]]})
    encoder = Encoder(rows[0], ModelFacts(frozenset({"input_ids", "attention_mask", "labels"}), "causal"), TOKENIZER)
    seen = [(rows.tolist(), batch is None) for rows, batch in RowSource(rows, encoder, 8, 8).batches(range(3))]
    assert seen == [([0, 2], False), ([1], True)]


def test_rows_that_a_collator_finds_no_tokens_in_are_taken_out_of_its_batch():
    rows = Dataset.from_dict({"text": ["a b", "", "c"], "label": [0, 1, 2]})

    def tokens(rows):
        ids = torch.tensor([[len(row["text"])] * 2 for row in rows])
        return {
            "input_ids": ids,
            "attention_mask": (ids > 0).long(),
            "labels": torch.tensor([r["label"] for r in rows]),
        }

    encoder = Encoder(rows[0], ModelFacts(frozenset({"input_ids", "labels"})), None, tokens)
    (found, batch), (empty, nothing) = RowSource(rows, encoder, 8, 8).batches(range(3))
    assert (found.tolist(), batch["labels"].tolist()) == ([0, 2], [0, 2])
    assert (empty.tolist(), nothing) == ([1], None)


def test_the_rows_that_are_looked_at_first_have_tokens():
    assert [len(feature["input_ids"]) for feature in source([0, 0, 0, 0, 2, 1]).telling()] == [2, 1]
    batch, alone, numbers, keeps_order = source([0, 0, 2, 1]).sample(4)
    assert numbers == [3, 2] and keeps_order
    assert batch["input_ids"].tolist() == [[3, 0], [2, 2]]
    assert set(alone) == {0, 1}
    with pytest.raises(DatasetError, match="None of 3 rows has a token"):
        source([0, 0, 0]).telling()


def test_a_sample_holds_the_longest_and_the_shortest_rows_of_the_whole_dataset():
    lengths = [4] * 500
    lengths[30], lengths[411] = 9, 1
    batch, alone, numbers, keeps_order = source([lengths[i] for i in (*range(0, 500, 2), 30, 411)]).sample(4)
    assert numbers[1:3] == [15, 251] and keeps_order
    assert batch["attention_mask"].sum(1).tolist() == [4, 9, 1, 4]  # in no order, for models that sort their rows
    assert [alone[row]["input_ids"].shape[1] for row in alone] == [4, 9, 1, 4]
    assert torch.equal(alone[2]["input_ids"][0], batch["input_ids"][2, :1])


def test_rows_whose_labels_are_masked_tell_nothing_where_others_do():
    rows = Dataset.from_dict({"input_ids": [[5, 6], [7], [8, 9]], "labels": [[-100, -100], [-100], [8, 9]]})
    encoder = Encoder(rows[0], ModelFacts(frozenset({"input_ids", "labels"}), "causal"), TOKENIZER)
    for size in (1, 8):
        assert [each["input_ids"] for each in RowSource(rows, encoder, size, 8).telling()] == [[8, 9]]
    masked = RowSource(rows.select([0, 1]), encoder, 1, 8)
    assert [each["input_ids"] for each in masked.telling()] == [[5, 6]]


def gone(kind, name):
    """A column whose files are not there, so that reading it fails."""
    rows = Dataset.from_dict({name: [["gone"]] * 4 if isinstance(kind, List) else ["gone"] * 4, "x": [[1.0]] * 4})
    return rows.cast_column(name, kind).add_column("label", [0, 1, 0, 1])


@pytest.mark.parametrize("kind", [Audio(), Image(), List(Image()), {"one": Image()}], ids=str)
def test_a_column_that_nobody_needs_is_not_read(kind):
    rows = gone(kind, "other") if not isinstance(kind, dict) else None
    if rows is None:
        rows = Dataset.from_dict({"other": [{"one": "gone"}] * 4, "x": [[1.0]] * 4, "label": [0, 1, 0, 1]})
        rows = rows.cast_column("other", kind)
    example = sampled(rows)[0]
    assert list(example) == rows.column_names
    encoder = Encoder(example, ModelFacts(frozenset({"x"})))
    made = RowSource(rows, encoder, 8, 8, columns=encoder.columns)
    ((_, batch),) = made.batches(range(4))
    assert batch["labels"].tolist() == [0, 1, 0, 1]


def test_what_cannot_be_read_is_named_by_its_row():
    rows = gone(Image(), "image")
    with pytest.raises(DatasetError, match=r"FileNotFoundError.*\[column 'image', 4 rows: 0, 1, 2, 3\]"):
        read_rows(rows, range(4))

    def strict(batch):
        if "b" in batch["word"]:
            raise RuntimeError("no b")
        return batch

    rows = Dataset.from_dict({"word": ["a", "b", "a", "b"]}).with_transform(strict)
    assert read_rows(rows, range(2, 3)) == [{"word": "a"}]
    with pytest.raises(DatasetError, match=r"RuntimeError: no b \[dataset, 2 rows among 0 to 3: 1, 3\]"):
        read_rows(rows, range(4))


def test_columns_are_told_by_a_first_row_of_nulls_too():
    rows = Dataset(pa.table({"body": pa.array([None, "a"], pa.large_string()), "n": pa.array([None, 1])}))
    assert sampled(rows) == [{"body": "", "n": None}]


def test_a_training_leaves_out_what_teaches_nothing():
    rows = Dataset.from_dict({"input_ids": [[], [5, 6], [7, 8], [9]], "labels": [[], [-100, -100], [7, 8], [9]]})
    encoder = Encoder(rows[2], ModelFacts(frozenset({"input_ids", "labels"}), "causal"), TOKENIZER)
    collate = TrainingBatches(RowSource(rows, encoder, 8, 8))
    assert collate([rows[0], rows[1]])["input_ids"].tolist() == [[7, 8], [9, TOKENIZER.eos_token_id]]
    assert collate([rows[0], rows[3]])["input_ids"].tolist() == [[9]]
    assert collate([rows[1]])["input_ids"].tolist() == [[9]], "the last that taught"
    nothing = rows.select([0, 1])
    with pytest.raises(DatasetError, match="tokens and labels to learn from"):
        TrainingBatches(RowSource(nothing, encoder, 8, 8))([rows[0]])
