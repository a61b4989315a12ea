"""What the shell names, loaded: a dataset from a path or the Hub, a model with the right head, its processor."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import ClassLabel, Dataset, DatasetDict, IterableDataset, load_dataset, load_from_disk
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
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE
from transformers.utils import IMAGE_PROCESSOR_NAME

from ..data.encoding import LABEL_COLUMNS
from ..data.stream import first_row
from ..errors import ConfigError, DatasetError, SageError
from ..utils.rng import isolated_rng
from .adapters import Adapter, find_adapter, has_file, saved_classes, saved_weights, with_adapter
from .data_files import check_file, exactly, find_local, folder_files

logger = logging.getLogger(__name__)

_DTYPES = ("auto", "float32", "float64", "bfloat16", "float16")
# Words of the tokenizer that transformers makes up for a checkpoint without tokenizer files: the special tokens.
_EMPTY_VOCABULARY = 8
# What datasets says of a file that holds no rows, such as a csv of a header alone.
_NO_ROWS = "corresponds to no data"

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
    """A dataset from a json, csv or parquet file, packed or not, a folder of `save_to_disk` or of data, or the Hub.

    Args:
        path: The file, folder or Hub id.
        split: Of a dataset that has several.
        name: The dataset's configuration on the Hub.
        streaming: Whether rows are read as they are needed, and never downloaded or converted as a whole.
        revision: A branch, tag or commit of a dataset on the Hub.

    Raises:
        DatasetError: It is not there, is empty, cannot be read, or has no such split or revision.
    """
    with _reading(path):
        local = find_local(path)
        if local is not None and revision is not None:
            raise DatasetError("A file or folder has no revisions", where="--revision", fix="Leave it out.")
        if local is not None and local.is_file():
            separator = {"sep": "\t"} if ".tsv" in local.suffixes else {}
            about: dict[str, Any] = {"data_files": exactly(local), **separator}
            found = load_dataset(check_file(local), split="train", streaming=streaming, **about)
        elif local is not None and _is_saved(local):
            found = load_from_disk(str(local))
            if isinstance(found, DatasetDict):
                if split not in found:
                    raise DatasetError(f"There is no split {split!r}", where=path, fix=f"Use one of {list(found)}.")
                found = found[split]
            if streaming:
                found = found.to_iterable_dataset()
        else:
            place, about = _named(local, path, name)
            found = load_dataset(place, name, split=split, streaming=streaming, revision=revision, **about)
        # A stream's first row is read now, with the path at hand, and not only when it is needed.
        if not (len(found) if isinstance(found, Dataset) else sum(1 for _ in found.take(1))):
            raise DatasetError("The dataset has no rows", where=path, fix="Check how it was written, and the split.")
        return found


def load_other_splits(path: str, split: str, name: str | None = None) -> dict[str, Dataset]:
    """The splits of a dataset besides one.

    Args:
        path: As of `load_rows`.
        split: The one to leave out.
        name: The dataset's configuration on the Hub.

    Raises:
        DatasetError: It is not there or cannot be read.
    """
    with _reading(path):
        local = find_local(path)
        if local is not None and (local.is_file() or (local / "dataset_info.json").is_file()):
            return {}
        if local is not None and _is_saved(local):
            loaded = load_from_disk(str(local))
        else:
            place, about = _named(local, path, name)
            loaded = load_dataset(place, name, **about)
    return {str(each): rows for each, rows in loaded.items() if each != split}


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file()


def _named(local: Path | None, path: str, name: str | None) -> tuple[str, dict[str, Any]]:
    """What `load_dataset` is to be given for a folder of data files or for a repository on the Hub."""
    if local is None:
        return path, {}
    files = folder_files(local, name)
    return str(local), {} if files is None else {"data_files": files}


def load_model(
    path: str,
    dataset: Dataset | IterableDataset | None,
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
        path: Folder or Hub id of a checkpoint, or of a PEFT adapter, whose base model is loaded with it.
        dataset: Its columns tell the task where the checkpoint does not, and the classes of a new head. None where the
            checkpoint knows both.
        task: One of `TASKS`; None takes the checkpoint's own head, or a classification head for a dataset with labels.
        device: As torch names it.
        dtype: As torch names it, or "auto" for the checkpoint's.
        revision: A branch, tag or commit of a checkpoint on the Hub; of an adapter, its own, not its base's.
        seed: Of weights that the checkpoint lacks.

    Raises:
        ConfigError: The model cannot be loaded, or no task is known.
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype is {dtype!r}", where="--dtype", fix=f"Use one of {', '.join(_DTYPES)}.")
    try:
        adapter = find_adapter(path, revision)
        base, pinned = (path, revision) if adapter is None else (adapter.base, adapter.base_revision)
        given: dict[str, Any] = {} if pinned is None else {"revision": pinned}
        config = _read_config(adapter, base, given)
        commit = None if adapter is None else adapter.commit
        if not Path(base).exists():
            # The cache names a folder for each commit. All files are read from this one.
            pinned = Path(hf_hub_download(base, CONFIG_NAME, revision=pinned)).parent.name
            given = {"revision": pinned}
            commit = pinned if adapter is None else commit
        task = _agreed_task(task, adapter) or _find_task(config, dataset)
        if task not in TASKS:
            raise ConfigError(f"task is {task!r}", where="--task", fix=f"Use one of {', '.join(TASKS)}.")
        saved = saved_weights(adapter) if adapter is not None else {}
        given |= {"dtype": dtype, **_new_head(config, dataset, task, saved)}
        with isolated_rng(seed):
            model, info = TASKS[task].from_pretrained(base, output_loading_info=True, **given)
            if adapter is not None:
                model = with_adapter(model, adapter)
    except SageError:
        raise
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ConfigError(
            f"The model cannot be loaded: {_first_line(error)}",
            where=path,
            fix="Check the folder or Hub id; --task and --dtype may help.",
        ) from error
    processor = None if adapter is None else _load_processor(adapter.path, adapter.commit, task, own_files=True)
    if processor is None:
        processor = _load_processor(base, pinned, task)
    if device is not None:
        try:
            model = model.to(torch.device(device))
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"The model cannot be moved to {device!r}: {_first_line(error)}",
                where="--device",
                fix="Use a device that torch sees here, such as cpu.",
            ) from error
    return Loaded(model, processor, task, sorted(set(info["missing_keys"]) - set(saved)), commit)


def _read_config(adapter: Adapter | None, base: str, pinned: dict[str, Any]) -> Any:
    try:
        return AutoConfig.from_pretrained(base, **pinned)
    except (OSError, ValueError) as error:
        if adapter is None:
            raise
        raise ConfigError(
            f"The base model {base!r} of the adapter cannot be found: {_first_line(error)}",
            where=f"{adapter.path}, adapter_config.json",
            fix="Write its folder or Hub id into base_model_name_or_path.",
        ) from error


def _agreed_task(task: str | None, adapter: Adapter | None) -> str | None:
    """The task that the user or the adapter names."""
    if adapter is None or adapter.task is None:
        return task
    if task not in (None, adapter.task):
        raise ConfigError(f"The adapter is for {adapter.task}, not for {task}", where="--task", fix="Leave it out.")
    return adapter.task


def _new_head(
    config: Any, dataset: Dataset | IterableDataset | None, task: str, saved: dict[str, tuple[int, ...]]
) -> dict[str, Any]:
    """Changes to the config for a classification head that the checkpoint lacks; none where it has one."""
    if task == "causal-lm":
        return {}
    classes = saved_classes(saved)
    if _own_task(config) == task and classes in (None, config.num_labels):
        return {}
    if classes is None:
        names = _class_names(dataset)
    else:  # the adapter brings its head, of which it keeps no names
        try:
            names = _class_names(dataset) if classes > 1 else []
        except DatasetError:  # whole numbers need no names
            names = []
        if len(names) != classes:
            return {"num_labels": classes}
        logger.warning("The adapter does not name its %d classes: they are taken to be %s.", classes, names)
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        "num_labels": len(names),
    }


def _load_processor(path: str, revision: str | None, task: str, own_files: bool = False) -> Any:
    """The tokenizer or image processor of a checkpoint; None where it has none.

    Args:
        path: Folder or Hub id.
        revision: The commit, of a checkpoint on the Hub.
        task: One of `TASKS`.
        own_files: Whether to take none that transformers makes of the config alone.
    """
    pinned = {} if revision is None else {"revision": revision}
    is_image = task == "image-classification"
    file = IMAGE_PROCESSOR_NAME if is_image else TOKENIZER_CONFIG_FILE
    try:
        if own_files and not has_file(path, file, revision):
            return None
        processor = (AutoImageProcessor if is_image else AutoTokenizer).from_pretrained(path, **pinned)
    except (OSError, ValueError):
        return None  # fine for a prepared dataset; a raw one says what it lacks
    if not is_image and processor.vocab_size <= _EMPTY_VOCABULARY:
        return None  # transformers makes an empty tokenizer of a checkpoint that has none
    return processor


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """ForwardSync what datasets says into one of our errors."""
    try:
        yield
    except SageError:
        raise
    except Exception as error:  # readers of files raise anything
        if _NO_ROWS in str(error):
            raise DatasetError("The dataset has no rows", where=path, fix="Check how it was written.") from error
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


def _find_task(config: Any, dataset: Dataset | IterableDataset | None) -> str:
    own = _own_task(config)
    if own is not None:
        return own
    if dataset is None:
        raise ConfigError(
            f"The checkpoint names no known task ({config.architectures})",
            where="--task",
            fix=f"Name a dataset too, or pass one of {', '.join(TASKS)}.",
        )
    columns = dataset.column_names or list(first_row(dataset))
    if any(name in columns for name in LABEL_COLUMNS):
        is_image = any(name in columns for name in ("image", "img", "pixel_values"))
        return "image-classification" if is_image else "sequence-classification"
    raise ConfigError(
        f"The checkpoint names no known task ({config.architectures}), and the dataset has no label column",
        where="--task",
        fix=f"Pass one of {', '.join(TASKS)}.",
    )


def _class_names(dataset: Dataset | IterableDataset | None) -> list[str]:
    if dataset is None:
        raise DatasetError(
            "The checkpoint has no classification head, and the classes of a new one come from a dataset",
            where="DATASET",
            fix="Name the dataset too.",
        )
    columns = dataset.column_names or list(first_row(dataset))
    column = next((name for name in LABEL_COLUMNS if name in columns), None)
    if column is None:
        raise DatasetError(
            f"A classification head needs labels, and there is no column {' or '.join(LABEL_COLUMNS)}",
            where=f"columns {columns}",
            fix="Rename the label column, or pass --task causal-lm.",
        )
    feature = (dataset.features or {}).get(column)
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    if isinstance(dataset, IterableDataset):
        raise DatasetError(
            f"The classes of a new head are not known: the stream's column {column!r} does not name them",
            where="dataset",
            fix="Name a checkpoint with a head, or cast the column to ClassLabel, or read without --streaming.",
        )
    held = list(dataset.with_format(None)[column])
    if nulls := [row for row, value in enumerate(held) if value is None]:
        raise DatasetError(
            f"{len(nulls)} rows have no label, first in rows {nulls[:5]}",
            where=f"column {column!r}",
            fix="Fill or filter these rows.",
        )
    if not all(isinstance(value, (bool, int, str)) for value in held) or any(
        not isinstance(value, str) and value < 0 for value in held
    ):
        raise DatasetError(
            f"The column {column!r} holds no classes: text or whole numbers from 0",
            where="dataset",
            fix="Filter or encode it, or load a model that has a head already.",
        )
    values = set(held)
    if values and all(isinstance(value, int) for value in values):
        return [str(value) for value in range(max(values) + 1)]
    return sorted(str(value) for value in values)
