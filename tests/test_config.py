import inspect
from dataclasses import replace

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
        ("target_reduction", "sum"),
        ("projection", 0),
        ("projection", "wide"),
        ("row_width", 0),
        ("seed", -1),
        ("target_modules", ""),
        ("text_columns", ["a", "b", "c"]),
        ("text_columns", "text"),
        ("text_columns", [""]),
        ("target_modules", 5),
        ("target_modules", ["query", None]),
        ("group_by", 3),
        ("group_by", ""),
        ("check_gradients", "no"),
        ("strategy", ["agreement"]),
        ("cache_gradients", {}),
        ("gate", 10**400),
        ("gate", np.array([0.1, 0.2])),
        ("sketch_size", np.array([1, 2])),
        ("sketch_size", int),
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


def test_settings_that_are_not_known_are_refused_by_name():
    with pytest.raises(ConfigError, match="clip_everything") as caught:
        SageConfig.from_dict({**SageConfig().to_dict(), "clip_everything": 1})
    assert caught.value.where == "clip_everything"


def test_a_list_that_the_caller_changes_later_is_not_the_settings():
    names = ["query"]
    config = SageConfig(target_modules=names, text_columns=("a", "b"))
    names.append("value")
    assert (config.target_modules, config.text_columns) == (["query"], ["a", "b"])


def test_the_config_is_plain_data():
    assert type(SageConfig(num_examples=np.int64(3)).num_examples) is int
    assert SageConfig(fraction=0.5, target_modules=["query"]).to_dict()["target_modules"] == ["query"]


def test_a_model_settles_what_is_left_to_it():
    config = SageConfig(fraction=0.1)
    small, large = config.settled(4096, 99_200), config.settled(16_384, 10**9)
    assert (small.sketch_size, small.batch_size) == (128, 128)
    assert (large.sketch_size, large.batch_size) == (256, 32)
    assert config.settled(160, 160).sketch_size == 64
    given = SageConfig(fraction=0.1, sketch_size=7, batch_size=3)
    assert given.settled(4096, 10) == given
    assert small.settled(16_384, 10**9) == small


def test_the_fast_preset_takes_the_last_blocks_unless_others_are_asked_for():
    assert SageConfig(preset="fast").target_modules == "last"
    assert SageConfig(preset="fast", target_modules="head").target_modules == "head"
    assert SageConfig().target_modules == "auto"
    with pytest.raises(ConfigError, match="preset"):
        SageConfig(preset="slow")


@pytest.mark.parametrize(("typo", "meant"), [("agreemnt", "agreement"), ("herdin", "herding"), ("AUTO", "auto")])
def test_an_unknown_strategy_is_refused_with_the_nearest_name(typo, meant):
    with pytest.raises(ConfigError) as caught:
        SageConfig(strategy=typo)
    assert caught.value.where == "strategy"
    if meant != typo.lower():
        assert f"Did you mean '{meant}'?" in caught.value.fix
    assert f"'{meant}'" in caught.value.fix


def test_a_share_in_percent_is_refused_with_the_share():
    with pytest.raises(BudgetError, match=r"Did you mean 0.1 \(10 %\)\?"):
        SageConfig(fraction=10)


def test_settings_with_a_strategy_that_is_not_registered_here_are_read_and_chosen_by_no_more():
    values = {**SageConfig(fraction=0.1).to_dict(), "strategy": "my_own"}
    config = SageConfig.from_dict(values)
    assert config.to_dict() == values
    with pytest.raises(ConfigError, match="my_own"):
        replace(config, fraction=0.2)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("spectrum_power", 4.001, "Give a number from 0 to 4"),
        ("spectrum_power", -1e-10, "Give a number from 0 to 4"),
        ("max_row_norm", 0.9e-30, "Give a number from 1e-30 to 1e.30"),
        ("max_row_norm", 1.1e30, "Give a number from 1e-30 to 1e.30"),
        ("gate", 1.0, "above 0 and below 1"),
        ("gate", 0.0, "above 0 and below 1"),
        ("num_examples", 10**30, r"Give a whole number below 2\*\*63"),
        ("num_examples", 0, "Give a whole number of at least 1"),
        ("seed", 2**63, r"Give a whole number below 2\*\*63"),
        ("seed", -1, "Give a whole number of at least 0"),
    ],
)
def test_the_limits_that_an_error_names_are_those_that_hold(name, value, message):
    with pytest.raises((ConfigError, BudgetError), match=message):
        SageConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("spectrum_power", (0, 4)),
        ("max_row_norm", (1e-30, 1e30)),
        ("gate", (1e-300, 0.9999)),
        ("num_examples", (1, 2**63 - 1)),
        ("seed", (0, 2**63 - 1)),
    ],
)
def test_both_ends_of_a_range_are_taken(name, values):
    assert [getattr(SageConfig(**{name: value}), name) for value in values] == list(values)
