"""A short training before the selection: the gradients of a fresh head say nothing about the rows.

Where a folder is given for it, the end of a warm-up is kept there, in one file whose name is a hash of all that it
depends on: the same warm-up asked for again, by whatever command and in however many processes, gives the same
weights, on a GPU, too, where the same steps taken again would not.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from datasets.config import HF_DATASETS_CACHE
from datasets.fingerprint import Hasher
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..config import SageConfig
from ..data.batches import check_dataset, readable
from ..data.columns import open_source
from ..data.encoding import Collator
from ..data.meaning import loss_of_guessing
from ..data.training_batches import TrainingBatches
from ..errors import ConfigError
from ..gradients.model.padding import padding_shown
from ..gradients.model.state import check_differentiable, unchanged_config, unwrap
from ..passes.fit import RunKey
from ..passes.processes import Processes, is_sharded
from ..utils.bars import stage
from ..utils.checksums import CHECKSUM, DAMAGE, UNSEALED, check_seal, seal, set_aside
from ..utils.files import whole_file
from ..utils.given import given_config, given_folder, real_number, whole_number
from ..utils.interruption import told_if_interrupted
from ..utils.locks import writing
from ..utils.rng import isolated_rng
from .warmup_steps import Course, take_steps

logger = logging.getLogger(__name__)

# Where the shell keeps warm-ups: not beside an output, because its commands have different ones.
WARM_UPS = Path(HF_DATASETS_CACHE) / "sage_hf" / "warm-ups"
WARMING_UP = "warm-up"
# Changes whenever the same call would end with other weights, or a file hold something else.
_VERSION = 3
# Settings of how rows are encoded and drawn.
_SETTINGS = ("text_columns", "max_length", "seed")


@dataclass(frozen=True)
class WarmUp:
    """What a warm-up did.

    Attributes:
        steps: Optimizer steps taken.
        loss: Mean training loss over them.
        file: Where its end is kept; None where it is not.
        is_kept: Whether an earlier call took the steps, and this one read its end.
        first_loss: Mean training loss over the first fifth of them; None of fewer than 15, which do not tell.
        last_loss: Mean training loss over the last fifth; None as above.
    """

    steps: int
    loss: float
    file: Path | None = None
    is_kept: bool = False
    first_loss: float | None = None
    last_loss: float | None = None


def warm_up(
    model: nn.Module,
    dataset: Dataset,
    *,
    steps: int | None = None,
    fraction: float | None = None,
    learning_rate: float = 5e-5,
    batch_size: int = 16,
    processing_class: Any = None,
    data_collator: Collator | None = None,
    config: SageConfig | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> WarmUp:
    """Trains a model in place on random rows, by Trainer's default optimizer and schedule.

    If the loss does not fall, a warning says so: scores of a model that learned nothing mean nothing.

    Only the model's weights change: training modes and random states are restored. Under `accelerate launch` or
    `torchrun`, call it in every process: all take the same steps, of `batch_size` rows in all, and get the main
    process's weights. So the weights are the same as on one process.

    Args:
        model: As for `SageSelector`; it is trained on its device.
        dataset: Raw or prepared rows.
        steps: Optimizer steps to take, on random rows of the whole dataset.
        fraction: Share of the rows, in (0, 1], to train on once, instead of steps.
        learning_rate: Learning rate at the start; it falls linearly to 0. Trainer's default suits a pretrained model;
            a model from a config learns faster with 1e-3.
        batch_size: Rows a step.
        processing_class: As for `SageSelector`.
        data_collator: As for `SageSelector`.
        config: Gives the seed and how rows are encoded.
        cache_dir: Folder in which the result of a warm-up is stored; the same call then loads it. None: nothing is
            stored. A model whose weights are spread over processes is never stored.
        progress: Whether to show progress, on the main process.

    Raises:
        ConfigError: Both or neither of steps and fraction are given, one is out of range, or no weight is trainable.
        DatasetError: As for `SageSelector.fit`.
        LabelError: As for `SageSelector.fit`.
        GradientError: The loss is not finite.
    """
    steps, learning_rate = _checked(steps, fraction, learning_rate, batch_size)
    config, cache_dir = given_config(config), given_folder(cache_dir, "cache_dir")
    model = unwrap(model)
    check_differentiable(model)
    check_dataset(dataset)
    with isolated_rng(config.seed):  # a transform of the dataset may draw
        source = open_source(model, dataset, config, processing_class, data_collator)
    rows = readable(dataset, source.columns)
    if fraction is not None:
        rows = rows.shuffle(seed=config.seed).select(range(max(1, round(fraction * len(dataset)))))
    steps = steps or -(-len(rows) // batch_size)
    everyone = Processes(nn.Identity())
    is_shared = not is_sharded(model)
    file = None
    schedule: dict[str, Any] = {"steps": steps, "learning_rate": learning_rate, "batch_size": batch_size}
    if cache_dir is not None and is_shared:
        asked = {"steps": steps, "fraction": fraction, **schedule}
        asked |= {name: getattr(config, name) for name in _SETTINGS}
        file = cache_dir / f"{_key(model, dataset, asked, [processing_class, data_collator])}.safetensors"
    # The main process's file counts: the others may have no such folder.
    kept = everyone.broadcast_object(_read(model, file) if file is not None and everyone.rank == 0 else None)
    is_kept = kept is not None
    if kept is not None:
        course = Course(**kept)
    else:
        training = {module: module.training for module in model.modules()}
        # Where weights are spread over processes, the others are in the middle of it.
        with everyone.agreed() if is_shared else nullcontext():
            try:
                with (
                    stage(WARMING_UP, steps, "steps", shown=progress),
                    told_if_interrupted(_about_interruption),
                    isolated_rng(config.seed),
                    unchanged_config(model),
                    padding_shown(model),
                ):
                    course = take_steps(model, rows, TrainingBatches(source), seed=config.seed, **schedule)
            finally:
                for module, mode in training.items():
                    module.training = mode
    if is_shared:
        everyone.tensors_from_main(list(_trained(model).values()))
    if file is not None and not is_kept and everyone.rank == 0 and not _write(model, file, course):
        file = None
    if everyone.rank == 0 and (text := about_course(course, loss_of_guessing(model))):
        logger.warning("%s", text)
    return WarmUp(steps, course.mean, file, is_kept, course.first, course.last)


def _about_interruption() -> str:
    return "The warm-up is kept only when it is whole: it starts anew."


def about_course(course: Course, guessing: float | None) -> str:
    """What a person is told of a warm-up that taught nothing, and what to do; empty where it may have taught some.

    A model that knows its task already has a loss that cannot fall much: it is held against guessing.

    Args:
        course: How the loss went.
        guessing: Loss of guessing; None where it is not known.
    """
    went = f"from {course.first:.3f} in its first fifth to {course.last:.3f} in its last" if course.first else ""
    if course.rose:
        return f"The loss of the warm-up rose, {went}: scores by this model mean little. Lower the learning rate."
    if course.fell or course.last is None or guessing is None or course.last < guessing - (course.error or 0.0):
        return ""
    return (
        f"The loss of the warm-up did not fall, {went}, and guessing has {guessing:.3f}: scores by this model mean "
        "little. Take more steps, or a larger learning rate (1e-3 for a model from a config)."
    )


def _checked(
    steps: int | None, fraction: float | None, learning_rate: float, batch_size: int
) -> tuple[int | None, float]:
    """The steps and the learning rate as Python's numbers."""
    if (steps is None) == (fraction is None):
        raise ConfigError(
            f"{'Neither' if steps is None else 'Both'} of steps and fraction was given",
            where="steps, fraction",
            fix="Give exactly one of them.",
        )
    a_share = "Give a share above 0 and at most 1."
    if fraction is not None and not 0.0 < real_number(fraction, "fraction", a_share) <= 1.0:
        raise ConfigError(f"fraction is {fraction}", where="fraction", fix=a_share)
    whole_number(batch_size, "batch_size")
    rate = real_number(learning_rate, "learning_rate", "Give a finite number of at least 0, such as 5e-5.")
    return None if steps is None else whole_number(steps, "steps"), rate


# --------------------------------------------------------------------- the file
def _key(model: nn.Module, dataset: Dataset, asked: dict[str, Any], outside: list[Any]) -> str:
    """16 hexadecimal digits from all that the end of a warm-up depends on."""
    settings = model.config.to_dict() if isinstance(model, PreTrainedModel) else {}
    # Where the checkpoint lies, and what wrote it.
    for name in ("_name_or_path", "transformers_version"):
        settings.pop(name, None)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    asked = {**asked, "version": _VERSION, "model": [type(model).__qualname__, Hasher.hash(settings), trainable]}
    return RunKey.of(model, dataset, asked, outside).folder()


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """What a training changes: trainable parameters and buffers, each once."""
    saved = model.state_dict(keep_vars=True)
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return trainable | {name: buffer for name, buffer in model.named_buffers() if name in saved}


def _read(model: nn.Module, file: Path) -> dict[str, float | None] | None:
    """Gives a model the weights at the end of the warm-up, and returns its course; None without a file.

    A damaged file is set aside.
    """
    if not file.exists():
        return None
    try:
        check_seal(file)
        with safe_open(file, framework="pt") as held:
            metadata = held.metadata()
            if metadata["name"] != file.stem:
                raise ValueError("it is of another warm-up")
            course = Course(**json.loads(metadata["course"]))
            trained = _trained(model)
            tensors = {name: held.get_tensor(name) for name in trained}
    except DAMAGE as error:
        set_aside(file, error, "the warm-up is made again")
        return None
    with torch.no_grad():
        for name, tensor in trained.items():
            tensor.copy_(tensors[name])
    return vars(course)


def _write(model: nn.Module, file: Path, course: Course) -> bool:
    """Keeps the end of a warm-up; whether it could be."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _trained(model).items()}
    metadata = {"format": "pt", "name": file.stem, "course": json.dumps(vars(course)), CHECKSUM: UNSEALED}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with writing(file.parent / ".lock"):  # else the part of a run that still writes would be deleted
            for left in file.parent.glob(f".{file.name}.*.part"):  # by a run that was killed while it wrote
                left.unlink(missing_ok=True)
            with whole_file(file, "Free some space.") as part:
                save_file(tensors, part, metadata=metadata)
                seal(part)
    except (OSError, SafetensorError) as error:
        logger.warning("The warm-up could not be stored, and will be repeated next time: %s", error)
        return False
    return True
