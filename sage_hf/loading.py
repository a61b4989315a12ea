"""What the shell names, loaded: a dataset from a path or the Hub, a model with the right head, its processor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import ClassLabel, Dataset, DatasetDict, IterableDataset, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError
from huggingface_hub import hf_hub_download
from huggingface_hub.constants import CONFIG_NAME
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

from .encoding import LABEL_COLUMNS
from .errors import ConfigError, DatasetError, SageError
from .rng import isolated_rng
from .stream import first_row

_FILE_FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}

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


def load_rows(
    path: str, split: str = "train", name: str | None = None, streaming: bool = False, revision: str | None = None
) -> Dataset | IterableDataset:
    """A dataset from a json, csv or parquet file, a folder of `save_to_disk`, any folder of data, or the Hub.

    Args:
        path: The file, folder or Hub id.
        split: Of a dataset that has several.
        name: The dataset's configuration on the Hub.
        streaming: Whether rows are read as they are needed, and never downloaded or converted as a whole.
        revision: A branch, tag or commit of a dataset on the Hub.

    Raises:
        DatasetError: It is not there, cannot be read, or has no such split or revision.
    """
    local = Path(path)
    if revision is not None and local.exists():
        raise DatasetError("A file or folder has no revisions", where="--revision", fix="Leave it out.")
    with _reading(path):
        if local.is_file():
            kind = _FILE_FORMATS.get(local.suffix)
            if kind is None:
                raise DatasetError(
                    f"Files that end in {local.suffix!r} cannot be read",
                    where=path,
                    fix=f"Use one of {', '.join(_FILE_FORMATS)}, a save_to_disk folder, or a Hub id.",
                )
            separator = {"sep": "\t"} if local.suffix == ".tsv" else {}
            return load_dataset(kind, data_files=str(local), split="train", streaming=streaming, **separator)
        if (local / "dataset_info.json").is_file() or (local / "dataset_dict.json").is_file():
            loaded = load_from_disk(path)
            if isinstance(loaded, DatasetDict):
                if split not in loaded:
                    raise DatasetError(f"There is no split {split!r}", where=path, fix=f"Use one of {list(loaded)}.")
                loaded = loaded[split]
            return loaded.to_iterable_dataset() if streaming else loaded
        return load_dataset(path, name, split=split, streaming=streaming, revision=revision)


def load_other_splits(path: str, split: str, name: str | None = None) -> dict[str, Dataset]:
    """The splits of a dataset besides one.

    Args:
        path: As of `load_rows`.
        split: The one to leave out.
        name: The dataset's configuration on the Hub.

    Raises:
        DatasetError: It is not there or cannot be read.
    """
    local = Path(path)
    if local.is_file() or (local / "dataset_info.json").is_file():
        return {}
    with _reading(path):
        loaded = load_from_disk(path) if (local / "dataset_dict.json").is_file() else load_dataset(path, name)
    return {str(each): rows for each, rows in loaded.items() if each != split}


def load_model(
    path: str,
    dataset: Dataset | IterableDataset,
    task: str | None = None,
    device: str | None = None,
    dtype: str = "auto",
    revision: str | None = None,
    seed: int = 0,
) -> Loaded:
    """A model with the head that the task needs, and its processor.

    Weights that the checkpoint lacks, such as those of a new head, are drawn from the seed: the same in every process
    and every run. The random states are as before.

    Args:
        path: Folder or Hub id of a checkpoint.
        dataset: Its columns tell the task where the checkpoint does not, and the classes of a new head.
        task: One of `TASKS`; None takes the checkpoint's own head, or a classification head for a dataset with labels.
        device: As torch names it.
        dtype: As torch names it, or "auto" for the checkpoint's.
        revision: A branch, tag or commit of a checkpoint on the Hub.
        seed: Of weights that the checkpoint lacks.

    Raises:
        ConfigError: The model cannot be loaded, or no task is known.
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype is {dtype!r}", where="--dtype", fix=f"Use one of {', '.join(_DTYPES)}.")
    pinned = {} if revision is None else {"revision": revision}
    try:
        config = AutoConfig.from_pretrained(path, **pinned)
        commit = None
        if not Path(path).exists():
            # The cache names a folder for each commit. All files are read from this one.
            commit = Path(hf_hub_download(path, CONFIG_NAME, revision=revision)).parent.name
            pinned = {"revision": commit}
        task = task or _find_task(config, dataset)
        if task not in TASKS:
            raise ConfigError(f"task is {task!r}", where="--task", fix=f"Use one of {', '.join(TASKS)}.")
        head: dict[str, Any] = {}
        own_task = _own_task(config)
        if task != "causal-lm" and own_task != task:
            names = _class_names(dataset)
            head = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
            head["num_labels"] = len(names)
        given = {"dtype": dtype, **pinned, **head}
        with isolated_rng(seed):
            model, info = TASKS[task].from_pretrained(path, output_loading_info=True, **given)
    except SageError:
        raise
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ConfigError(
            f"The model cannot be loaded: {_first_line(error)}",
            where=path,
            fix="Check the folder or Hub id; --task and --dtype may help.",
        ) from error
    processor_class = AutoImageProcessor if task == "image-classification" else AutoTokenizer
    try:
        processor = processor_class.from_pretrained(path, **pinned)
    except (OSError, ValueError):
        processor = None  # fine for a prepared dataset; a raw one says what it lacks
    if task != "image-classification" and processor is not None and processor.vocab_size <= _EMPTY_VOCABULARY:
        processor = None  # transformers makes an empty tokenizer of a checkpoint that has none
    if device is not None:
        try:
            model = model.to(torch.device(device))
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"The model cannot be moved to {device!r}: {_first_line(error)}",
                where="--device",
                fix="Use a device that torch sees here, such as cpu.",
            ) from error
    return Loaded(model, processor, task, sorted(info["missing_keys"]), commit)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turns what datasets says into one of our errors."""
    try:
        yield
    except SageError:
        raise
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise DatasetError(
            f"The dataset cannot be loaded: {_first_line(error.__cause__ or error)}",
            where=path,
            fix="Check the path or Hub id, the split (--split), the configuration (--dataset-name) and the revision.",
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _own_task(config: Any) -> str | None:
    for architecture in getattr(config, "architectures", None) or []:
        for ending, task in _HEADS.items():
            if architecture.endswith(ending):
                return task
    return None


def _find_task(config: Any, dataset: Dataset | IterableDataset) -> str:
    own = _own_task(config)
    if own is not None:
        return own
    columns = dataset.column_names or list(first_row(dataset))
    if any(name in columns for name in LABEL_COLUMNS):
        is_image = any(name in columns for name in ("image", "img", "pixel_values"))
        return "image-classification" if is_image else "sequence-classification"
    raise ConfigError(
        f"The checkpoint names no known task ({config.architectures}), and the dataset has no label column",
        where="--task",
        fix=f"Pass one of {', '.join(TASKS)}.",
    )


def _class_names(dataset: Dataset | IterableDataset) -> list[str]:
    column = next((name for name in LABEL_COLUMNS if name in (dataset.column_names or ())), None)
    if column is None:
        raise DatasetError(
            f"A classification head needs labels, and there is no column {' or '.join(LABEL_COLUMNS)}",
            where=f"columns {dataset.column_names}",
            fix="Rename the label column, or pass --task causal-lm.",
        )
    feature = dataset.features[column]
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    if isinstance(dataset, IterableDataset):
        raise DatasetError(
            f"The classes of a new head are not known: the stream's column {column!r} does not name them",
            where="dataset",
            fix="Name a checkpoint with a head, or cast the column to ClassLabel, or read without --streaming.",
        )
    held = list(dataset.with_format(None)[column])
    if not all(isinstance(value, (bool, int, str)) for value in held) or any(
        not isinstance(value, str) and value < 0 for value in held
    ):
        raise DatasetError(
            f"The column {column!r} holds no classes: text or whole numbers from 0, none of them null",
            where="dataset",
            fix="Filter or encode it, or load a model that has a head already.",
        )
    values = set(held)
    if values and all(isinstance(value, int) for value in values):
        return [str(value) for value in range(max(values) + 1)]
    return sorted(str(value) for value in values)
