"""No object that holds columns prints their numbers."""

import dataclasses
import importlib
import pkgutil

import numpy as np
import pytest
import torch
from datasets import Dataset

import sage_hf
from sage_hf.utils.shown import ShortRepr, short

# What people get from the public names, and what theirs are given.
HELD = ("Selection", "StreamSelection", "Comparison", "LabelIssues", "RowSignals", "Fit", "GroupConsensus", "Groups")
HELD += ("FitStats", "SelectionStats", "Candidates", "RowVerdicts", "Choice")


def classes():
    for module in pkgutil.walk_packages(sage_hf.__path__, "sage_hf."):
        # The explorer's app needs gradio, which tests do without.
        if not module.name.endswith(("__main__", "explorer.app")):
            yield from vars(importlib.import_module(module.name)).values()


def test_every_dataclass_that_people_meet_has_a_short_repr():
    found = {kind.__name__: kind for kind in classes() if dataclasses.is_dataclass(kind) and isinstance(kind, type)}
    for name in HELD:
        assert not found[name].__dataclass_params__.repr, name
        assert "__repr__" not in vars(found[name]), name  # that of ShortRepr, or of the base of selections
    public = {name for name in sage_hf.__all__ if name in found}
    columns = {name for name in public if any("NDArray" in str(each.type) for each in dataclasses.fields(found[name]))}
    assert columns and columns <= {*HELD}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((3, 4), np.float32), "<[3, 4] float32>"),
        (torch.zeros(2, dtype=torch.int64), "<[2] int64>"),
        (np.float32(0.5), "0.5"),
        (list(range(100)), "<list of 100>"),
        (dict.fromkeys(range(1000)), "<dict of 1,000>"),
        ([np.zeros(2), "a"], "[<[2] float64>, 'a']"),
        ({"a": torch.zeros(1)}, "{'a': <[1] float32>}"),
        (Dataset.from_dict({"a": [1, 2]}), "<Dataset of 2 rows>"),
        ("x" * 100, "<str>"),
        (None, "None"),
    ],
)
def test_a_value_in_a_few_words(value, text):
    assert short(value) == text


def test_fields_that_are_none_or_hidden_are_left_out():
    @dataclasses.dataclass(repr=False)
    class Held(ShortRepr):
        scores: np.ndarray
        name: str | None = None
        source: str = dataclasses.field(default="x", repr=False)

    assert repr(Held(np.zeros(5))) == "Held(scores=<[5] float64>)"
