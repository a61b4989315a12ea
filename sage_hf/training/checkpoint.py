"""What Trainer's checkpoints lack: the subset that is trained on, weights whose names on disk are not the model's, and
whether they are whole.

`save_pretrained` writes some models (ViT, several vision-language ones) under the names of an older layout, and
`Trainer` reads a checkpoint without turning the names back: it warns of missing keys and goes on with the weights that
it had (huggingface/transformers issues 43701 and 48805). A resumed training must not.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from datasets import Dataset
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..config import SageConfig
from ..errors import ConfigError, OutputError
from ..selection.selection import Selection
from ..utils.rng import isolated_rng

logger = logging.getLogger(__name__)

# Folder of the current subset in a checkpoint.
SELECTION_FOLDER = "sage_selection"
# Key in a selection's stats: the optimizer steps before it.
CHOSEN_AT = "trained_steps"
# Settings that may be "auto" and are a number in a selection.
_SETTLED = ("sketch_size",)
# Settings that change no score.
_HARMLESS = {"batch_size", "check_gradients", "recheck_every"}


def checkpoint_to_resume(asked: str | bool | None, output_dir: str) -> str | bool | None:
    """The checkpoint that a training is to go on from: of those in its folder, the last that is whole.

    Args:
        asked: A checkpoint, True for the last one, or nothing.
        output_dir: The training's folder.

    Returns:
        The same for `Trainer.train`; None where a run was killed while it wrote its first checkpoint.

    Raises:
        OutputError: The checkpoint that was named is not whole.
    """
    if not isinstance(asked, bool) and asked:
        if Path(asked).is_dir() and not _is_whole(Path(asked)):
            raise OutputError(
                f"The checkpoint is not whole: it has no {TRAINER_STATE_NAME} that can be read, which is written last",
                where=str(asked),
                fix="Name an earlier one, or resume_from_checkpoint=True, which finds the last that is whole.",
            )
        return asked
    held = [path for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir()]
    numbered = {int(number): path for path in held if (number := path.name.rpartition("-")[2]).isdigit()}
    if not asked or not numbered:
        return asked
    whole = [number for number, path in numbered.items() if _is_whole(path)]
    last = max(whole, default=-1)
    if last < max(numbered):
        logger.warning(
            "%s is not whole, because its run ended while it was written: training %s.",
            numbered[max(numbered)].name,
            f"goes on from {numbered[last].name}" if whole else "begins again",
        )
    return str(numbered[last]) if whole else None


def _is_whole(checkpoint: Path) -> bool:
    """Whether all of a checkpoint was written; Trainer's state is the last file of it."""
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def load_selection(checkpoint: Path, dataset: Dataset, needed: bool) -> Selection | None:
    """The subset in a checkpoint, which must have been chosen from a dataset; None where there is none.

    Raises:
        OutputError: It is needed and missing, or cannot be read.
        DatasetError: It was chosen from another dataset.
    """
    folder = checkpoint / SELECTION_FOLDER
    if folder.is_dir():
        return Selection.load_from_disk(folder, source=dataset)
    if needed:
        raise OutputError(
            "The checkpoint was made in the middle of training on a subset, and the subset is missing",
            where=str(folder),
            fix="Restore the folder, resume from a checkpoint of the warm-up, or start again.",
        )
    return None


def check_selection(selection: Selection, config: SageConfig, chosen_at: int, checkpoint: Path) -> None:
    """Whether a subset is the one that the settings now would have chosen after so many optimizer steps.

    Raises:
        ConfigError: It was chosen with other settings.
    """
    then = {**selection.config.to_dict(), CHOSEN_AT: selection.stats.trained_steps}
    now = {**config.to_dict(), CHOSEN_AT: chosen_at}
    now |= {name: then.get(name) for name in _SETTLED if now[name] == "auto"}  # the model settled it, as it does now
    changed = sorted(name for name in now if now[name] != then.get(name) and name not in _HARMLESS)
    if changed:
        changes = ", ".join(f"{name} {then.get(name)!r} (now {now[name]!r})" for name in changed)
        raise ConfigError(
            f"The subset in the checkpoint was chosen with {changes}",
            where=str(checkpoint / SELECTION_FOLDER),
            fix="Resume with the settings that the checkpoint was made with, or start again.",
        )


def load_renamed(model: nn.Module, folder: Path) -> bool:
    """Loads the weights in a folder by `from_pretrained` where Trainer could not have matched their names.

    Anything but safetensors is left alone. Returns whether there was something to do.

    Raises:
        OutputError: A file is damaged.
    """
    saved: set[str] = set()
    for path in folder.glob("model*.safetensors"):  # one, or several shards
        try:
            with safe_open(path, framework="pt") as file:
                saved.update(file.keys())
        except (OSError, SafetensorError) as error:
            raise OutputError(
                f"The weights in the checkpoint cannot be read: {error}",
                where=str(path),
                fix="Restore the file, or resume from an earlier checkpoint.",
            ) from error
    if not isinstance(model, PreTrainedModel) or not saved - set(model.state_dict()):
        return False
    # The widest type holds all others exactly.
    widest = max((parameter.dtype for parameter in model.parameters()), key=lambda dtype: dtype.itemsize)
    with isolated_rng(0):
        loaded = type(model).from_pretrained(folder, config=model.config, dtype=widest, trust_remote_code=False)
    model.load_state_dict(loaded.state_dict())
    return True
