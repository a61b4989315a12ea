"""What the folders of Trainer's checkpoints tell of themselves: the learning rates that each of them stands for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState

from ..errors import ConfigError

PathLike = str | os.PathLike[str]
_GIVE_WEIGHTS = (
    "Give the weights yourself (weights=, --checkpoint-weights), or save checkpoints with Trainer and smaller "
    "logging_steps."
)


def is_trainer_checkpoint(folder: PathLike) -> bool:
    """Whether Trainer has written its state there."""
    return (Path(folder) / TRAINER_STATE_NAME).is_file()


def learning_rates(folders: Sequence[PathLike]) -> list[float]:
    """The mean learning rate of the steps that each checkpoint stands for: those since the one before it.

    With a checkpoint an epoch it is the mean over the epoch, as LESS weights checkpoints. The first one stands for all
    steps from the beginning. The means are of what Trainer has logged (`logging_steps`).

    Args:
        folders: Checkpoints of one training, in any order.

    Raises:
        ConfigError: A folder is no checkpoint of Trainer's, its steps are those of another one, or no learning rate
            above 0 was logged during them.
    """
    states = [_state(Path(folder)) for folder in folders]
    steps, rates = [state.global_step for state in states], []
    for folder, state in zip(folders, states, strict=True):
        if steps.count(state.global_step) > 1:
            raise ConfigError(
                f"Two checkpoints are of step {state.global_step}, so they are not of one training",
                where=str(folder),
                fix="Give the weights yourself.",
            )
        before = max((step for step in steps if step < state.global_step), default=0)
        logged = [
            float(entry["learning_rate"])
            for entry in state.log_history
            if "learning_rate" in entry and before < entry["step"] <= state.global_step
        ]
        rate = float(np.mean(logged)) if logged else 0.0
        if not np.isfinite(rate) or rate <= 0:
            raise ConfigError(
                f"No learning rate above 0 was logged from step {before + 1} to {state.global_step}",
                where=str(Path(folder) / TRAINER_STATE_NAME),
                fix=_GIVE_WEIGHTS,
            )
        rates.append(rate)
    return rates


def _state(folder: Path) -> TrainerState:
    path = folder / TRAINER_STATE_NAME
    try:
        return TrainerState.load_from_json(str(path))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"The folder is not a checkpoint of Trainer: {type(error).__name__} in {TRAINER_STATE_NAME}",
            where=str(folder),
            fix=_GIVE_WEIGHTS,
        ) from error
