"""Weights of a checkpoint whose names on disk are not the model's.

`save_pretrained` writes some models (ViT, several vision-language ones) under the names of an older layout, and
`Trainer` reads a checkpoint without turning the names back: it warns of missing keys and goes on with the weights that
it had (huggingface/transformers issues 43701 and 48805). A resumed training must not.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from .rng import isolated_rng


def load_renamed(model: nn.Module, folder: Path) -> bool:
    """Loads the weights in a folder by `from_pretrained` where Trainer could not have matched their names.

    Args:
        model: Whose weights are replaced in place.
        folder: A checkpoint with safetensors; anything else is left alone.

    Returns:
        Whether there was something to do.
    """
    if not isinstance(model, PreTrainedModel) or not _saved_names(folder) - set(model.state_dict()):
        return False
    # The widest type holds all others exactly.
    widest = max((parameter.dtype for parameter in model.parameters()), key=lambda dtype: dtype.itemsize)
    with isolated_rng(0):
        loaded = type(model).from_pretrained(folder, config=model.config, dtype=widest)
    model.load_state_dict(loaded.state_dict())
    return True


def _saved_names(folder: Path) -> set[str]:
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        with safe_open(folder / SAFE_WEIGHTS_NAME, framework="pt") as file:
            return set(file.keys())
    if (folder / SAFE_WEIGHTS_INDEX_NAME).is_file():
        return set(json.loads((folder / SAFE_WEIGHTS_INDEX_NAME).read_text(encoding="utf-8"))["weight_map"])
    return set()
