"""The model that the shell names, with the head that its task needs, and what encodes its inputs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import ClassLabel, Dataset, IterableDataset
from huggingface_hub import hf_hub_download
from huggingface_hub.constants import CONFIG_NAME, DEFAULT_REVISION
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE
from transformers.utils import IMAGE_PROCESSOR_NAME, has_file

from ..data.encoding import LABEL_COLUMNS
from ..data.stream import first_row
from ..errors import ConfigError, DatasetError, SageError
from ..hub.checks import first_line
from ..hub.reach import check_reachable, obstacle
from ..utils.rng import isolated_rng
from .adapters import Adapter, find_adapter, saved_classes, saved_weights, with_adapter

logger = logging.getLogger(__name__)

_DTYPES = ("auto", "float32", "float64", "bfloat16", "float16")
# Words of the tokenizer that transformers makes up for a checkpoint without tokenizer files: the special tokens.
_EMPTY_VOCABULARY = 8

TASKS = {
    "causal-lm": AutoModelForCausalLM,
    "sequence-classification": AutoModelForSequenceClassification,
    "image-classification": AutoModelForImageClassification,
}
_HEADS = {
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
    "ForSequenceClassification": "sequence-classification",
    "ForImageClassification": "image-classification",
}


@dataclass(frozen=True)
class Loaded:
    """A model and what encodes its inputs.

    Attributes:
        model: On its device.
        processing_class: Tokenizer or image processor; None when the checkpoint has none.
        task: One of `TASKS`.
        new_weights: Names of weights that the checkpoint lacks, drawn at random.
        revision: The commit of a checkpoint from the Hub; None of a folder.
    """

    model: PreTrainedModel
    processing_class: Any
    task: str
    new_weights: list[str]
    revision: str | None


def load_model(
    path: str,
    dataset: Dataset | IterableDataset | None,
    task: str | None = None,
    device: str | None = None,
    dtype: str = "auto",
    revision: str | None = None,
    seed: int = 0,
) -> Loaded:
    """The model of a checkpoint or a PEFT adapter, with the head that the task needs, and its processor.

    Arguments are those of the shell. Without a task it is that of the checkpoint's own head, else classification for a
    dataset with labels, which tell the classes of the new head. Weights that the checkpoint lacks are drawn from the
    seed: the same in every process and every run. The random states are as before.

    Raises:
        ConfigError: The model cannot be loaded, or no task is known.
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype is {dtype!r}", where="--dtype", fix=f"Use one of {', '.join(_DTYPES)}.")
    try:
        check_reachable(path, revision)
        adapter = find_adapter(path, revision)
        base, pinned = (path, revision) if adapter is None else (adapter.base, adapter.base_revision)
        config = _read_config(adapter, base, pinned or DEFAULT_REVISION)
        is_local = Path(base).exists()
        # The cache names a folder for each commit. All files are read from this one.
        pinned = (
            DEFAULT_REVISION if is_local else Path(hf_hub_download(base, CONFIG_NAME, revision=pinned)).parent.name
        )
        task = _agreed_task(task, adapter) or _find_task(config, dataset)
        if task not in TASKS:
            raise ConfigError(f"task is {task!r}", where="--task", fix=f"Use one of {', '.join(TASKS)}.")
        saved = saved_weights(adapter) if adapter is not None else {}
        head = _new_head(config, dataset, task, saved_classes(saved))
        with isolated_rng(seed):
            model, info = TASKS[task].from_pretrained(
                base, revision=pinned, dtype=dtype, output_loading_info=True, trust_remote_code=False, **head
            )
            if adapter is not None:
                model = with_adapter(model, adapter)
    except SageError:
        raise
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        in_the_way = None if Path(path).exists() else obstacle(error, path)
        if in_the_way is not None:
            raise ConfigError(in_the_way.what, where=path, fix=in_the_way.fix) from error
        if "trust_remote_code" in str(error):
            raise ConfigError(
                "The model comes with code of its own, which the shell does not run",
                where=path,
                fix="Read that code. If you trust it, load the model in Python and give it to SageSelector.",
            ) from error
        raise ConfigError(
            f"The model cannot be loaded: {first_line(error)}", where=path, fix="Check the path, --task and --dtype."
        ) from error
    processor = None
    if adapter is not None:
        processor = _load_processor(adapter.path, adapter.commit or DEFAULT_REVISION, task, own_files=True)
    if processor is None:
        processor = _load_processor(base, pinned, task)
    if device is not None:
        try:
            model = model.to(torch.device(device))
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"There is no device {device!r} here", where="--device", fix=_devices_here()) from error
    commit = adapter.commit if adapter is not None else None if is_local else pinned
    return Loaded(model, processor, task, sorted(set(info["missing_keys"]) - set(saved)), commit)


def _devices_here() -> str:
    """Which devices a user can name."""
    best = torch.accelerator.current_accelerator(check_available=True)
    if best is None:
        return "Use cpu: no GPU is found here."
    return f"Use one of {', '.join(['cpu', *(f'{best.type}:{i}' for i in range(torch.accelerator.device_count()))])}."


def label_column(dataset: Dataset | IterableDataset) -> str | None:
    """The column of a dataset that holds labels; None where there is none."""
    columns = _columns(dataset)
    return next((name for name in LABEL_COLUMNS if name in columns), None)


def _columns(dataset: Dataset | IterableDataset) -> list[str]:
    return dataset.column_names or list(first_row(dataset))


def _read_config(adapter: Adapter | None, base: str, revision: str) -> Any:
    try:
        return AutoConfig.from_pretrained(base, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if adapter is None:
            raise
        raise ConfigError(
            f"The base model {base!r} of the adapter cannot be found: {first_line(error)}",
            where=f"{adapter.path}, adapter_config.json",
            fix="Write its folder or Hub id into base_model_name_or_path.",
        ) from error


def _agreed_task(task: str | None, adapter: Adapter | None) -> str | None:
    """The task that the user or the adapter names."""
    if adapter is None or adapter.task is None:
        return task
    if task not in (None, adapter.task):
        raise ConfigError(
            f"The adapter is for {adapter.task}, not for {task}", where="--task", fix="Leave --task out."
        )
    return adapter.task


def _own_task(config: Any) -> str | None:
    """The task of a checkpoint's own head."""
    names = getattr(config, "architectures", None) or []
    return next((task for name in names for ending, task in _HEADS.items() if name.endswith(ending)), None)


def _find_task(config: Any, dataset: Dataset | IterableDataset | None) -> str:
    """The task of a checkpoint's own head, or the one that the dataset's columns are for."""
    if own := _own_task(config):
        return own
    what, tasks = f"The checkpoint names no known task ({config.architectures})", ", ".join(TASKS)
    if dataset is None:
        raise ConfigError(what, where="--task", fix=f"Name a dataset too, or pass one of {tasks}.")
    if label_column(dataset) is None:
        columns = ", ".join(map(str, _columns(dataset)))
        raise ConfigError(
            f"{what}, and no column of the dataset is called label; the columns are {columns}",
            where="--label-column, --task",
            fix=f"Name the column of the classes with --label-column, or pass --task, one of {tasks}.",
        )
    is_image = {"image", "img", "pixel_values"} & {*_columns(dataset)}
    return "image-classification" if is_image else "sequence-classification"


def _new_head(config: Any, dataset: Dataset | IterableDataset | None, task: str, saved: int | None) -> dict[str, Any]:
    """Changes to the config for a classification head that the checkpoint lacks; none where it has one.

    An adapter may bring a head along, of `saved` classes.
    """
    if task == "causal-lm" or (_own_task(config) == task and saved in (None, config.num_labels)):
        return {}
    if saved is None:
        names = _class_names(dataset)
    else:  # the adapter keeps no names of its classes
        try:
            names = _class_names(dataset) if saved > 1 else []
        except DatasetError:  # whole numbers need no names
            names = []
        if len(names) != saved:
            return {"num_labels": saved}
        logger.warning("The adapter does not name its %d classes: they are assumed to be %s.", saved, names)
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        "num_labels": len(names),
    }


def _class_names(dataset: Dataset | IterableDataset | None) -> list[str]:
    """The classes that a dataset's labels name, or those that they are.

    Raises:
        DatasetError: There are no labels, some are missing, or they are no classes.
    """
    if dataset is None:
        raise DatasetError(
            "A new classification head takes its classes from a dataset", where="DATASET", fix="Name the dataset too."
        )
    column = label_column(dataset)
    if column is None:
        raise DatasetError(
            f"A classification head needs labels, and there is no column {' or '.join(LABEL_COLUMNS)}",
            where=f"columns {_columns(dataset)}",
            fix="Rename the label column, or pass --task causal-lm.",
        )
    feature = (dataset.features or {}).get(column)
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    where = f"column {column!r}"
    if isinstance(dataset, IterableDataset):
        raise DatasetError(
            "The classes of a new head are not known: the stream does not name them",
            where=where,
            fix="Name a checkpoint with a head, or cast the column to ClassLabel, or read without --streaming.",
        )
    labels = list(dataset.with_format(None)[column])
    if nulls := [row for row, label in enumerate(labels) if label is None]:
        raise DatasetError(
            f"{len(nulls)} rows have no label, first in rows {nulls[:5]}",
            where=where,
            fix="Fill them in, or add --drop-missing to go on without these rows.",
        )
    is_name = [isinstance(label, str) or (isinstance(label, int) and label >= 0) for label in labels]
    if not all(is_name):
        odd = labels[is_name.index(False)]
        raise DatasetError(
            f"The labels of a new head must be text or whole numbers from 0, and one is {odd!r}",
            where=where,
            fix="Write them so, or name a checkpoint that has a head for such labels.",
        )
    classes = set(labels)
    if classes and all(isinstance(label, int) for label in classes):
        return [str(label) for label in range(max(classes) + 1)]
    return sorted(str(label) for label in classes)


def _load_processor(path: str, revision: str, task: str, own_files: bool = False) -> Any:
    """The tokenizer or image processor of a checkpoint; None where it has none, or no files of its own where asked."""
    is_image = task == "image-classification"
    try:
        if own_files and not has_file(path, IMAGE_PROCESSOR_NAME if is_image else TOKENIZER_CONFIG_FILE, revision):
            return None
        kind = AutoImageProcessor if is_image else AutoTokenizer
        processor = kind.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError):
        return None  # fine for a prepared dataset; a raw one says what it lacks
    if not is_image and processor.vocab_size <= _EMPTY_VOCABULARY:
        return None  # transformers makes an empty tokenizer of a checkpoint that has none
    return processor
