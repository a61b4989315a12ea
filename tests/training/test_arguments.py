"""SageTrainingArguments: from the shell, from YAML, and what it refuses."""

from dataclasses import dataclass, fields

import pytest
import yaml
from transformers import HfArgumentParser, TrainingArguments
from trl import SFTConfig

from sage_hf import SageArguments, SageConfig, SageError, SageTrainingArguments

# Sage's own names of what TrainingArguments has already.
ELSEWHERE = {"text_columns", "max_length", "batch_size", "cache_gradients", "num_workers", "target_reduction"}


def parse(*words):
    (args,) = HfArgumentParser(SageTrainingArguments).parse_args_into_dataclasses(
        ["--output_dir", "out", "--use_cpu", *words]
    )
    return args


def test_every_knob_of_a_selection_is_an_argument_with_the_same_default():
    args = SageTrainingArguments("out", use_cpu=True)
    for each in fields(SageConfig):
        if each.name not in ELSEWHERE:
            assert getattr(args, f"sage_{each.name}") == each.default
    assert args.sage_config() == SageConfig(batch_size=args.per_device_train_batch_size)


def test_the_shell_sets_every_kind_of_knob():
    words = "--sage_fraction 0.1 --sage_projection 8 --sage_target_modules query,value --sage_group_by none"
    more = "--sage_warmup_epochs 0.5 --sage_refresh_epochs 2 --sage_batch_size 64 --no_sage_check_gradients"
    args = parse(*words.split(), *more.split())
    assert (args.sage_warmup_epochs, args.sage_refresh_epochs) == (0.5, 2)
    expected = SageConfig(
        fraction=0.1,
        projection=8,
        target_modules=["query", "value"],
        group_by=None,
        batch_size=64,
        check_gradients=False,
    )
    assert args.sage_config() == expected


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("none", None), ("16", 16)])
def test_the_projection_is_a_word_or_a_number(text, value):
    assert parse("--sage_projection", text).sage_config().projection == value


def test_yaml_sets_them_too(tmp_path):
    given = {"output_dir": "out", "use_cpu": True, "sage_num_examples": 7, "sage_target_modules": ["query"]}
    (tmp_path / "args.yaml").write_text(yaml.safe_dump({**given, "sage_projection": 4}))
    (args,) = HfArgumentParser(SageTrainingArguments).parse_yaml_file(str(tmp_path / "args.yaml"))
    expected = SageConfig(num_examples=7, target_modules=["query"], projection=4, batch_size=8)
    assert args.sage_config() == expected


def test_help_is_there_for_every_argument():
    text = HfArgumentParser(SageTrainingArguments).format_help()
    for each in fields(SageArguments):
        assert f"--{each.name}" in text
        assert each.metadata["help"]


def test_they_survive_json():
    args = SageTrainingArguments("out", use_cpu=True, sage_fraction=0.2)
    assert '"sage_fraction": 0.2' in args.to_json_string()


def test_selection_is_off_without_a_budget():
    assert not SageTrainingArguments("out", use_cpu=True).sage_is_on
    assert SageTrainingArguments("out", use_cpu=True, sage_num_examples=3).sage_is_on


def test_they_go_in_front_of_other_training_arguments():
    @dataclass
    class SageSFTConfig(SageArguments, SFTConfig):
        pass

    args = SageSFTConfig("out", use_cpu=True, bf16=False, sage_fraction=0.5, max_length=77)
    assert args.sage_is_on
    assert args.max_length == 77
    assert isinstance(args, TrainingArguments)


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"sage_strategy": "best"}, "sage_strategy"),
        ({"sage_fraction": 0.0}, "sage_fraction"),
        ({"sage_fraction": 1.5}, "sage_fraction"),
        ({"sage_num_examples": 5}, "sage_fraction, sage_num_examples"),
        ({"sage_refresh_epochs": -1}, "sage_refresh_epochs"),
        ({"sage_refresh_epochs": 0.5}, "sage_refresh_epochs"),
        ({"sage_warmup_epochs": -0.1}, "sage_warmup_epochs"),
        ({"sage_warmup_epochs": float("nan")}, "sage_warmup_epochs"),
        ({"sage_warmup_epochs": 3}, "sage_warmup_epochs"),
        ({"sage_warmup_epochs": 1, "num_train_epochs": 1}, "sage_warmup_epochs"),
        ({"sage_projection": "wide"}, "sage_projection"),
        ({"sage_batch_size": 0}, "sage_batch_size"),
        ({"sage_balance": "fair"}, "sage_balance"),
    ],
)
def test_what_cannot_work_is_refused_at_once(given, where):
    with pytest.raises(SageError) as caught:
        SageTrainingArguments("out", use_cpu=True, **{"sage_fraction": 0.1, **given})
    assert caught.value.where == where


def test_a_long_warm_up_is_no_matter_when_selection_is_off():
    SageTrainingArguments("out", use_cpu=True, num_train_epochs=1)


@pytest.mark.parametrize(
    ("settings", "where", "what"),
    [
        ({"sage_fraction": "0.25"}, "sage_fraction", "sage_fraction is '0.25'"),
        ({"sage_fraction": 0.1, "sage_num_examples": 5}, "sage_fraction, sage_num_examples", "Both sage_fraction and"),
        ({"sage_num_examples": 0}, "sage_num_examples", "sage_num_examples is 0"),
        ({"sage_strategy": "strategy"}, "sage_strategy", "sage_strategy is 'strategy'"),
        ({"sage_spectrum_power": "x"}, "sage_spectrum_power", "sage_spectrum_power is 'x'"),
        (
            {"sage_balance": "none", "sage_min_per_group": 2},
            "sage_min_per_group, sage_balance",
            "but sage_balance 'none'",
        ),
        ({"sage_batch_size": 0}, "sage_batch_size", "sage_batch_size is 0"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size", "per_device_train_batch_size is 0"),
    ],
)
def test_an_error_calls_a_setting_as_it_is_called_here(tmp_path, settings, where, what):
    with pytest.raises(SageError) as caught:
        SageTrainingArguments(str(tmp_path), report_to=[], **settings)
    assert caught.value.where == where and what in caught.value.what
