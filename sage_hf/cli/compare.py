"""The shell's `sage-hf compare`: does choosing rows help with this model and these rows?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

from ..config import STRATEGY_LINES, SageConfig
from ..errors import ConfigError, DatasetError
from ..utils.bars import stage
from .options import INPUT, LOADING, Inputs, main_console, option
from .output import is_quiet
from .wording import number_rows

if TYPE_CHECKING:
    from datasets import Dataset

_TRAINING = "Every training"
_COMPARED = "What is compared"


class ListsOfWords(TyperCommand):
    """Takes the lists of a comparison with spaces as well as with commas: `--fractions 0.05 0.1`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Joins what follows a list's option, as far as it can belong to it, so that arguments may come after."""
        return super().parse_args(ctx, joined(args))


def joined(words: list[str]) -> list[str]:
    """The words of a shell's line with the lists joined by commas."""
    belongs = {"--fractions": _is_number, "--strategies": _are_strategies}
    made: list[str] = []
    belonging = None
    rest = iter(words)
    for word in rest:
        if belonging is not None and belonging(word):
            made[-1] = f"{made[-1].rstrip(',')},{word}"
            continue
        made.append(word)
        belonging = belongs.get(word)
        if belonging is not None:  # the first word of a list stands as it is
            made += islice(rest, 1)
    return made


def _is_number(word: str) -> bool:
    try:
        return all(float(part) is not None for part in word.strip(",").split(","))
    except ValueError:
        return False


def _are_strategies(word: str) -> bool:
    return all(part in STRATEGY_LINES for part in word.strip(",").split(","))


@dataclass(frozen=True)
class CompareOptions:
    """See their help."""

    fractions: str = option(
        "0.01,0.05,0.1,0.25", "Shares of the rows to keep, separated by spaces or commas.", _COMPARED
    )
    strategies: str = option(
        "auto,agreement,random",
        f"Strategies, with spaces or commas; each is compared with random. Known: {', '.join(STRATEGY_LINES)}.",
        _COMPARED,
    )
    seeds: int = option(5, "Number of seeds, from --seed on: trainings of every strategy at every share.", _COMPARED)
    tolerance: float = option(
        0.01, "Share by which a result may miss training on all rows and still count as equal.", _COMPARED
    )
    test_split: str | None = option(None, "Split of the dataset to judge by.", INPUT)
    test_size: float | None = option(None, "Share of the rows to hold out and judge by, instead of a split.", INPUT)
    max_steps: int = option(300, "Optimizer steps, the same number on few rows as on all.", _TRAINING)
    learning_rate: float = option(5e-5, "Learning rate at the start; it falls linearly to 0.", _TRAINING)
    train_batch_size: int = option(32, "Rows a step in each process.", _TRAINING)
    output: Path = option(
        Path("out/compare"),
        "Folder for trainings, picture and card; an interrupted run continues from it.",
        flags="--output -o",
    )
    overwrite: bool = option(False, "Delete existing trainings that had other settings.")


def compare(options: CompareOptions, inputs: Inputs, config: SageConfig) -> None:
    """Does choosing rows help here? Train on what strategies keep, on random rows and on all, and compare.

    Rows are scored once. Then the checkpoint is trained anew for every strategy, share and seed, each time for the
    same number of steps, and judged on the test rows: by accuracy where rows have a class, else by the mean loss. The
    result is a table, a picture and a recommendation. Finished trainings stay in the folder, so that the same command
    can continue from them.

    `sage-hf compare distilbert-base-uncased stanfordnlp/imdb --test-split test --warmup-steps 200 --seeds 3`
    """
    if (options.test_split is None) == (options.test_size is None):
        raise ConfigError(
            f"{'Neither' if options.test_split is None else 'Both'} of --test-split and --test-size was given",
            where="--test-split, --test-size",
            fix="Say which rows to judge by: --test-split test, or --test-size 0.2 to hold a fifth out.",
        )
    shares = [part for part in options.fractions.split(",") if part]
    if wrong := [part for part in shares if not _is_number(part)]:
        raise ConfigError(f"A fraction is {wrong[0]!r}", where="--fractions", fix="Give numbers such as 0.05.")
    from ..comparison.compare import compare as run

    with stage(LOADING):
        train, test = _load_both(inputs, options, config)
        loaded = inputs.load_model(train, config.seed)
    inputs.warm_up(loaded, train, config)
    comparison = run(
        loaded.model,
        train,
        test,
        model_init=lambda seed: inputs.load_model(train, seed, quiet=True).model,
        fractions=[float(share) for share in shares],
        strategies=[part for part in options.strategies.split(",") if part],
        seeds=options.seeds,
        processing_class=loaded.processing_class,
        config=config,
        training_args={
            "max_steps": options.max_steps,
            "learning_rate": options.learning_rate,
            "per_device_train_batch_size": options.train_batch_size,
        },
        tolerance=options.tolerance,
        output_dir=options.output,
        overwrite_output_dir=options.overwrite,
    )
    console = main_console(stderr=False)
    if not is_quiet():
        console.print(comparison.table())
    console.print(comparison.recommendation, markup=False)
    console.print(f"Written to {options.output}.", markup=False, soft_wrap=True)


def _load_both(inputs: Inputs, options: CompareOptions, config: SageConfig) -> tuple[Dataset, Dataset]:
    """The rows to choose from, and those to judge by."""
    from ..data.batches import check_dataset

    test_split, test_size = options.test_split, options.test_size
    rows = check_dataset(inputs.load_rows(config))
    if Path(inputs.dataset).expanduser().exists():  # the card says so
        rows.info.dataset_name = Path(inputs.dataset).name
    if test_split is not None:
        if test_split == inputs.split or Path(inputs.dataset).is_file():
            raise DatasetError(
                f"There is no split {test_split!r} besides the training rows",
                where="--test-split",
                fix="Use --test-size 0.2 to hold a fifth of the rows out.",
            )
        return rows, check_dataset(inputs.load_rows(config, test_split))
    assert test_size is not None
    if not 0.0 < test_size < 1.0:
        raise ConfigError(
            f"test_size is {test_size}", where="--test-size", fix="Give a share of the rows above 0 and below 1."
        )
    if len(rows) < 2:
        raise DatasetError(
            "One row cannot be divided into training and test rows",
            where="--test-size",
            fix="Give more rows, or a --test-split.",
        )
    number_rows(None)  # they are drawn at random
    parts = rows.train_test_split(test_size=test_size, seed=config.seed)
    return parts["train"], parts["test"]
