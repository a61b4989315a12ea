"""The shell's `sage-hf select`: the rows of a dataset that a model learns most from, in a folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import SageConfig
from ..errors import ConfigError
from ..hub.files import check_output
from ..hub.paths import check_list_file
from .folders import note_source
from .options import INPUT, Inputs, main_console, option, plain
from .push import PushOptions, push_selection
from .reproduce import select_command

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn

    from ..passes.target import Target
    from ..selection.selection import Selection
    from ..selection.stream_selection import StreamSelection
    from ..selector.several_models import Model

_HUB = "On the Hub"
_AIM = "Towards a target, and by several checkpoints"
# Options that the command which makes a selection again has, too.
_REPEATED = ("streaming", "target", "target_shares", "checkpoints", "checkpoint_weights", "adam", "exclude")


@dataclass(frozen=True)
class SelectOptions:
    """See their help."""

    output: Path = option(..., "Folder for the kept rows, the scores and the settings.", flags="--output -o")
    cache_dir: Path | None = option(None, "Where --cache-gradients keeps rows; with datasets' own caches by default.")
    overwrite: bool = option(False, "Replace a selection that is there, on the Hub, too.")
    keep_signals: bool = option(
        True, "Write what is known of every row, too, 1 to 3 kB each: `sage-hf choose` takes other rows by it."
    )
    streaming: bool = option(False, "Read rows as they are needed, of any number of them.", INPUT)
    exclude: Path | None = option(
        None, "List of label issues: rows that it says to drop are left out; all, where it says nothing.", INPUT
    )
    target: str | None = option(
        None, "File, folder or Hub id of a few rows of what the model is to be good at; several with commas.", _AIM
    )
    target_shares: str | None = option(None, "Of several targets, how much of the budget each gets.", _AIM)
    checkpoints: str | None = option(
        None, "Earlier checkpoints of the same training, with commas: scores are the mean over these and MODEL.", _AIM
    )
    checkpoint_weights: str | None = option(
        None,
        "Their weights, MODEL's last: equal, or numbers with commas. By default the learning rates that Trainer "
        "logged, where all are its checkpoints; else equal.",
        _AIM,
    )
    adam: bool = option(
        False,
        "Rows count as the updates that Adam would make of them, by the optimizer.pt in the folders of MODEL and "
        "--checkpoints; towards a target.",
        _AIM,
    )
    push_to_hub: str | None = option(None, "Dataset repository for the result; `sage-hf push` can do more.", _HUB)
    private: bool | None = option(
        None, "Of a new repository; as your account has it.", _HUB, flags="--private/--public"
    )


def select(options: SelectOptions, inputs: Inputs, config: SageConfig) -> None:
    """Choose rows of a dataset and write them to a folder.

    The folder opens with `datasets.load_from_disk`; `sage_hf.Selection.load_from_disk` gives every row's score, too.

    `sage-hf select distilbert-base-uncased stanfordnlp/imdb --fraction 0.1 --warmup-steps 200 -o imdb-10pct`
    """
    check_output(options.output, options.overwrite)
    if options.exclude is not None:
        check_list_file(options.exclude)
        if options.streaming:
            raise ConfigError(
                "Of a stream no rows can be left out", where="--exclude", fix="Read without --streaming."
            )
    from datasets import Dataset

    from ..hub.provenance import describe_origin
    from ..hub.push import check_push
    from ..selection.report import summary
    from ..selector.brief import printing
    from ..selector.cleaning import without_issues
    from ..selector.selector import SageSelector
    from ..selector.several_models import select_over_checkpoints
    from ..strategies.quotas import resolve_budget

    rows, excluded = inputs.load_rows(config, streaming=options.streaming), None
    if options.exclude is not None and isinstance(rows, Dataset):
        rows, excluded, said = without_issues(rows, options.exclude)
        main_console().print(plain(said))
    resolve_budget(2**62 if options.streaming else len(rows), config.fraction, config.num_examples)
    if options.streaming and inputs.warms_up:
        raise ConfigError(
            "A warm-up draws rows at random, which a stream cannot give",
            where="--streaming",
            fix="Name a checkpoint that was trained on the task, or read without --streaming.",
        )
    if options.streaming and (options.target or options.checkpoints):
        raise ConfigError(
            "A stream has neither target nor checkpoints yet", where="--streaming", fix="Read without --streaming."
        )
    if options.adam and (inputs.warms_up or not options.target):
        raise ConfigError(
            "The optimizer's state is of MODEL before a warm-up, and rows are held against a target",
            where="--adam",
            fix="Name a --target, and leave the warm-up out.",
        )
    targets, shares = _load_targets(options, inputs)
    progress, report = main_console(), main_console(stderr=False)
    is_main_process = not report.quiet
    if options.push_to_hub is not None and is_main_process:
        check_push(options.push_to_hub, describe_origin(rows), overwrite=options.overwrite)
    loaded = inputs.load_model(rows, config.seed)
    inputs.warm_up(loaded, rows, config)
    # Beside the output, so that it is on the same disk; a run that was killed goes on from it.
    place = options.output.absolute()
    unfinished = place.with_name(f".{place.name}-unfinished")
    if unfinished.exists():
        progress.print(f"Going on from {plain(str(unfinished))}, where it fits.")
    settings: dict[str, Any] = {"processing_class": loaded.processing_class, "config": config}
    settings |= {"cache_dir": options.cache_dir, "resume_dir": unfinished}
    selection: Selection | StreamSelection
    with printing(progress):
        if isinstance(rows, Dataset):
            paths = [*_paths(options.checkpoints), inputs.model]
            load = partial(_load, inputs, loaded.model, rows, config.seed)
            models: list[Model] = [*paths] if options.adam else [partial(load, path) for path in paths]
            settings |= {"load_model": load, "adam": options.adam}
            weights = _weights(options, inputs)
            if weights is not None:
                progress.print("Weights of the checkpoints: " + ", ".join(f"{weight:.3g}" for weight in weights) + ".")
            settings |= {"weights": weights, "target": targets, "target_shares": shares}
            selection = select_over_checkpoints(models, rows, **settings)
        else:
            selection = SageSelector(loaded.model, **settings).select(rows)
    source = selection.stats.source
    if source["id"] is None:
        source["name"] = Path(inputs.dataset).name
    if loaded.revision is not None:
        selection.stats.model |= {"id": inputs.model, "revision": loaded.revision}
    dataset_revision = source["revision"] or inputs.dataset_revision
    selection.stats.command = select_command(
        replace(inputs, dataset_revision=dataset_revision, model_revision=loaded.revision),
        config,
        options.output.name,
        **{name: getattr(options, name) for name in _REPEATED},
    )
    if is_main_process:
        selection.save_to_disk(options.output, keep_signals=options.keep_signals, overwrite=options.overwrite)
        note_source(options.output, inputs, config, excluded)
        shutil.rmtree(unfinished, ignore_errors=True)
        report.print(summary(selection))
        report.print(f"Written to {options.output}.", markup=False)
        if options.push_to_hub is not None:
            push_selection(
                selection,
                PushOptions(
                    folder=options.output,
                    repository=options.push_to_hub,
                    private=options.private,
                    overwrite=options.overwrite,
                    source=inputs.dataset,
                    source_config=inputs.dataset_config,
                ),
            )


def _load_targets(options: SelectOptions, inputs: Inputs) -> tuple[Target | None, dict[str, float] | None]:
    """`target` and `target_shares` of a selection, from names with commas and numbers with commas.

    Columns get the names that the dataset's get, where a target has them.
    """
    from .columns import parse_mapping, rename_columns
    from .rows import load_rows

    paths, shares = _paths(options.target), options.target_shares
    mapping = parse_mapping(inputs.column_mapping, inputs.label_column)
    try:
        numbers = [float(number) for number in shares.split(",")] if shares else []
    except ValueError:
        numbers = [0.0]
    if shares and (len(numbers) != len(paths) or min(numbers) <= 0):
        raise ConfigError(
            f"{len(paths)} targets have the shares {shares}",
            where="--target-shares",
            fix="Give a number above 0 for each, with commas.",
        )
    targets = {}
    for path in paths:
        rows = load_rows(path, inputs.split)
        names = rows.column_names
        own = {old: new for old, new in mapping.items() if old in names}
        targets[Path(path).stem] = rename_columns(rows, own, names, path)
    if len(targets) < len(paths):
        raise ConfigError(
            f"Two targets have the same name: {', '.join(paths)}", where="--target", fix="Give files other names."
        )
    if len(paths) < 2:
        return next(iter(targets.values()), None), None
    return targets, dict(zip(targets, numbers, strict=True)) if numbers else None


def _load(inputs: Inputs, model: nn.Module, rows: Dataset, seed: int, path: str) -> nn.Module:
    """One of several checkpoints, when its turn comes; the model that is there already, where it is that."""
    if path == inputs.model:
        return model
    return replace(inputs, model=path, model_revision=None).load_model(rows, seed, quiet=True).model


def _weights(options: SelectOptions, inputs: Inputs) -> list[float] | None:
    """Weights of the checkpoints and of the model; None where nothing tells them.

    Raises:
        ConfigError: There are no checkpoints, or it is not one positive number for each.
    """
    from ..selector.checkpoints import is_trainer_checkpoint, learning_rates

    folders, words = _paths(options.checkpoints), options.checkpoint_weights
    if words and not folders:
        raise ConfigError(
            "There are weights and no checkpoints", where="--checkpoint-weights", fix="Name --checkpoints, too."
        )
    if not folders:
        return None
    folders.append(inputs.model)
    if words == "equal":
        return [1.0] * len(folders)
    if words is None:
        known = not inputs.warms_up and all(map(is_trainer_checkpoint, folders))
        return learning_rates(folders) if known else None
    try:
        return [float(word) for word in words.split(",")]
    except ValueError:
        raise ConfigError(
            f"The weights are {words!r}", where="--checkpoint-weights", fix="Give equal, or numbers with commas."
        ) from None


def _paths(text: str | None) -> list[str]:
    """Paths and Hub ids that were given with commas; one whose name holds a comma is one."""
    if text and Path(text).exists():
        return [text]
    return [path for path in (text or "").split(",") if path]
