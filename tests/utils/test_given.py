"""Arguments of another kind than their own are refused by name, before anything is done with them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset

from sage_hf import SageConfig, SageSelector, compare, diagnose, find_label_issues, select_over_checkpoints, warm_up
from sage_hf.errors import ConfigError
from sage_hf.utils.given import given_config, real_number, whole_number
from tests import cases

ROWS = Dataset.from_dict({"pixel_values": torch.zeros(4, 1, 8, 8).tolist(), "labels": [0, 1, 2, 0]})


@pytest.mark.parametrize(
    "front_door",
    [
        lambda config: SageSelector(cases.vit(), config=config),
        lambda config: find_label_issues(cases.vit(), ROWS, config=config),
        lambda config: warm_up(cases.vit(), ROWS, steps=1, config=config),
        lambda config: diagnose(cases.vit(), ROWS, config=config),
        lambda config: compare(cases.vit(), ROWS, ROWS, model_init=lambda seed: cases.vit(), config=config),
        lambda config: select_over_checkpoints([cases.vit()], ROWS, config=config),
        lambda config: SageSelector(cases.vit()).choose(ROWS, SimpleNamespace(stats=None), config=config),
    ],
)
def test_settings_that_are_a_dict_are_told_how_to_become_a_config(front_door):
    with pytest.raises(ConfigError, match=r"config is a dict.*SageConfig\(\*\*config\) or SageConfig.from_dict"):
        front_door({"fraction": 0.5})
    with pytest.raises(ConfigError, match="config is a str"):
        front_door("fast")


def test_no_settings_are_the_defaults():
    assert given_config(None) == SageConfig()
    assert given_config(config := SageConfig(fraction=0.5)) is config
    with pytest.raises(ConfigError, match="config is a dict"):
        given_config({})


def test_a_loss_function_that_cannot_be_called_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"loss_function is a str \[loss_function\]"):
        SageSelector(cases.vit(), loss_function="cross_entropy")


def test_numbers_are_numbers_of_any_library():
    assert type(whole_number(np.int64(3), "steps")) is int and type(real_number(np.float32(0.5), "x", "")) is float
    for value in (1.5, "3", True, 0, None, np.nan):
        with pytest.raises(ConfigError, match=r"\[steps\]. Give a whole number of at least 1"):
            whole_number(value, "steps")
    for value in ("x", True, -1, np.nan, np.inf, 10**400, 1j):
        with pytest.raises(ConfigError, match=r"learning_rate is .* \[learning_rate\]. Give this"):
            real_number(value, "learning_rate", "Give this.")
