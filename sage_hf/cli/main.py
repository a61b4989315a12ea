"""The shell: `sage-hf doctor`, `select`, `compare`, `push`, `demo` and `env`.

Exit codes: 0 done, 1 an error with a message, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .. import __version__
from ..config import SageConfig
from ..errors import ConfigError
from ..passes.processes import launched
from ..selection.report import summary
from ..selector.brief import printing
from .compare import ListsOfWords, compare
from .doctor import doctor
from .options import INPUT, Inputs, friendly, load_targets, plain, with_options
from .reproduce import select_command

if TYPE_CHECKING:
    from ..selection.selection import Selection
    from ..selection.stream_selection import StreamSelection

app = typer.Typer(
    name="sage-hf",
    help="Keep the rows of a dataset whose gradients agree: a model and a dataset go in, a smaller dataset comes out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

_HUB = "On the Hub"
_AIM = "Towards a target, and by several checkpoints"
# Settings that rows are read with, where no gradient is taken.
_ENCODING = ("batch_size", "num_workers", "text_columns", "max_length", "seed")


app.command()(doctor)


@app.command()
@friendly
@with_options
def select(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the kept rows, the scores and the settings.")
    ],
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where --cache-gradients keeps rows; with datasets' own caches by default.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a selection that is there, on the Hub, too.")
    ] = False,
    streaming: Annotated[
        bool,
        typer.Option(
            "--streaming", help="Read rows as they are needed, of any number of them.", rich_help_panel=INPUT
        ),
    ] = False,
    target: Annotated[
        str | None,
        typer.Option(
            help="File, folder or Hub id of a few rows of what the model is to be good at; several with commas.",
            rich_help_panel=_AIM,
        ),
    ] = None,
    target_shares: Annotated[
        str | None, typer.Option(help="Of several targets, how much of the budget each gets.", rich_help_panel=_AIM)
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            help="Earlier checkpoints of the same training, with commas: scores are the mean over these and MODEL.",
            rich_help_panel=_AIM,
        ),
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(help="Dataset repository for the result; `sage-hf push` can do more.", rich_help_panel=_HUB),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Of a new repository; as your account has it.", rich_help_panel=_HUB),
    ] = None,
    *,
    inputs: Inputs,
    config: SageConfig,
) -> None:
    """Choose rows of a dataset and write them to a folder.

    The folder opens with `datasets.load_from_disk`; `sage_hf.Selection.load_from_disk` gives every row's score, too.

    `sage-hf select distilbert-base-uncased stanfordnlp/imdb --fraction 0.1 --warmup-steps 200 -o imdb-10pct`
    """
    from datasets import Dataset

    from ..hub.files import check_output
    from ..hub.provenance import describe_origin
    from ..hub.push import check_push
    from ..selector.selector import SageSelector
    from ..selector.several_models import select_over_checkpoints
    from ..strategies.quotas import resolve_budget
    from .loading import load_rows

    check_output(output, overwrite)
    inputs.check()
    state = launched()
    console = Console(stderr=True, quiet=not state.is_main_process)
    rows = load_rows(inputs.dataset, inputs.split, inputs.dataset_name, streaming, inputs.revision)
    resolve_budget(2**62 if streaming else len(rows), config.fraction, config.num_examples)
    if streaming and inputs.warms_up:
        raise ConfigError(
            "A warm-up draws rows at random, which a stream cannot give",
            where="--streaming",
            fix="Name a checkpoint that was trained on the task, or read without --streaming.",
        )
    if streaming and (target or checkpoints):
        raise ConfigError(
            "A stream has neither target nor several checkpoints yet",
            where="--streaming",
            fix="Read without --streaming.",
        )
    aims = load_targets(target, target_shares, inputs)
    if push_to_hub is not None and state.is_main_process:
        check_push(push_to_hub, describe_origin(rows), overwrite=overwrite)
    loaded = inputs.load_model(rows, state.device, config.seed, console)
    inputs.warm_up(loaded, rows, config, console)
    # Beside the output, so that it is on the same disk; a run that was killed goes on from it.
    place = output.absolute()
    unfinished = place.with_name(f".{place.name}-unfinished")
    if state.is_main_process and unfinished.exists():
        console.print(f"Going on from {plain(str(unfinished))}, where it fits.")
    about: dict[str, Any] = {"processing_class": loaded.processing_class, "config": config}
    about |= {"cache_dir": cache_dir, "checkpoint_dir": unfinished}
    selection: Selection | StreamSelection
    with printing(console):
        if isinstance(rows, Dataset):
            models = [*inputs.load_earlier(checkpoints, rows, state.device, config.seed), loaded.model]
            selection = select_over_checkpoints(models, rows, **aims, **about)
        else:
            selection = SageSelector(loaded.model, **about).select(rows)
    options = {
        "dataset_name": inputs.dataset_name,
        "split": inputs.split if inputs.split != "train" else None,
        "task": inputs.task,
        "streaming": streaming,
        "target": target,
        "target_shares": target_shares,
        "checkpoints": checkpoints,
        "dtype": inputs.dtype if inputs.dtype != "auto" else None,
        "warmup_steps": inputs.warmup_steps,
        "warmup_fraction": inputs.warmup_fraction,
        "warmup_learning_rate": inputs.warmup_learning_rate if inputs.warms_up else None,
        "revision": selection.stats.source["revision"] or inputs.revision,
        "model_revision": loaded.revision,
    }
    if selection.stats.source["id"] is None:
        selection.stats.source["name"] = Path(inputs.dataset).name
    if loaded.revision is not None:
        selection.stats.model |= {"id": inputs.model, "revision": loaded.revision}
    selection.stats.command = select_command(inputs.model, inputs.dataset, output.name, options, config)
    if state.is_main_process:
        selection.save_to_disk(output, overwrite=overwrite)
        shutil.rmtree(unfinished, ignore_errors=True)
        Console().print(summary(selection))
        Console().print(f"Written to {output}.", markup=False)
        if push_to_hub is not None:
            _push(selection, push_to_hub, inputs.dataset, inputs.dataset_name, private=private, overwrite=overwrite)
    state.wait_for_everyone()
    state.destroy_process_group()


@app.command()
@friendly
@functools.partial(with_options, only=_ENCODING)
def label_issues(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for all label issues: .csv, .jsonl or .parquet.")
    ] = None,
    most: Annotated[int, typer.Option(min=0, help="How many to show, the most doubted first.")] = 20,
    *,
    inputs: Inputs,
    config: SageConfig,
) -> None:
    """List the rows whose class label is likely wrong, with the class that they rather look like.

    Takes one forward pass of a model that was trained on these labels for a little, and no gradients. Not every
    label issue is an error: on hard data many are only unusual. The most doubted come first.

    `sage-hf label-issues distilbert-base-uncased reviews.jsonl --warmup-steps 200 -o label_issues.csv`
    """
    from datasets import Dataset

    from ..selector.label_issues import find_label_issues
    from .loading import load_rows

    inputs.check()
    state = launched()
    console = Console(stderr=True, quiet=not state.is_main_process)
    rows = load_rows(inputs.dataset, inputs.split, inputs.dataset_name, False, inputs.revision)
    assert isinstance(rows, Dataset)
    loaded = inputs.load_model(rows, state.device, config.seed, console)
    inputs.warm_up(loaded, rows, config, console)
    found = find_label_issues(loaded.model, rows, processing_class=loaded.processing_class, config=config)
    if state.is_main_process:
        Console().print(found.table(most))
        if output is not None:
            Console().print(f"Written to {found.save(output)}.", markup=False)
    state.wait_for_everyone()
    state.destroy_process_group()


@app.command()
@friendly
def push(
    folder: Annotated[Path, typer.Argument(help="What `sage-hf select` or `Selection.save_to_disk` wrote.")],
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
    from ..hub.files import read_scores
    from ..selection.selection import Selection
    from ..selection.stream_selection import StreamSelection

    is_stream = read_scores(folder)[1].get("kind") == "stream"
    selection = StreamSelection.load_from_disk(folder) if is_stream else Selection.load_from_disk(folder)
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

    origin = selection.stats.source
    if source is not None and (origin["id"] is None or Path(source).exists()) and "other_splits" not in about:
        about["other_splits"] = load_other_splits(source, origin["split"] or "train", source_name)
    done = selection.push_to_hub(repository, **about)
    if done is not None:
        Console().print(f"Pushed: {done.pr_url or done.repo_url}", markup=False)


@app.command()
@friendly
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
    from ..demo import run_demo

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


app.command(cls=ListsOfWords)(compare)


@app.command()
def env() -> None:
    """Show versions and devices, for a bug report; nothing private is in it."""
    from ..utils.environment import describe_environment

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
