"""The shell's `sage-hf compare`: does choosing rows help with this model and these rows?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from ..config import SageConfig
from ..errors import ConfigError, DatasetError
from ..passes.processes import launched
from ..strategies import STRATEGIES
from .options import INPUT, Inputs, friendly, plain, with_options

if TYPE_CHECKING:
    from datasets import Dataset


_TRAINING = "Every training"
_COMPARED = "What is compared"
# All settings but those of a single selection, which a comparison has several of.
_SETTINGS = {each.name for each in fields(SageConfig)} - {"fraction", "num_examples", "strategy"}


class ListsOfWords(TyperCommand):
    """Takes the lists of a comparison with spaces as well as with commas: `--fractions 0.05 0.1`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Joins what follows a list's option, as far as it can belong to it, so that arguments may come after."""
        return super().parse_args(ctx, joined(args))


def joined(words: list[str]) -> list[str]:
    """The words of a shell's line with the lists joined by commas."""
    belongs = {"--fractions": _is_number, "--strategies": _are_strategies}
    made: list[str] = []
    belonging: Callable[[str], bool] | None = None
    for word in words:
        if belonging is not None and belonging(word) and made[-1] not in belongs:
            made[-1] = f"{made[-1].rstrip(',')},{word}"
            continue
        if not (belonging is not None and made[-1] in belongs):  # the first word of a list stands as it is
            belonging = belongs.get(word)
        made.append(word)
    return made


def _is_number(word: str) -> bool:
    try:
        return all(float(part) is not None for part in word.strip(",").split(","))
    except ValueError:
        return False


def _are_strategies(word: str) -> bool:
    return all(part in STRATEGIES for part in word.strip(",").split(","))


@friendly
@functools.partial(with_options, only=_SETTINGS)
def compare(
    fractions: Annotated[
        str, typer.Option(help="Shares of the rows to keep, with spaces or commas.", rich_help_panel=_COMPARED)
    ] = "0.01,0.05,0.1,0.25",
    strategies: Annotated[
        str,
        typer.Option(
            help="Strategies, with spaces or commas; the others are held against random. "
            f"Known: {', '.join(STRATEGIES)}.",
            rich_help_panel=_COMPARED,
        ),
    ] = "auto,agreement,random",
    seeds: Annotated[
        int, typer.Option(help="Trainings of every strategy and share, from --seed on.", rich_help_panel=_COMPARED)
    ] = 5,
    tolerance: Annotated[
        float,
        typer.Option(help="How far from training on all rows still counts as there.", rich_help_panel=_COMPARED),
    ] = 0.01,
    test_split: Annotated[
        str | None, typer.Option(help="Split of the dataset to judge by.", rich_help_panel=INPUT)
    ] = None,
    test_size: Annotated[
        float | None,
        typer.Option(help="Instead: the share of the rows to hold out and judge by.", rich_help_panel=INPUT),
    ] = None,
    max_steps: Annotated[
        int, typer.Option(help="Optimizer steps, as many on few rows as on all.", rich_help_panel=_TRAINING)
    ] = 300,
    learning_rate: Annotated[
        float, typer.Option(help="At the start; it falls linearly to 0.", rich_help_panel=_TRAINING)
    ] = 5e-5,
    train_batch_size: Annotated[int, typer.Option(help="Rows a step and process.", rich_help_panel=_TRAINING)] = 32,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Folder for the trainings, the picture and the card; a killed run goes on from it."
        ),
    ] = Path("out/compare"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete trainings with other settings that are there.")
    ] = False,
    *,
    inputs: Inputs,
    config: SageConfig,
) -> None:
    """Does choosing rows help here? Train on what strategies keep, on random rows and on all, and compare.

    Rows are scored once. Then the checkpoint is trained anew for every strategy, share and seed, each time for as many
    steps, and judged by the test rows: by accuracy where rows have a class, else by the mean loss. A table, a picture
    and a recommendation come out; what is finished stays in the folder, where the same command goes on.

    `sage-hf compare distilbert-base-uncased stanfordnlp/imdb --test-split test --warmup-steps 200 --seeds 3`
    """
    from ..comparison.compare import compare as run

    inputs.check()
    if (test_split is None) == (test_size is None):
        raise ConfigError(
            f"{'Neither' if test_split is None else 'Both'} of --test-split and --test-size was given",
            where="--test-split, --test-size",
            fix="Say which rows to judge by: --test-split test, or --test-size 0.2 to hold a fifth out.",
        )
    shares = [_number(part) for part in fractions.split(",") if part]
    state = launched()
    console = Console(stderr=True, quiet=not state.is_main_process)
    train, test = _load_both(inputs, test_split, test_size, config.seed)
    loaded = inputs.load_model(train, state.device, config.seed, console)
    inputs.warm_up(loaded, train, config, console)
    comparison = run(
        loaded.model,
        train,
        test,
        model_init=lambda seed: inputs.load_again(train, str(next(loaded.model.parameters()).device), seed).model,
        fractions=shares,
        strategies=[part for part in strategies.split(",") if part],
        seeds=seeds,
        processing_class=loaded.processing_class,
        config=config,
        training_args={
            "max_steps": max_steps,
            "learning_rate": learning_rate,
            "per_device_train_batch_size": train_batch_size,
        },
        tolerance=tolerance,
        output_dir=output,
        overwrite_output_dir=overwrite,
    )
    if state.is_main_process:
        Console().print(comparison.table())
        Console().print(plain(comparison.recommendation))
        Console().print(f"Written to {output}.", markup=False)
    state.wait_for_everyone()
    state.destroy_process_group()


def _load_both(inputs: Inputs, test_split: str | None, test_size: float | None, seed: int) -> tuple[Dataset, Dataset]:
    """The rows to choose from, and those to judge by."""
    from ..data.batches import check_dataset
    from .loading import load_rows

    name, revision = inputs.dataset_name, inputs.revision
    rows = check_dataset(load_rows(inputs.dataset, inputs.split, name, revision=revision))
    if test_split is not None:
        if test_split == inputs.split or Path(inputs.dataset).is_file():
            raise DatasetError(
                f"There is no split {test_split!r} besides the training rows",
                where="--test-split",
                fix="Use --test-size 0.2 to hold a fifth of the rows out.",
            )
        return rows, check_dataset(load_rows(inputs.dataset, test_split, name, revision=revision))
    assert test_size is not None
    if not 0.0 < test_size < 1.0:
        raise ConfigError(
            f"test_size is {test_size}", where="--test-size", fix="Give a share of the rows above 0 and below 1."
        )
    if len(rows) < 2:
        raise DatasetError("One row cannot be parted", where="--test-size", fix="Give more rows, or a --test-split.")
    parts = rows.train_test_split(test_size=test_size, seed=seed)
    return parts["train"], parts["test"]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"A fraction is {text!r}", where="--fractions", fix="Give numbers, 0.05 say.") from None
