import numpy as np
import pytest
import torch
from datasets import Dataset

from sage_hf import SageConfig, SageSelector
from sage_hf.data.encoding.rows import Unfit
from sage_hf.data.encoding.values import check_tokens
from sage_hf.errors import DatasetError

from ...cases import llama


@pytest.mark.parametrize(
    "value", [[1, 2], [True, 0], [[1, 2], [3]], np.array([1, 2]), torch.tensor([1, 2]), [np.int64(1)], []], ids=repr
)
def test_whole_numbers_are_tokens(value):
    check_tokens(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [([1.0, 2.0], "float"), ([1, None], "NoneType"), ("1 2", "str"), ([[1, "2"]], "str"), (torch.ones(2), "float")],
    ids=repr,
)
def test_others_are_not(value, said):
    with pytest.raises(Unfit, match=said):
        check_tokens(value)


def test_rows_that_hold_others_are_named():
    rows = Dataset.from_dict({"input_ids": [[3.0, 4.0]] * 8})
    with pytest.raises(DatasetError, match=r"holds float where tokens are needed.*8 rows, first 0, 1, 2, 3, 4"):
        SageSelector(llama(), config=SageConfig(fraction=0.5), progress=False).select(rows)
