"""Rows of uneven length in one batch have the losses that each has alone, whatever stands beside their tokens."""

import pytest
import torch
from datasets import Dataset
from transformers import (
    BertConfig,
    BertForMultipleChoice,
    BertForTokenClassification,
    LayoutLMConfig,
    LayoutLMForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from examples.python_text import train_tokenizer
from sage_hf import GradientCollector, SageConfig
from sage_hf.data.columns import open_source
from sage_hf.data.encoding.padding import Padding
from sage_hf.errors import DatasetError

from ...cases import BERT, bert, gpt2, llama
from ...reference import per_example_gradients, relative_error

TOKENIZER = train_tokenizer(["a"], 260)
IDS = [[5, 6, 7, 8], [9, 10], [11], [12, 13, 14]]


def boxes(ids):
    return [[[token, token + 1, token + 2, token + 3] for token in row] for row in ids]


def seq2seq():
    settings = {"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(**settings, decoder_start_token_id=0, pad_token_id=0))


CHOICES = [[[5, 6], [7], [8, 9, 10]], [[11], [12, 13], [14]], [[5], [6], [7]], [[8, 9], [10], [11, 12, 13, 14]]]
CLASSES = {"label": [0, 1, 2, 1]}
KINDS = {
    "boxes": (
        lambda: LayoutLMForSequenceClassification(LayoutLMConfig(**BERT, num_labels=3)),
        {"input_ids": IDS, "bbox": boxes(IDS), **CLASSES},
    ),
    "positions and types": (
        bert,
        {
            "input_ids": IDS,
            "position_ids": [[place + 3 for place in range(len(row))] for row in IDS],
            "token_type_ids": [[token % 2 for token in row] for row in IDS],
            **CLASSES,
        },
    ),
    "vectors": (bert, {"inputs_embeds": torch.randn(10, 16)[:, None].expand(-1, 1, -1), **CLASSES}),
    "choices": (
        lambda: BertForMultipleChoice(BertConfig(**BERT)),
        {"input_ids": CHOICES, "token_type_ids": [[[1] * len(c) for c in row] for row in CHOICES], **CLASSES},
    ),
    "a class for each token": (
        lambda: BertForTokenClassification(BertConfig(**BERT, num_labels=3)),
        {"input_ids": IDS, "labels": [[token % 3 for token in row] for row in IDS]},
    ),
    "other tokens": (seq2seq, {"input_ids": IDS, "labels": [[3], [4, 5, 6], [7, 8], [9, 10, 11, 12]]}),
    "language": (llama, {"input_ids": [[*row, 3, 4] for row in IDS]}),
    "positions of a table": (gpt2, {"input_ids": [[*row, 3, 4] for row in IDS]}),
}
VECTORS = [
    torch.randn(length, 16, generator=torch.Generator().manual_seed(length)).tolist() for length in (4, 2, 1, 3)
]
KINDS["vectors"] = (bert, {"inputs_embeds": VECTORS, **CLASSES})


def padded_choices(choices):
    """The choices of one row, by hand."""
    longest = max(map(len, choices))
    ids = torch.tensor([[choice + [0] * (longest - len(choice)) for choice in choices]])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "token_type_ids": (ids > 0).long()}


@pytest.mark.parametrize("tokenizer", [None, TOKENIZER], ids=["alone", "tokenizer"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_a_padded_batch_are_those_of_each_row_alone(kind, tokenizer):
    torch.manual_seed(0)
    build, columns = KINDS[kind]
    model, rows = build().eval(), Dataset.from_dict(columns)
    source = open_source(model, rows, SageConfig(), tokenizer, None)
    ((numbers, batch),) = source.batches(range(4))
    assert numbers.sort().values.tolist() == [0, 1, 2, 3]
    collector = GradientCollector(model, projection=None)
    found, losses = collector.collect(batch)
    names = [block.name for block in collector.blocks]
    for place, row in enumerate(numbers.tolist()):
        alone = {
            ("labels" if name == "label" else name): torch.tensor(values[row : row + 1])
            for name, values in columns.items()
            if kind != "choices" or name == "label"
        }
        if kind == "choices":
            alone |= padded_choices(columns["input_ids"][row])
        alone.setdefault("labels", alone.get("input_ids"))
        wanted = per_example_gradients(model, alone, names)
        assert relative_error(found[place : place + 1], wanted) < 1e-4
        with torch.no_grad():
            assert losses[place] == pytest.approx(model(**alone).loss.item(), rel=1e-4)


def test_what_each_column_is_filled_up_with():
    rows = [
        {"input_ids": [5], "token_type_ids": [1], "labels": [5], "special_tokens_mask": [0], "x": [[2.0]]},
        {
            "input_ids": [5, 6],
            "token_type_ids": [1, 1],
            "labels": [5, 6],
            "special_tokens_mask": [0, 0],
            "x": [[2.0]] * 2,
        },
    ]
    made = Padding(9, token_type=3, adds_mask=True).batch(rows)
    assert {name: value[0].tolist() for name, value in made.items()} == {
        "input_ids": [5, 9],
        "token_type_ids": [1, 3],
        "labels": [5, -100],
        "special_tokens_mask": [0, 1],
        "x": [[2.0], [0.0]],
        "attention_mask": [1, 0],
    }


def test_a_row_without_tokens_among_others_is_one_token_of_padding():
    made = Padding(9, adds_mask=True).batch([{"input_ids": [], "labels": []}, {"input_ids": [5, 6], "labels": [5, 6]}])
    assert made["input_ids"].tolist() == [[9, 9], [5, 6]]
    assert made["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert made["labels"].tolist() == [[-100, -100], [5, 6]]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"input_ids": [5], "bbox": [[1, 2]]}, {"input_ids": [5, 6], "bbox": [[1, 2, 3]] * 2}], "column 'bbox'"),
        ([{"input_ids": [5], "x": [1, 2, 3]}, {"input_ids": [5, 6], "x": [1]}], "column 'x'"),
        ([{"input_ids": [5, 6], "x": [[1], [2, 3]]}], "column 'x'"),
        ([{"input_ids": [[5], [6]]}, {"input_ids": [[5], [6], [7]]}], "column 'input_ids'"),
    ],
)
def test_what_makes_no_batch_is_named_by_its_column(rows, said):
    with pytest.raises(DatasetError, match=said):
        Padding(0, adds_mask=True).batch(rows)


def test_rows_are_not_filled_up_where_the_model_would_see_it():
    with pytest.raises(DatasetError, match="Pass processing_class=tokenizer"):
        Padding().batch([{"input_ids": [5]}, {"input_ids": [5, 6]}])
    assert Padding().batch([{"input_ids": [5]}, {"input_ids": [6]}])["input_ids"].tolist() == [[5], [6]]


def test_a_padding_token_beyond_the_table_is_not_used():
    tokenizer = train_tokenizer(["a"], 260)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    rows = Dataset.from_dict({"input_ids": IDS})
    model = llama(vocab_size=len(tokenizer) - 1)
    ((_, batch),) = open_source(model, rows, SageConfig(), tokenizer, None).batches(range(4))
    assert batch["input_ids"].max() < len(tokenizer) - 1
