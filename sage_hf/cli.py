"""The shell: `sage-hf select`, `push`, `demo` and `env`.

Exit codes: 0 done, 1 an error with a message, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import functools
import inspect
import shutil
from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from . import __version__
from .config import BALANCES, CONSENSUSES, LOSS_REDUCTIONS, SageConfig, from_text
from .errors import ConfigError, SageError
from .processes import launched
from .report import summary
from .reproduce import select_command
from .strategies import STRATEGIES

app = typer.Typer(
    name="sage-hf",
    help="Keep the rows of a dataset whose gradients agree: a model and a dataset go in, a smaller dataset comes out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

_WARM_UP = "Warm-up: a fresh head's gradients say nothing"
_INPUT = "Model and dataset"
_HUB = "On the Hub"


def _words(name: str, values: Any) -> type[Enum]:
    return Enum(name, {value: value for value in values}, type=str)  # type: ignore[return-value]


# Fields that take one of a few words.
_CHOICES = {
    "strategy": _words("Strategy", STRATEGIES),
    "balance": _words("Balance", BALANCES),
    "consensus": _words("Consensus", CONSENSUSES),
    "loss_reduction": _words("LossReduction", LOSS_REDUCTIONS),
}


# Options that are text, or whose default does not tell their type.
_TYPES: dict[str, Any] = {
    "fraction": float | None,
    "num_examples": int | None,
    "projection": str,
    "target_modules": str,
    "group_by": str,
    "cache_gradients": str | None,
    "text_columns": str | None,
}


def _with_config(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command an option for every field of `SageConfig`, and the config made from them."""
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "config"]
    options = []
    for each in fields(SageConfig):
        kind = _CHOICES.get(each.name) or _TYPES.get(each.name) or type(each.default)
        default = _CHOICES[each.name](each.default) if each.name in _CHOICES else each.default
        flag = "--" + each.name.replace("_", "-")
        flags = (f"{flag}/--no-{flag[2:]}",) if kind is bool else (flag,)
        panel = "How much to keep" if each.name in ("fraction", "num_examples") else "How to choose"
        metavar = "WORD" if each.name in _CHOICES else None  # the help names the words
        option = typer.Option(*flags, help=each.metadata["help"], rich_help_panel=panel, metavar=metavar)
        options.append(
            inspect.Parameter(
                each.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
            )
        )

    @functools.wraps(command)
    def run(**given: Any) -> None:
        with_config = {each.name: from_text(each.name, given.pop(each.name)) for each in fields(SageConfig)}
        command(**given, config=SageConfig(**with_config))

    run.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return run


def _friendly(command: Callable[..., None]) -> Callable[..., None]:
    """Shows a `SageError` as a message, without a traceback."""

    @functools.wraps(command)
    def run(**given: Any) -> None:
        try:
            command(**given)
        except SageError as error:
            console = Console(stderr=True)
            console.print(f"[bold red]Error[/] in {_plain(error.where)}: {_plain(error.what)}.")
            console.print(f"[bold]What to do:[/] {_plain(error.fix)}")
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return run


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


@app.command()
@_friendly
@_with_config
def select(
    model: Annotated[str, typer.Argument(help="Checkpoint: a folder or a Hub id.")],
    dataset: Annotated[str, typer.Argument(help="A json, csv or parquet file, a save_to_disk folder, or a Hub id.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the kept rows, the scores and the settings.")
    ],
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where --cache-gradients keeps rows; with datasets' own caches by default.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a selection that is there, on the Hub, too.")
    ] = False,
    split: Annotated[str, typer.Option(help="Split of the dataset.", rich_help_panel=_INPUT)] = "train",
    dataset_name: Annotated[
        str | None, typer.Option(help="The dataset's configuration on the Hub.", rich_help_panel=_INPUT)
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="causal-lm, sequence-classification or image-classification; told from the checkpoint by default.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the dataset on the Hub.", rich_help_panel=_INPUT)
    ] = None,
    model_revision: Annotated[str | None, typer.Option(help="The same of the model.", rich_help_panel=_INPUT)] = None,
    streaming: Annotated[
        bool,
        typer.Option(
            "--streaming", help="Read rows as they are needed, of any number of them.", rich_help_panel=_INPUT
        ),
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="Such as cpu or cuda:0; the best there is by default.", rich_help_panel=_INPUT)
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, or auto for the checkpoint's.", rich_help_panel=_INPUT)
    ] = "auto",
    warmup_steps: Annotated[
        int | None, typer.Option(help="Train this many steps on random rows first.", rich_help_panel=_WARM_UP)
    ] = None,
    warmup_fraction: Annotated[
        float | None, typer.Option(help="Train on this share of the rows first.", rich_help_panel=_WARM_UP)
    ] = None,
    warmup_learning_rate: Annotated[float, typer.Option(help="For the warm-up.", rich_help_panel=_WARM_UP)] = 5e-5,
    push_to_hub: Annotated[
        str | None,
        typer.Option(help="Dataset repository for the result; `sage-hf push` can do more.", rich_help_panel=_HUB),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Of a new repository; as your account has it.", rich_help_panel=_HUB),
    ] = None,
    *,
    config: SageConfig,
) -> None:
    """Choose rows of a dataset and write them to a folder.

    The folder opens with `datasets.load_from_disk`; `sage_hf.Selection.load` gives every row's score, too.

    `sage-hf select distilbert-base-uncased stanfordnlp/imdb --fraction 0.1 --warmup-steps 200 -o imdb-10pct`
    """
    from .budget import resolve_budget
    from .hub import check_push
    from .loading import load_model, load_rows
    from .provenance import describe_origin
    from .selection_folder import check_output
    from .selector import SageSelector
    from .warmup import warm_up

    check_output(output, overwrite)
    if warmup_steps is not None and warmup_fraction is not None:
        raise ConfigError(
            "Both --warmup-steps and --warmup-fraction were given", where="--warmup-steps", fix="Give one of them."
        )
    state = launched()
    console = Console(stderr=True, quiet=not state.is_main_process)
    rows = load_rows(dataset, split, dataset_name, streaming, revision)
    resolve_budget(2**62 if streaming else len(rows), config.fraction, config.num_examples)
    if streaming and (warmup_steps is not None or warmup_fraction is not None):
        raise ConfigError(
            "A warm-up draws rows at random, which a stream cannot give",
            where="--streaming",
            fix="Name a checkpoint that was trained on the task, or read without --streaming.",
        )
    if push_to_hub is not None and state.is_main_process:
        check_push(push_to_hub, describe_origin(rows), overwrite=overwrite)
    loaded = load_model(model, rows, task, device or str(state.device), dtype, model_revision)
    count = "A stream" if streaming else f"{len(rows):,} rows"
    console.print(f"{count} of {_plain(dataset)}, {type(loaded.model).__name__} for {loaded.task}.")
    inputs = {"processing_class": loaded.processing_class, "config": config}
    if warmup_steps is not None or warmup_fraction is not None:
        done = warm_up(
            loaded.model,
            rows,
            steps=warmup_steps,
            fraction=warmup_fraction,
            learning_rate=warmup_learning_rate,
            **inputs,
        )
        console.print(f"Warm-up: {done.steps} steps, mean loss {done.loss:.3f}.")
    elif loaded.new_weights:
        console.print(
            f"[bold yellow]The checkpoint lacks {len(loaded.new_weights)} weights[/] "
            f"({_plain(', '.join(loaded.new_weights[:4]))}): they are random, and their gradients say nothing. "
            "Add --warmup-steps or --warmup-fraction."
        )
    # Beside the output, so that it is on the same disk; a run that was killed goes on from it.
    place = output.absolute()
    unfinished = place.with_name(f".{place.name}-unfinished")
    if state.is_main_process and unfinished.exists():
        console.print(f"Going on from {_plain(str(unfinished))}, where it fits.")
    selector = SageSelector(loaded.model, **inputs, cache_dir=cache_dir, checkpoint_dir=unfinished)
    selection = selector.select(rows)
    options = {
        "dataset_name": dataset_name,
        "split": split if split != "train" else None,
        "task": task,
        "streaming": streaming,
        "dtype": dtype if dtype != "auto" else None,
        "warmup_steps": warmup_steps,
        "warmup_fraction": warmup_fraction,
        "warmup_learning_rate": warmup_learning_rate if warmup_steps or warmup_fraction else None,
        "revision": selection.stats["source"]["revision"] or revision,
        "model_revision": loaded.revision,
    }
    if selection.stats["source"]["id"] is None:
        selection.stats["source"]["name"] = Path(dataset).name
    if loaded.revision is not None:
        selection.stats["model"] |= {"id": model, "revision": loaded.revision}
    selection.stats["command"] = select_command(model, dataset, output.name, options, config)
    if state.is_main_process:
        selection.save(output, overwrite=overwrite)
        shutil.rmtree(unfinished, ignore_errors=True)
        Console().print(summary(selection))
        Console().print(f"Written to {output}.", markup=False)
        if push_to_hub is not None:
            _push(selection, push_to_hub, dataset, dataset_name, private=private, overwrite=overwrite)
    state.wait_for_everyone()
    state.destroy_process_group()


@app.command()
@_friendly
def push(
    folder: Annotated[Path, typer.Argument(help="What `sage-hf select` or `Selection.save` wrote.")],
    repository: Annotated[str, typer.Argument(help="Dataset repository: owner/name, or a name of your own.")],
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Of a new repository; as your account has it.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch to push to; made where it is not there.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace other data that is there.")] = False,
    config_name: Annotated[str, typer.Option(help="Configuration of the repository.")] = "default",
    scores_only: Annotated[
        bool, typer.Option("--scores-only", help="Push no rows, but what others need to choose any share of them.")
    ] = False,
    license: Annotated[
        str | None, typer.Option(help="Of what is pushed, such as apache-2.0; the source's by default.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="File, folder or Hub id with the other splits, where they are not known.")
    ] = None,
    source_name: Annotated[str | None, typer.Option(help="The source's configuration on the Hub.")] = None,
    other_splits: Annotated[
        bool, typer.Option("--other-splits/--no-other-splits", help="Whether the source's other splits are pushed.")
    ] = True,
    token: Annotated[
        str | None, typer.Option(help="Of the Hub; better log in, or set HF_TOKEN.", show_default=False)
    ] = None,
) -> None:
    """Push a selection to the Hub: rows, scores, and a card with pictures that tells how they were chosen.

    `sage-hf push imdb-10pct me/imdb-10pct --private`
    """
    from .selection import Selection
    from .selection_folder import read_scores
    from .stream_selection import StreamSelection

    is_stream = read_scores(folder)[1].get("kind") == "stream"
    selection = StreamSelection.load(folder) if is_stream else Selection.load(folder)
    about: dict[str, Any] = {
        "private": private,
        "revision": revision,
        "create_pr": create_pr,
        "overwrite": overwrite,
        "config_name": config_name,
    }
    about |= {"scores_only": scores_only, "license": license, "token": token}
    if not other_splits:
        about["other_splits"] = {}
    _push(selection, repository, source, source_name, **about)


def _push(selection: Any, repository: str, source: str | None, source_name: str | None, **about: Any) -> None:
    """Pushes a selection; where the source's other splits are not known, they are loaded from `source`."""
    from .loading import load_other_splits

    origin = selection.stats["source"]
    if source is not None and (origin["id"] is None or Path(source).exists()) and "other_splits" not in about:
        about["other_splits"] = load_other_splits(source, origin["split"] or "train", source_name)
    done = selection.push_to_hub(repository, **about)
    if done is not None:
        Console().print(f"Pushed: {done.pr_url or done.repo_url}", markup=False)


@app.command()
@_friendly
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the picture and the numbers.")] = Path(
        "out/demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the split, the wrong labels and the random rows.")] = 0,
    trainings: Annotated[int, typer.Option(min=1, help="Trainings of each arm; their mean is shown.")] = 3,
) -> None:
    """Real images, a fifth of the labels wrong: keep 10 %, train, and compare with random rows and all rows.

    Needs no network; takes about a minute on two cores.
    """
    from .demo import run_demo

    console = Console()
    selection, arms = run_demo(output, seed=seed, trainings=trainings, say=lambda line: console.print(line))
    console.print(summary(selection))
    table = Table(title="Test accuracy after the same number of steps", title_justify="left")
    for name, justify in (("trained on", "left"), ("rows", "right"), ("wrong labels", "right"), ("accuracy", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for arm in arms:
        spread = f" ({min(arm.accuracies):.1%} to {max(arm.accuracies):.1%})" if len(arm.accuracies) > 1 else ""
        table.add_row(arm.name, str(arm.rows), str(arm.wrong_labels), f"{arm.mean:.1%}{spread}")
    console.print(table)
    console.print(f"Picture: {output / 'demo.png'}", markup=False)


@app.command()
def env() -> None:
    """Show versions and devices, for a bug report; nothing private is in it."""
    from .environment import describe_environment

    console = Console()
    for name, value in describe_environment().items():
        console.print(f"{name}: {value}", markup=False, highlight=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sage-hf {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of `sage-hf` and `python -m sage_hf`."""
    app()
