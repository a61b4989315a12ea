import json

import numpy as np
import pytest
from transformers import Trainer

from sage_hf.errors import ConfigError
from sage_hf.selector.checkpoints import is_trainer_checkpoint, learning_rates

from ..cases import image_rows, vit
from ..training.runs import plain_args, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training of 6 steps with a linear schedule, a checkpoint every second one."""
    folder = tmp_path_factory.mktemp("trained")
    args = plain_args(folder, save_strategy="steps", save_steps=2, max_steps=6)
    train(vit(), args, image_rows(16), Trainer)
    return folder


def logged(folder):
    """Learning rates by step, as Trainer has written them."""
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["learning_rate"] for entry in history if "learning_rate" in entry}


def test_a_checkpoint_stands_for_the_steps_since_the_one_before_in_any_order(trained):
    rates = logged(trained / "checkpoint-6")
    folders = [trained / f"checkpoint-{step}" for step in (6, 2, 4)]
    wanted = [np.mean([rates[step - 1], rates[step]]) for step in (6, 2, 4)]
    assert np.allclose(learning_rates(folders), wanted)
    assert wanted[0] < wanted[2] < wanted[1]
    assert np.allclose(learning_rates([str(trained / "checkpoint-6")]), np.mean(list(rates.values())))
    assert is_trainer_checkpoint(trained / "checkpoint-6") and not is_trainer_checkpoint(trained)


def test_steps_without_a_logged_learning_rate_are_named(tmp_path):
    args = plain_args(tmp_path, save_strategy="steps", save_steps=2, max_steps=4, logging_steps=100)
    train(vit(), args, image_rows(16), Trainer)
    with pytest.raises(ConfigError, match=r"from step 3 to 4 .*logging_steps") as caught:
        learning_rates([tmp_path / "checkpoint-4", tmp_path / "checkpoint-2"])
    assert "checkpoint-4" in caught.value.where


def test_what_is_no_checkpoint_of_one_training_is_refused(trained, tmp_path):
    with pytest.raises(ConfigError, match="not a checkpoint of Trainer"):
        learning_rates([tmp_path])
    (tmp_path / "trainer_state.json").write_text('{"nothing": 1}')
    with pytest.raises(ConfigError, match="not a checkpoint of Trainer"):
        learning_rates([tmp_path])
    with pytest.raises(ConfigError, match="not of one training"):
        learning_rates([trained / "checkpoint-2"] * 2)
