"""What Trainer's checkpoints lack: the subset that is trained on, and weights whose names on disk are not the model's.

`save_pretrained` writes some models (ViT, several vision-language ones) under the names of an older layout, and
`Trainer` reads a checkpoint without turning the names back: it warns of missing keys and goes on with the weights that
it had (huggingface/transformers issues 43701 and 48805). A resumed training must not.
"""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from ..config import SageConfig
from ..errors import ConfigError, OutputError
from ..selection.selection import Selection
from ..utils.rng import isolated_rng

# Folder of the current subset in a checkpoint.
SELECTION_FOLDER = "sage_selection"
# Key in a selection's stats: the optimizer steps before it.
CHOSEN_AT = "trained_steps"
# Settings that may be "auto" and are a number in a selection.
_SETTLED = ("sketch_size",)
# Settings that change no score.
_HARMLESS = {"batch_size", "check_gradients", "recheck_every"}


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
    """
    saved: set[str] = set()
    for path in folder.glob("model*.safetensors"):  # one, or several shards
        with safe_open(path, framework="pt") as file:
            saved.update(file.keys())
    if not isinstance(model, PreTrainedModel) or not saved - set(model.state_dict()):
        return False
    # The widest type holds all others exactly.
    widest = max((parameter.dtype for parameter in model.parameters()), key=lambda dtype: dtype.itemsize)
    with isolated_rng(0):
        loaded = type(model).from_pretrained(folder, config=model.config, dtype=widest, trust_remote_code=False)
    model.load_state_dict(loaded.state_dict())
    return True
