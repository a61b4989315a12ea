"""Folders and repositories that hold a PEFT adapter: the base model that they name, with the adapter in training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers.utils import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from ..errors import ConfigError
from ..hub.checks import first_line

# PEFT's names of tasks, as the names of our tasks.
_TASKS = {"CAUSAL_LM": "causal-lm", "SEQ_CLS": "sequence-classification"}
# Where PEFT's files put the weights of the model that the adapter was trained on.
_PREFIX = "base_model.model."
_HEADS = ("score", "classifier", "classifier.out_proj")


@dataclass(frozen=True)
class Adapter:
    """An adapter before its base is loaded: as the user named it, and as its config tells, where it does.

    Attributes:
        commit: The adapter's own, of a repository on the Hub.
    """

    path: str
    base: str
    base_revision: str | None
    task: str | None
    commit: str | None


def find_adapter(path: str, revision: str | None) -> Adapter | None:
    """The adapter that a folder or a repository holds; None where it holds none.

    Raises:
        ConfigError: PEFT is not there, or the adapter has no weights, names no base, or has a head of another task.
    """
    file = find_adapter_config_file(path, revision=revision)
    if file is None:
        return None
    try:
        from peft import PeftConfig
    except ImportError as error:
        raise ConfigError(
            "The checkpoint is an adapter, and PEFT is not installed", where=path, fix="pip install peft"
        ) from error
    config = PeftConfig.from_pretrained(str(Path(file).parent))
    where = f"{path}, adapter_config.json"
    base = config.base_model_name_or_path
    if not base:
        raise ConfigError(
            "The adapter does not name its base model", where=where, fix="Fill in base_model_name_or_path."
        )
    if not Path(base).exists() and Path(path, base).is_dir():
        base = str(Path(path, base))
    task = getattr(config.task_type, "value", config.task_type)
    if task is not None and task not in _TASKS:
        raise ConfigError(
            f"The adapter is for {task}, not {' or '.join(_TASKS)}", where=where, fix="Use SageSelector from Python."
        )
    if Path(path).is_dir() and not list(Path(path).glob("adapter_model.*")):
        raise ConfigError(
            "adapter_model.safetensors is missing", where=path, fix="Save the adapter again with save_pretrained."
        )
    commit = None if Path(path).exists() else Path(file).parent.name
    return Adapter(path, base, getattr(config, "revision", None), _TASKS.get(task), commit)


def saved_weights(adapter: Adapter) -> dict[str, tuple[int, ...]]:
    """Names, as in the base model, and shapes of the whole weights that an adapter's file holds: its head, say."""
    from peft.utils import SAFETENSORS_WEIGHTS_NAME

    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    file = cached_file(adapter.path, SAFETENSORS_WEIGHTS_NAME, revision=adapter.commit, **quiet)
    if file is None:
        return {}
    with safe_open(file, framework="pt") as weights:
        shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    return {name.removeprefix(_PREFIX): shape for name, shape in shapes.items() if "lora_" not in name}


def saved_classes(saved: dict[str, tuple[int, ...]]) -> int | None:
    """How many classes the head has that an adapter brings along; None where it brings none."""
    heads = [shape for name, shape in saved.items() if name.removesuffix(".weight") in _HEADS and len(shape) == 2]
    return heads[0][0] if heads else None


def with_adapter(base: Any, adapter: Adapter) -> Any:
    """The base model with the adapter on it, whose weights can be trained.

    Raises:
        ConfigError: The adapter does not fit the base.
    """
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(base, adapter.path, is_trainable=True, revision=adapter.commit)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ConfigError(
            f"The adapter does not fit {type(base).__name__} of {adapter.base}: {first_line(error)}",
            where=adapter.path,
            fix="Check base_model_name_or_path in its adapter_config.json, and --task.",
        ) from error
