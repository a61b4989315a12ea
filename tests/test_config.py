import inspect

import numpy as np
import pytest

from sage_hf import SageConfig
from sage_hf.errors import BudgetError, ConfigError, SageError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sketch_size", 0),
        ("sketch_size", 2.5),
        ("batch_size", -1),
        ("shard_size", True),
        ("sketch_size", "64"),
        ("sketch_size", None),
        ("max_length", 0),
        ("balance", "fair"),
        ("consensus", "approximate"),
        ("loss_reduction", "none"),
        ("projection", 0),
        ("projection", "wide"),
        ("row_width", 0),
        ("seed", -1),
        ("target_modules", ""),
        ("text_columns", ["a", "b", "c"]),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(field, value):
    with pytest.raises(ConfigError) as caught:
        SageConfig(**{field: value})
    assert field in caught.value.where
    assert caught.value.fix


@pytest.mark.parametrize(
    "budget", [{"fraction": 0}, {"fraction": 2}, {"num_examples": 0}, {"fraction": "0.1"}, {"num_examples": 2.5}]
)
def test_a_budget_out_of_range_is_refused_at_once(budget):
    with pytest.raises(BudgetError):
        SageConfig(**budget)


def test_a_budget_given_twice_is_refused_at_once():
    with pytest.raises(BudgetError, match="exactly one"):
        SageConfig(fraction=0.1, num_examples=5)


def test_every_error_says_what_where_and_what_to_do():
    error = SageError("It broke", where="here", fix="Mend it.")
    assert str(error) == "It broke [here]. Mend it."


def test_every_field_has_a_help_text_and_a_description():
    told = inspect.cleandoc(SageConfig.__doc__)
    for name, field in SageConfig.__dataclass_fields__.items():
        assert field.metadata["help"].endswith("."), name
        assert f"\n    {name}: " in told, name


def test_the_config_is_plain_data():
    assert type(SageConfig(num_examples=np.int64(3)).num_examples) is int
    assert SageConfig(fraction=0.5, target_modules=["query"]).to_dict()["target_modules"] == ["query"]
