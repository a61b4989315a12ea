"""A model and a dataset find each other, whatever form the rows come in."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Audio, ClassLabel, Dataset, Image, List
from torch import nn
from transformers import BertConfig, BertForMultipleChoice

from examples.python_text import train_tokenizer
from sage_hf import SageConfig, SageSelector, find_label_issues
from sage_hf.data.columns import StoredValues, find_groups, find_labels, open_source, open_stream
from sage_hf.errors import ConfigError, DatasetError
from sage_hf.training.warmup import warm_up
from sage_hf.utils import columns as column_blocks

from ..cases import BERT, bert, llama

TEXTS = ["a b c", "d e", "f g a b", "c d", "b"] * 4
LABELS = [0, 1, 2, 1] * 5
TOKENIZER = train_tokenizer(TEXTS, 280)
SIZE = {"vocab_size": 280}


def select(model, rows, processing_class=TOKENIZER, data_collator=None, **settings):
    config = SageConfig(**{"fraction": 0.3, "strategy": "agreement", "sketch_size": 8, **settings})
    selector = SageSelector(
        model, processing_class=processing_class, data_collator=data_collator, config=config, progress=False
    )
    return selector.select(rows)


def features(model, rows, processing_class=TOKENIZER):
    return open_source(model, rows, SageConfig(), processing_class, None)._features(range(len(rows)))


@pytest.mark.parametrize("kind", [Audio(), Image(), List(Audio())], ids=str)
def test_files_that_nobody_needs_may_be_gone(kind):
    rows = Dataset.from_dict({"clip": [["gone"] if isinstance(kind, List) else "gone"] * 20, "text": TEXTS})
    rows, model = rows.cast_column("clip", kind).add_column("label", LABELS), bert(**SIZE)
    wanted = select(model, rows.remove_columns("clip"))
    assert np.array_equal(select(model, rows).scores, wanted.scores)
    assert select(model, rows.to_iterable_dataset()).indices.tolist() == wanted.indices.tolist()
    assert len(find_label_issues(model, rows, processing_class=TOKENIZER, progress=False).label_doubt) == 20
    assert warm_up(model, rows, steps=1, processing_class=TOKENIZER).steps == 1
    with pytest.raises(DatasetError, match=r"The dataset cannot be read.*20 rows, first 0, 1, 2, 3, 4"):
        select(model, rows, data_collator=lambda rows: rows)  # who knows what it reads


def form(name, ids):
    rows = Dataset.from_dict({"input_ids": ids, "label": LABELS})
    if name == "formatted":
        return rows.with_format("torch")
    if name == "some columns":
        rows.set_format("numpy", columns=["input_ids"])
        return rows
    if name == "transformed":
        return rows.with_transform(lambda batch: {**batch, "input_ids": [torch.tensor(i) for i in batch["input_ids"]]})
    if name == "arrow of 32 bits":
        columns = {"input_ids": pa.array(ids, pa.list_(pa.int32())), "label": pa.array(LABELS, pa.uint8())}
        return Dataset(pa.table(columns))
    assert name in ("stream", "stream of tensors")
    stream = rows.to_iterable_dataset()
    return stream if name == "stream" else stream.with_format("torch")


@pytest.mark.parametrize(
    "name", ["formatted", "some columns", "transformed", "arrow of 32 bits", "stream", "stream of tensors"]
)
def test_rows_are_the_same_in_every_form(name):
    ids, model = [TOKENIZER(text).input_ids for text in TEXTS], bert(**SIZE)
    wanted = select(model, Dataset.from_dict({"input_ids": ids, "label": LABELS}))
    assert select(model, form(name, ids)).indices.tolist() == wanted.indices.tolist()
    texts = select(model, Dataset.from_dict({"text": TEXTS, "label": LABELS}))
    assert np.allclose(texts.losses, wanted.losses, atol=1e-6)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_texts_of_any_type_and_with_a_null_at_the_beginning_are_texts(kind):
    rows = Dataset(pa.table({"body": pa.array([None, *TEXTS[1:]], kind), "label": LABELS}))
    with pytest.raises(DatasetError, match=r"holds None, but a text is needed \[column 'body', row 0\]"):
        select(bert(**SIZE), rows)
    (long,) = features(llama(**SIZE), Dataset.from_dict({"body": ["a b 😀 " * 5000]}))
    assert len(long["input_ids"]) == 64


def test_a_classifier_reads_prompt_and_completion_as_a_pair():
    for columns in (("prompt", "completion"), ("instruction", "output")):
        rows = Dataset.from_dict({columns[0]: ["a b"], columns[1]: ["c"], "label": [2]})
        (feature,) = features(bert(**SIZE), rows)
        first = "a b" if columns[0] == "prompt" else "a b\n"
        assert feature["input_ids"] == TOKENIZER(first, "c").input_ids
        assert feature["labels"] == 2


class Sums(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x, labels):
        logits = self.layer(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def test_a_tokenizer_beside_prepared_rows_changes_nothing():
    model, rows = Sums(), Dataset.from_dict({"x": torch.randn(20, 6).tolist(), "text": TEXTS, "label": LABELS})
    with_it, without = select(model, rows), select(model, rows, None)
    assert np.array_equal(with_it.scores, without.scores)


def choices(longest=3):
    model = BertForMultipleChoice(BertConfig(**BERT)).eval()
    ids = [[[5 + row % 4] * (1 + (row + choice) % longest) for choice in range(4)] for row in range(20)]
    return model, Dataset.from_dict({"input_ids": ids, "label": [row % 4 for row in range(20)]})


def test_rows_of_choices_are_selected_whatever_the_strategy():
    torch.manual_seed(0)
    model, rows = choices()
    found = [select(model, rows, None, strategy=strategy) for strategy in ("auto", "agreement")]
    for row in range(20):
        ids = nn.utils.rnn.pad_sequence([torch.tensor(choice) for choice in rows[row]["input_ids"]], batch_first=True)
        alone = model(ids[None], attention_mask=(ids[None] > 0).long(), labels=torch.tensor([row % 4])).loss
        for selection in found:
            assert selection.losses[row] == pytest.approx(alone.item(), rel=1e-4)


class Strange(nn.Module):
    """Shows no vector of a row; counts what it sees."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(2, 2), 0

    def forward(self, x, labels=None):
        self.seen += len(x)
        return {"logits": self.layer(x.reshape(-1, 2)).reshape(len(x), -1)}


def test_a_strategy_that_the_model_cannot_serve_is_refused_before_the_passes():
    model = Strange()
    rows = Dataset.from_dict({"x": torch.randn(100, 4).tolist(), "label": [0, 1] * 50})
    with pytest.raises(ConfigError, match="gives no embedding of a row"):
        select(model, rows, None, strategy="auto", batch_size=4)
    assert model.seen <= 4


def test_a_stream_that_begins_without_tokens_is_looked_at_further():
    rows = Dataset.from_dict({"input_ids": [[]] * 9 + [[5, 6]], "label": [0] * 10}).to_iterable_dataset()
    source = open_stream(bert(), rows, SageConfig(batch_size=4), None, None)
    assert [len(feature["input_ids"]) for feature in source.beginning().telling()] == [2]


@pytest.mark.parametrize("values", [[2, 0, 1] * 5, [True, False, False] * 5, ["b", "a", "é"] * 5])
def test_a_column_is_read_in_blocks_as_it_is_stored(values, monkeypatch):
    monkeypatch.setattr(column_blocks, "BLOCK_ROWS", 4)
    rows = Dataset.from_dict({"label": values, "text": TEXTS[:15]})
    if isinstance(values[0], int) and not isinstance(values[0], bool):
        rows = rows.cast_column("label", ClassLabel(names=["x", "y", "z"]))
    shuffled = rows.shuffle(seed=1)
    for form in (shuffled, shuffled.with_format("torch"), shuffled.with_transform(lambda batch: {"other": [0]})):
        stored = StoredValues(form, "label")
        assert list(stored) == list(stored) == list(shuffled.with_format(None)["label"])
        assert [type(value) for value in stored] == [type(values[0])] * len(stored)


def test_labels_are_the_groups_where_rows_are_grouped_by_class():
    rows = Dataset.from_dict({"text": TEXTS, "label": LABELS, "source": ["a", "b"] * 10})
    model = bert(**SIZE)
    by_class = find_groups(model, rows, "auto")
    assert find_labels(model, rows, by_class) is by_class
    assert find_labels(model, rows, find_groups(model, rows, "source")).codes.tolist() == LABELS


def test_a_selection_tells_rows_and_groups_in_the_types_that_it_documents():
    selection = select(bert(**SIZE), Dataset.from_dict({"text": TEXTS, "label": LABELS}))
    assert (selection.indices.dtype, selection.groups.dtype) == (np.int64, np.int32)
    assert (selection.scores.dtype, selection.losses.dtype, selection.status.dtype) == ("f4", "f4", "u1")


def test_classes_that_are_floats_are_one_group_which_is_said(caplog):
    rows = Dataset.from_dict({"input_ids": [[3, 4]] * 4, "label": [0.0, 1.0, 0.0, 2.0]})
    assert find_groups(bert(), rows, "auto").count == 1
    assert "Column 'label' holds floats, so rows are not grouped by class" in caplog.text
    caplog.clear()
    find_groups(bert(num_labels=1), rows, "auto")  # a regression
    find_groups(bert(problem_type="multi_label_classification"), rows, "auto")
    assert caplog.text == ""
