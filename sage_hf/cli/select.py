"""The shell's `sage-hf select`: the rows of a dataset that a model learns most from, in a folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from typer.core import TyperCommand

from ..config import STRATEGY_LINES, SageConfig
from ..errors import ConfigError
from ..hub.files import check_rows_output, is_row_file
from ..hub.paths import check_list_file
from ..utils.bars import planned, stage
from .folders import holding, note_source, print_kept
from .interrupt import go_on_with
from .options import INPUT, LOADING, Inputs, main_console, option
from .paths import check_folder, check_local
from .push import PushOptions, push_selection
from .reproduce import select_command
from .wording import number_rows

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


class ListsStrategies(TyperCommand):
    """Its help ends with all strategies, a line each."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help, and the strategies in a panel as the options have."""
        super().format_help(ctx, formatter)
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(style="bold cyan", no_wrap=True)
        for name, line in STRATEGY_LINES.items():
            table.add_row(name, line)
        Console().print(Panel(table, title="Strategies", title_align="left", border_style="dim"))


@dataclass(frozen=True)
class SelectOptions:
    """See their help."""

    output: Path = option(
        ...,
        "Folder for the kept rows, every row's score and the settings; or a file for the kept rows alone: .csv, "
        ".jsonl or .parquet.",
        flags="--output -o",
    )
    cache_dir: Path | None = option(
        None, "Folder for the rows of --cache-gradients; by default, beside the caches of datasets."
    )
    overwrite: bool = option(False, "Replace an existing selection, on the Hub, too.")
    keep_signals: bool = option(
        True, "Also write the signals of every row, 1 to 3 kB each, with which `sage-hf choose` can choose again."
    )
    streaming: bool = option(False, "Read rows as they are needed, for datasets of any size.", INPUT)
    exclude: Path | None = option(
        None,
        "List of label issues: leave out its rows marked drop, or all of its rows if no action is filled in.",
        INPUT,
    )
    target: str | None = option(
        None, "File, folder or Hub id of a few rows like those to do well on; separate several with commas.", _AIM
    )
    target_shares: str | None = option(
        None, "How much of the budget each of several targets gets: numbers, separated by commas.", _AIM
    )
    checkpoints: str | None = option(
        None,
        "Earlier checkpoints of the same training, separated by commas: scores are means over these and MODEL.",
        _AIM,
    )
    checkpoint_weights: str | None = option(
        None,
        "Weights of the checkpoints, MODEL's last: equal, or numbers separated by commas. By default the learning "
        "rates that Trainer logged, if it saved them all; else equal.",
        _AIM,
    )
    adam: bool = option(
        False,
        "Compare Adam's updates instead of gradients: needs a --target, and optimizer.pt in the folders of MODEL and "
        "--checkpoints.",
        _AIM,
    )
    push_to_hub: str | None = option(None, "Dataset repository for the result; `sage-hf push` can do more.", _HUB)
    private: bool | None = option(
        None,
        "Whether a new repository is private; your account's setting by default.",
        _HUB,
        flags="--private/--public",
    )

    @property
    def is_file(self) -> bool:
        """Whether the output is one file."""
        return is_row_file(self.output)

    def check(self) -> None:
        """Refuses an output and paths that cannot be, at once."""
        check_rows_output(self.output, self.overwrite)
        if self.exclude is not None:
            check_list_file(self.exclude)
            if self.streaming:
                raise ConfigError(
                    "Rows of a stream cannot be left out", where="--exclude", fix="Read without --streaming."
                )
        for path in _paths(self.target):
            check_local(path)
        for path in _paths(self.checkpoints):
            check_folder(path)


def select(options: SelectOptions, inputs: Inputs, config: SageConfig) -> None:
    """Choose rows of a dataset and write them to a folder, or to a file.

    The folder opens with `datasets.load_from_disk`; `sage_hf.Selection.load_from_disk` gives every row's score, too.
    A file (`-o kept.csv`) holds the kept rows with their scores, and row numbers of the source.

    `sage-hf select distilbert-base-uncased stanfordnlp/imdb --fraction 0.1 --warmup-steps 200 -o imdb-10pct`
    """
    options.check()
    from ..selection.resolve import needed, resolve
    from ..selector.stages import CHOOSING, PUSHING, WRITING, fit_stages, stream_stages
    from ..training.warmup import WARMING_UP

    count = len(_paths(options.target))
    settled = resolve(config, has_target=count > 0)
    stages = [LOADING, *([WARMING_UP] if inputs.warms_up else [])]
    if options.streaming:
        stages += stream_stages(settled)
    else:
        stages += fit_stages(settled, (), count) * len(_paths(options.checkpoints))
        stages += [*fit_stages(settled, needed(settled), count), CHOOSING]
    with holding(options.output), planned([*stages, WRITING, *([PUSHING] if options.push_to_hub else [])]):
        _select(options, inputs, config)


def _select(options: SelectOptions, inputs: Inputs, config: SageConfig) -> None:
    from datasets import Dataset

    from ..data.status import ROW_COLUMN
    from ..hub.provenance import describe_origin
    from ..hub.push import check_push
    from ..hub.row_files import check_table_rows
    from ..selection.signal_files import signals_size
    from ..selector.cleaning import without_issues
    from ..selector.selector import SageSelector
    from ..selector.several_models import select_over_checkpoints
    from ..strategies.quotas import resolve_budget

    excluded = None
    with stage(LOADING):
        rows = inputs.load_rows(config, streaming=options.streaming)
    if options.exclude is not None and isinstance(rows, Dataset):
        rows, excluded, said = without_issues(rows, options.exclude)
        number_rows(rows.with_format(None)[ROW_COLUMN][:])
        main_console().print(said, markup=False)
    resolve_budget(2**62 if options.streaming else len(rows), config.fraction, config.num_examples)
    if options.streaming and inputs.warms_up:
        raise ConfigError(
            "A warm-up draws rows at random, which a stream cannot give",
            where="--streaming",
            fix="Name a checkpoint that was trained on the task, or read without --streaming.",
        )
    if options.streaming and (options.target or options.checkpoints):
        raise ConfigError(
            "Streams do not support --target and --checkpoints yet",
            where="--streaming",
            fix="Read without --streaming.",
        )
    if options.adam and (inputs.warms_up or not options.target):
        raise ConfigError(
            "--adam needs a target and no warm-up: the optimizer's state is of MODEL as it was saved",
            where="--adam",
            fix="Name a --target, and leave the warm-up out.",
        )
    if options.is_file:
        check_table_rows(options.output, rows)
    targets, shares = _load_targets(options, inputs)
    progress = main_console()
    is_main_process = not main_console(stderr=False).quiet  # that of messages is quiet with --quiet, too
    if options.push_to_hub is not None and is_main_process:
        check_push(options.push_to_hub, describe_origin(rows), overwrite=options.overwrite)
    with stage(LOADING):
        loaded = inputs.load_model(rows, config.seed)
    inputs.warm_up(loaded, rows, config)
    # Beside the output, so that it is on the same disk; a run that was killed goes on from it.
    place = options.output.absolute()
    unfinished = place.with_name(f".{place.name}-unfinished")
    if unfinished.exists():
        progress.print(f"Continuing the unfinished run in {unfinished}, if its settings match.", markup=False)
    settings: dict[str, Any] = {"processing_class": loaded.processing_class, "config": config}
    settings |= {"cache_dir": options.cache_dir, "resume_dir": unfinished}
    selection: Selection | StreamSelection
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
        if options.is_file:
            selection.save_rows(options.output, overwrite=options.overwrite)
        else:
            selection.save_to_disk(options.output, keep_signals=options.keep_signals, overwrite=options.overwrite)
            note_source(options.output, inputs, config, excluded)
        shutil.rmtree(unfinished, ignore_errors=True)
        print_kept(selection, options.output)
        if size := signals_size(options.output):
            progress.print(f"Of the folder, {size / 1e6:,.1f} MB are signals of all rows, for `sage-hf choose`.")
        if options.is_file:
            progress.print(
                "The file holds only the kept rows. To choose again later (`sage-hf choose`), write to a folder."
            )
        if options.push_to_hub is not None:
            privacy = [] if options.private is None else ["--private" if options.private else "--public"]
            go_on_with([] if options.is_file else ["push", str(options.output), options.push_to_hub, *privacy])
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
    from .rows import load_rows, split_of

    paths, shares = _paths(options.target), options.target_shares
    if paths:  # errors may name their rows from now on
        number_rows(None)
    mapping = parse_mapping(inputs.column_mapping, inputs.label_column)
    try:
        numbers = [float(number) for number in shares.split(",")] if shares else []
    except ValueError:
        numbers = [0.0]
    if shares and (len(numbers) != len(paths) or min(numbers) <= 0):
        raise ConfigError(
            f"The shares {shares} do not fit {len(paths)} targets",
            where="--target-shares",
            fix="Give each target a number above 0, separated by commas.",
        )
    targets = {}
    for path in paths:
        rows = load_rows(path, split_of(path, inputs.split))
        names = rows.column_names
        own = {old: new for old, new in mapping.items() if old in names}
        targets[Path(path).stem] = rename_columns(rows, own, names, path)
    if len(targets) < len(paths):
        raise ConfigError(
            f"Two targets have the same name: {', '.join(paths)}", where="--target", fix="Rename one of them."
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
            "Weights were given, but no checkpoints", where="--checkpoint-weights", fix="Name --checkpoints, too."
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
            f"The weights are {words!r}",
            where="--checkpoint-weights",
            fix="Give the word equal, or numbers separated by commas.",
        ) from None


def _paths(text: str | None) -> list[str]:
    """Paths and Hub ids that were given with commas; one whose name holds a comma is one."""
    if text and Path(text).exists():
        return [text]
    return [path for path in (text or "").split(",") if path]
