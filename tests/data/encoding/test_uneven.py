"""Rows that make no batch are named, and with them what they hold."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn

from sage_hf import SageConfig, SageSelector, warm_up
from sage_hf.data.encoding.uneven import misfits
from sage_hf.errors import DatasetError, LabelError

from ...cases import bert, llama

ROWS = 40


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x, labels):
        logits = self.layer(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def numbers(row=None, value=None):
    x = torch.randn(ROWS, 4).tolist()
    if row is not None:
        x[row] = value
    return Dataset.from_dict({"x": x, "labels": [number % 3 for number in range(ROWS)]})


def tokens(column, value):
    rows = [[3 + number % 7] * (3 + number % 4) for number in range(ROWS)]
    columns = {"input_ids": rows, "attention_mask": [[1] * len(ids) for ids in rows], "labels": list(rows)}
    columns[column][7] = value
    return Dataset.from_dict(columns)


def select(model, rows):
    config = SageConfig(num_examples=5, strategy="agreement", gate=None, group_by=None, shard_size=16, batch_size=8)
    return SageSelector(model, config=config, progress=False).select(rows)


@pytest.mark.parametrize("form", ["dataset", "stream"])
@pytest.mark.parametrize("row", [7, 0, 37])  # in the batch that is checked first, and beyond the first shard
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0, 2.0], "one holds 2 values, others 4 values"),
        ([1.0, None, 2.0, 3.0], "one holds a null"),
        ([], "one holds 0 values, others 4 values"),
    ],
)
def test_a_row_that_makes_no_batch_is_named(form, row, value, message):
    rows = numbers(row, value)
    with pytest.raises(DatasetError, match=rf"{message} \[column 'x', row {row}\]"):
        select(Net(), rows if form == "dataset" else rows.to_iterable_dataset())


def test_a_warm_up_names_the_column():
    with pytest.raises(DatasetError, match=r"one holds 2 values, others 4 values \[column 'x'\]"):
        warm_up(Net(), numbers(7, [1.0, 2.0]), steps=5)


@pytest.mark.parametrize(
    ("model", "column", "value", "error"),
    [
        (bert, "attention_mask", [1, None, 1, 1, 1, 1], DatasetError),
        (llama, "labels", [1, None, 3, 4, 5, 6], LabelError),
        (llama, "input_ids", [1, None, 3, 4, 5, 6], DatasetError),
    ],
)
def test_a_null_among_tokens_is_named(model, column, value, error):
    rows = tokens(column, value)
    if model is bert:
        rows = rows.remove_columns("labels").add_column("labels", [number % 3 for number in range(ROWS)])
    with pytest.raises(error, match=rf"column '{column}', row 7") as caught:
        select(model(), rows)
    assert "null" in caught.value.what or "NoneType" in caught.value.what


def test_rows_are_held_against_most_of_them():
    rows = [{"x": np.zeros((2, 3)), "y": 1}, {"x": torch.zeros(2, 3), "y": 2}, {"x": [[0.0] * 3] * 2, "y": [1]}]
    offence = misfits(rows, is_padded=False)
    assert (offence.column, offence.rows) == ("y", [2]) and "1 value, others a single value" in offence.why.what
    assert misfits(rows, is_padded=True) is None
    offence = misfits([{"x": [[1, 2], [3]]}, {"x": [[1, 2], [3, 4]]}], is_padded=True)
    assert offence.rows == [0] and "lists of 1 value and 2 values" in offence.why.what
