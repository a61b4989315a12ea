import functools

import pytest
import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding, default_data_collator

from examples.python_text import train_tokenizer
from sage_hf import SageConfig
from sage_hf.data.columns import open_source
from sage_hf.data.encoding.collators import is_of_library
from sage_hf.errors import DatasetError

from ...cases import bert, pad_tokens

TOKENIZER = train_tokenizer(["a"], 260)
TOKENIZER.pad_token = TOKENIZER.eos_token
ROWS = {"input_ids": [[5, 6], [7]], "note": ["a", "b"], "stars": [2, 1], "label": [0, 1]}


def batch(collator, columns=ROWS, model=bert):
    source = open_source(model(), Dataset.from_dict(columns), SageConfig(), None, collator)
    ((_, made),) = source.batches(range(2))
    return made


def test_a_collator_of_ones_own_gets_all_columns():
    def by_stars(rows):
        return {
            "input_ids": torch.tensor([row["input_ids"][:1] for row in rows]),
            "labels": [r["stars"] for r in rows],
        }

    def tensors(rows):
        made = by_stars(rows)
        return {**made, "labels": torch.tensor(made["labels"])}

    assert batch(tensors)["labels"].tolist() == [2, 1]
    assert batch(functools.partial(tensors))["labels"].tolist() == [2, 1]


def test_labels_that_only_the_collator_knows_are_its_own():
    def own(rows):
        return {
            "input_ids": torch.tensor([row["input_ids"][:1] for row in rows]),
            "labels": torch.tensor([{"good": 1, "bad": 2}[row["label"]] for row in rows]),
        }

    assert batch(own, {**ROWS, "label": ["good", "bad"]})["labels"].tolist() == [1, 2]


def test_a_collator_of_transformers_gets_what_trainer_gives_it():
    made = batch(DataCollatorWithPadding(TOKENIZER))
    assert set(made) == {"input_ids", "attention_mask", "labels"}
    made = batch(lambda rows: DataCollatorWithPadding(TOKENIZER)(rows))
    assert set(made) == {"input_ids", "attention_mask", "labels"}, "it cannot use a text, and gets the rest"


def test_columns_that_nobody_asked_for_do_not_reach_the_model():
    columns = {**ROWS, "input_ids": [[5, 6], [7, 8]], "note": [0, 1]}
    made = batch(lambda rows: default_data_collator(rows), columns)
    assert set(made) == {"input_ids", "labels"}


def test_who_wrote_a_collator_is_told_by_its_module():
    assert is_of_library(default_data_collator)
    assert is_of_library(functools.partial(default_data_collator, return_tensors="pt"))
    assert is_of_library(DataCollatorWithPadding(TOKENIZER))
    assert not is_of_library(pad_tokens)


def test_a_collator_that_fails_is_told_with_its_own_error():
    with pytest.raises(DatasetError, match=r"The collator fails: KeyError: 'moons' \[data_collator\]"):
        batch(lambda rows: {"x": [row["moons"] for row in rows]})
