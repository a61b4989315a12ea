"""Settings through dictionaries, JSON, YAML, the shell and training arguments, and values that are none."""

import json
import math
import shlex
from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
import yaml
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st
from transformers import HfArgumentParser
from typer.main import get_command

from sage_hf import SageConfig, SageTrainingArguments
from sage_hf.cli.main import app
from sage_hf.cli.options import Inputs
from sage_hf.cli.reproduce import select_command
from sage_hf.config import (
    BALANCES,
    CACHES,
    CONSENSUSES,
    LOSS_REDUCTIONS,
    PRESETS,
    STRATEGY_LINES,
    TARGET_KEYWORDS,
    TARGET_REDUCTIONS,
)
from sage_hf.errors import BudgetError, ConfigError, SageError, printable
from sage_hf.utils.setting_text import from_text, to_text

from .scale import cases, tried

# Names that columns and modules may have: with commas, quotes, brackets, blanks, other scripts.
NAMES = st.one_of(
    st.sampled_from(
        ["auto", "none", "all", "cluster", "a,b", '["x"]', '"', "-x", "--seed", "q_proj", "[qv]", "文", " "]
    ),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12),
)
WHOLE = st.one_of(st.integers(1, 5000), st.integers(1, 2**63 - 1))


def words(*given):
    return st.sampled_from(given)


VALID = {
    "strategy": words(*STRATEGY_LINES),
    "gate": st.one_of(words("auto", None), st.floats(0, 1, exclude_min=True, exclude_max=True)),
    "max_row_norm": st.one_of(st.none(), st.floats(1e-20, 1e20)),
    "spectrum_power": st.one_of(st.none(), st.floats(0, 4)),
    "sketch_size": st.one_of(words("auto"), WHOLE),
    "projection": st.one_of(words("auto", None), WHOLE),
    "row_width": st.one_of(words("auto"), WHOLE),
    "target_modules": st.one_of(words(*TARGET_KEYWORDS), NAMES, st.lists(NAMES, min_size=1, max_size=3)),
    "preset": words(*PRESETS),
    "consensus": words(*CONSENSUSES),
    "group_by": st.one_of(words("auto", "cluster", None), NAMES),
    "num_clusters": WHOLE,
    "balance": words(*BALANCES),
    "min_per_group": st.integers(0, 1),
    "target_reduction": words(*TARGET_REDUCTIONS),
    "loss_reduction": words(*LOSS_REDUCTIONS),
    "batch_size": st.one_of(words("auto"), WHOLE),
    "shard_size": WHOLE,
    "cache_gradients": words(*CACHES),
    "num_workers": st.integers(0, 64),
    "text_columns": st.one_of(st.none(), st.lists(NAMES, min_size=1, max_size=2)),
    "max_length": WHOLE,
    "check_gradients": st.booleans(),
    "recheck_every": st.integers(0, 2**40),
    "seed": st.integers(0, 2**63 - 1),
}
BUDGETS = st.one_of(
    st.fixed_dictionaries({"fraction": st.floats(0, 1, exclude_min=True)}),
    st.fixed_dictionaries({"num_examples": WHOLE}),
    st.just({}),
)
VALUES = st.builds(lambda budget, more: {**budget, **more}, BUDGETS, st.fixed_dictionaries({}, optional=VALID))


def test_every_setting_is_tried():
    assert {*VALID, "fraction", "num_examples"} == {each.name for each in fields(SageConfig)}


@settings(max_examples=cases(30, 1500))
@given(VALUES)
def test_a_dictionary_json_and_yaml_give_the_same_settings(values):
    tried()
    config = SageConfig(**values)
    for read in (
        config.to_dict(),
        json.loads(json.dumps(config.to_dict(), allow_nan=False)),
        yaml.safe_load(yaml.safe_dump(config.to_dict(), allow_unicode=True)),
    ):
        assert SageConfig.from_dict(read) == config
    assert replace(config) == config


@settings(max_examples=cases(60, 6000))
@given(st.sampled_from(sorted(VALID)).flatmap(lambda name: st.tuples(st.just(name), VALID[name])))
def test_text_gives_the_same_value(setting):
    tried()
    name, value = setting
    text = to_text(name, value)
    read = from_text(name, text)
    if isinstance(value, int | bool) and read == text:  # which the shell's parser makes a number of
        read = type(value)(text == "True" if isinstance(value, bool) else text)
    assert read == value and type(read) is type(value)


def parsed(command):
    """The settings that `sage-hf select` makes of a command."""
    select = get_command(app).commands["select"]
    given = select.make_context("select", command[2:]).params
    plain = {name: getattr(value, "value", value) for name, value in given.items()}
    return SageConfig(**{each.name: from_text(each.name, plain[each.name]) for each in fields(SageConfig)}), plain


@settings(max_examples=cases(8, 500))
@given(VALUES, NAMES, NAMES)
def test_the_command_that_a_card_tells_gives_the_same_settings(values, split, column):
    tried()
    assume(not (values.get("balance") == "none" and values.get("min_per_group", 1) > 1))
    config = SageConfig(**values)
    inputs = Inputs("me/model", "me/data", split=split, label_column=column)
    command = select_command(inputs, config, "out")
    note(shlex.join(command))
    read, options = parsed(shlex.split(shlex.join(command)))
    assert read == config
    assert (options["split"], options["label_column"]) == (split, column)


HERE = {name for name in VALID if hasattr(SageTrainingArguments, f"sage_{name}") and name != "batch_size"}
TRAINING = st.builds(
    lambda budget, more: {**budget, **more},
    BUDGETS,
    st.fixed_dictionaries({}, optional={name: VALID[name] for name in sorted(HERE)}),
)


@settings(max_examples=cases(3, 200))
@given(TRAINING)
def test_training_arguments_have_the_same_settings_from_python_yaml_and_the_shell(tmp_path_factory, values):
    tried()
    config = SageConfig(**values, batch_size=8)
    named = {f"sage_{name}": value for name, value in values.items()}
    # Text in a Python call is read as the shell reads it, so names go as a list or as JSON.
    told = {name: to_text(name[5:], value) if isinstance(value, str) else value for name, value in named.items()}
    assert SageTrainingArguments("out", use_cpu=True, **told).sage_config() == config
    file = tmp_path_factory.mktemp("arguments") / "arguments.yaml"
    file.write_text(yaml.safe_dump({"output_dir": "out", "use_cpu": True, **told}), encoding="utf-8")
    parser = HfArgumentParser(SageTrainingArguments)
    (read,) = parser.parse_yaml_file(str(file))
    assert read.sage_config() == config
    line = ["--output_dir=out", "--use_cpu"]
    line += [f"--sage_{name}={to_text(name, value)}" for name, value in values.items() if value is not None]
    line += [
        f"--sage_{name}=none"
        for name, value in values.items()
        if value is None and SageConfig.__dataclass_fields__[name].default is not None
    ]
    (read,) = parser.parse_args_into_dataclasses(line)
    assert read.sage_config() == config
    assert json.loads(read.to_json_string())["output_dir"] == "out"


# -------------------------------------------------------------------------------- values that are none
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**400), 10**400),
    st.integers(-3, 3),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=3)), max_size=3),
    st.tuples(st.text(max_size=2)),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sets(st.text(max_size=2), max_size=2),
    st.sampled_from(
        [object(), int, len, ..., math.inf, Fraction(1, 3), Fraction(1, 10**400), np.float32(0.5), np.int64(3)]
    ),
    st.sampled_from([np.array([1, 2]), np.array(3), np.array("auto"), torch.tensor(2), torch.tensor([0.5, 1.0])]),
    NAMES,
)


def made(make):
    """What a call gives, or the error by which it refuses; any other error is none of ours."""
    try:
        return make(), None
    except SageError as error:
        return None, error


@settings(max_examples=cases(200, 15_000))
@given(st.sampled_from([each.name for each in fields(SageConfig)]), ODD)
def test_a_value_is_plain_data_that_survives_json_or_an_error_that_names_the_setting(name, value):
    tried()
    config, error = made(lambda: SageConfig(**{name: value}))
    if error is not None:
        assert isinstance(error, BudgetError | ConfigError)
        assert name in error.where and error.fix and len(str(error)) < 1000
        return
    assert SageConfig.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False))) == config


@settings(max_examples=cases(150, 15_000))
@given(
    st.sampled_from([each.name for each in fields(SageConfig)]),
    st.one_of(st.text(), NAMES, st.from_regex(r"[0-9]{1,30}|-?[0-9.e]{1,9}|[\[\"].{0,9}", fullmatch=True)),
)
def test_any_text_is_a_value_or_an_error_that_names_the_setting(name, text):
    tried()
    config, error = made(lambda: SageConfig(**{name: from_text(name, text)}))
    if error is not None:
        assert name in error.where
        return
    assert SageConfig.from_dict(config.to_dict()) == config


@settings(max_examples=cases(10, 300))
@given(VALUES, st.text(min_size=1, max_size=8), ODD)
def test_settings_of_another_version_are_refused_by_name(values, name, value):
    tried()
    assume(name not in {each.name for each in fields(SageConfig)})
    with pytest.raises(ConfigError) as caught:
        SageConfig.from_dict({**SageConfig(**values).to_dict(), name: value})
    assert printable(name) in caught.value.where


@settings(max_examples=cases(15, 800))
@given(st.sampled_from(["sage_warmup_epochs", "sage_refresh_epochs", "sage_batch_size", "sage_fraction"]), ODD)
def test_training_arguments_refuse_by_name_too(name, value):
    tried()
    arguments, error = made(
        lambda: SageTrainingArguments("out", use_cpu=True, num_train_epochs=10**6, **{name: value})
    )
    if error is not None:
        assert name.removeprefix("sage_") in error.where
        return
    assert isinstance(arguments.sage_config(), SageConfig)
