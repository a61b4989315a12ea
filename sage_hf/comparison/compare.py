"""Does a selection help? Trainings on the rows that strategies keep, on random rows and on all, and what they reach.

    gather      both passes, once                                      -> material
    choose      strategies x fractions x seeds                         -> rows
    train       as many steps each, from the same weights for a seed   -> a line each in the folder
    judge       by the test rows                                       -> Comparison

A finished training is never made twice: what a killed run leaves in its folder is read again.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from accelerate.utils import tqdm
from datasets import Dataset
from datasets.fingerprint import Hasher
from torch import nn

from ..config import SageConfig, check_strategy
from ..data.batches import check_dataset
from ..data.columns import class_column, open_source
from ..data.encoding import Collator
from ..errors import BudgetError, ConfigError, DatasetError, LabelError
from ..gradients.model.state import unwrap
from ..hub.pictures import can_draw
from ..hub.provenance import describe_dataset, describe_model
from ..passes.processes import Processes, launched
from ..selection.choice import needed
from ..selector.gather import shared_choice
from ..selector.selector import SageSelector
from ..strategies import STRATEGIES
from ..utils.files import whole_file
from ..utils.fingerprint import dataset_digest, model_fingerprint, settled
from ..utils.rng import isolated_rng
from .experiment import Trial, complete
from .folder import CellFolder, Key
from .metrics import Accuracy, Metric, is_lower_better
from .picture import PICTURE_NAME, save_picture
from .result import Comparison, judged_by
from .runs import ALL, Cell

logger = logging.getLogger(__name__)

FRACTIONS = (0.01, 0.05, 0.1, 0.25)
COMPARED = ("auto", "agreement", "random")
CARD_NAME = "comparison.md"


def compare(
    model: nn.Module,
    train_dataset: Dataset,
    test_dataset: Dataset,
    *,
    build_model: Callable[[int], nn.Module],
    fractions: Sequence[float] = FRACTIONS,
    strategies: Sequence[str] = COMPARED,
    seeds: int | Sequence[int] = 5,
    processing_class: Any = None,
    data_collator: Collator | None = None,
    config: SageConfig | None = None,
    training: Mapping[str, Any] | None = None,
    metric: Metric | None = None,
    lower_is_better: Iterable[str] = (),
    tolerance: float = 0.01,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Comparison:
    """Trains on what strategies keep, at several shares and with several seeds, and on all rows, and compares.

    Rows are scored once; each strategy then chooses at each share. Every training takes the same number of optimizer
    steps, those on few rows by seeing them more often, and starts for a seed from the same fresh weights. Under
    `accelerate launch`, call it in every process: each training is Trainer's own data-parallel one.

    Args:
        model: What scores the rows, already warmed up; it stays as it is. Trainings run on the CPU where it is there,
            unless `training` says otherwise.
        train_dataset: The rows to choose from.
        test_dataset: The rows to judge by, with the same columns and none of the same rows.
        build_model: seed -> a fresh model to train; called for every training, with the seed set.
        fractions: Shares of the rows to keep, in (0, 1].
        strategies: Names of strategies; with "random" among them, the others are held against it.
        seeds: How many, counted up from `config.seed`, or which. A seed gives weights, order of rows and random rows.
        processing_class: As for `SageSelector`; also encodes the rows to train on and to judge by.
        data_collator: The same.
        config: Settings of the selection; its strategy and budget do not count.
        training: Keywords of `transformers.TrainingArguments`; 300 steps of 32 rows at 5e-5 by default.
        metric: Anything with `compute(predictions=, references=)`, as `evaluate` modules have. By default accuracy
            where rows have a class, else the mean loss of the test rows: each row's own loss, a mean over its tokens,
            and the mean of these, so that it depends on no batch size and a long row counts as much as a short one.
            (Trainer's own `eval_loss` depends on which rows share a batch where their lengths differ.) Predictions are
            the class of the largest logit, [N] or [N, T] for a class a position, unshifted and padded with -100;
            numbers where the labels are numbers. The first number that it computes counts.
        lower_is_better: Names of metrics of which less is better, besides losses, errors and the like.
        tolerance: How far from training on all rows still counts as reaching it, as a share of what that reaches.
        output: Folder for finished trainings, result, picture and card. The same call with the same folder goes on
            where a killed one stopped, and may add strategies, fractions and seeds. None keeps nothing.
        overwrite: Whether trainings with other settings in that folder may be deleted.
        progress: Whether to show progress bars, on the main process.

    Raises:
        ConfigError: An argument is out of range, or a strategy refuses these rows.
        BudgetError: A fraction is out of range.
        DatasetError: A dataset is empty, cannot be encoded, or both are the same.
        LabelError: The test rows have no labels.
        OutputError: The folder holds trainings with other settings, or cannot be written.

    Example:
        >>> comparison = compare(model, train, test, build_model=lambda seed: build(), output="out/compare")
        >>> print(comparison.recommendation)
    """
    config = replace(config or SageConfig(), fraction=None, num_examples=None)
    plan = _plan(fractions, strategies, seeds, config.seed)
    if not 0.0 <= tolerance < 1.0:
        raise ConfigError(f"tolerance is {tolerance}", where="tolerance", fix="Give a share from 0 to below 1.")
    if metric is not None and not callable(getattr(metric, "compute", None)):
        raise ConfigError(
            f"{type(metric).__name__} has no compute",
            where="metric",
            fix="Give an object with compute(predictions=..., references=...), such as evaluate.load gives.",
        )
    given = complete(training, config.batch_size, next(model.parameters()).device.type == "cpu")
    check_rows(check_dataset(train_dataset), check_dataset(test_dataset))
    encoding = (config, processing_class, data_collator)
    column = _find_classes(model, train_dataset, encoding)
    if column is not None and column not in test_dataset.column_names:
        raise LabelError(
            f"The test rows have no column {column!r}, only {test_dataset.column_names}",
            where="test_dataset",
            fix="Give test rows with labels.",
        )
    if metric is None and column is not None:  # not `or`: a module of evaluate that holds no rows yet is false
        metric = Accuracy()
    trial = Trial(build_model, train_dataset, test_dataset, given, metric, *encoding)
    first = trial.fresh(config.seed)
    trial.check(first)
    settings = _settings(model, first, trial)
    del first

    # Where weights are spread over processes, each chooses for itself; trainings are shared all the same.
    everyone, state = Processes(nn.Identity()), launched()
    folder: CellFolder | None = None
    failure: Exception | None = None
    try:
        if output is not None and state.is_main_process:
            folder = CellFolder(Path(output), settings, overwrite)
    except Exception as error:
        failure = error
    everyone.agree(failure)
    done = {cell.key: cell for cell in _cells_from_main(everyone, list(folder.cells.values()) if folder else [])}
    missing = [key for key in plan if key not in done]
    if done:
        logger.info("%d of %d trainings are finished already.", len(plan) - len(missing), len(plan))
    rows = _find_rows(model, trial, [key for key in missing if key[0] != ALL], folder, everyone, output, progress)
    # None would leave it to the terminal; accelerate shows it on the main process alone.
    with tqdm(total=len(plan), initial=len(plan) - len(missing), desc="trainings", disable=not progress) as bar:
        for key in missing:
            strategy, fraction, seed = key
            bar.set_postfix_str(f"{strategy} {100 * fraction:g} % seed {seed}")
            chosen = rows[key] if strategy != ALL else np.arange(len(train_dataset))
            done[key] = _train_one(trial, key, chosen, folder, everyone)
            bar.update()
    cells = [done[key] for key in plan]
    name = judged_by(cells)
    comparison = Comparison(
        cells=cells,
        metric=name,
        lower_is_better=is_lower_better(name, frozenset(lower_is_better)),
        strategies=list(dict.fromkeys(key[0] for key in plan if key[0] != ALL)),
        fractions=sorted({key[1] for key in plan if key[0] != ALL}),
        tolerance=tolerance,
        about=_about(model, trial),
    )
    if folder is not None:
        write_results(comparison, folder.folder)
    everyone.wait()
    return comparison


def check_rows(train: Dataset, test: Dataset) -> None:
    """Refuses test rows that a model was trained on.

    Raises:
        DatasetError: They are the training rows.
    """
    if dataset_digest(train) == dataset_digest(test):
        raise DatasetError(
            "The test rows are the training rows, on which remembering looks like learning",
            where="test_dataset",
            fix="Hold some rows out: dataset.train_test_split(test_size=0.2), or --test-size 0.2 in the shell.",
        )


def write_results(comparison: Comparison, folder: Path) -> None:
    """Writes `comparison.json`, the picture as PNG and SVG where matplotlib is installed, and `comparison.md`.

    Raises:
        OutputError: They cannot be written.
    """
    comparison.save(folder)
    picture = None
    if can_draw():
        save_picture(comparison.plot(), folder)
        picture = f"{PICTURE_NAME}.png"
    with whole_file(folder / CARD_NAME, "Choose a folder that can be written to.") as part:
        part.write_text(comparison.card(picture), encoding="utf-8")


# ------------------------------------------------------------------------- plan
def _plan(
    fractions: Sequence[float] | float, strategies: Sequence[str], seeds: int | Sequence[int], first_seed: int
) -> list[Key]:
    """All trainings in their order, seed by seed, so that what a killed run leaves is whole seeds and one part."""
    strategies = [strategies] if isinstance(strategies, str) else list(dict.fromkeys(strategies))
    if not strategies:
        raise ConfigError("No strategy is named", where="strategies", fix=f"Use some of {list(STRATEGIES)}.")
    for strategy in strategies:
        check_strategy(strategy, [name for name in STRATEGIES if name != ALL])
    given = [fractions] if isinstance(fractions, (int, float)) else fractions
    shares = sorted({_fraction(fraction) for fraction in given})
    if not shares:
        raise BudgetError("No fraction is given", where="fractions", fix="Give shares such as 0.05 and 0.1.")
    if not isinstance(seeds, Sequence):
        if seeds < 1:
            raise ConfigError(f"seeds is {seeds}", where="seeds", fix="Train with at least one seed.")
        numbers = list(range(first_seed, first_seed + seeds))
    else:
        numbers = list(dict.fromkeys(int(seed) for seed in seeds))
    if not numbers or min(numbers) < 0 or max(numbers) >= 2**32:
        raise ConfigError(f"seeds is {seeds!r}", where="seeds", fix="Give a number of seeds, or seeds from 0.")
    arms = [(ALL, 1.0), *((strategy, share) for share in shares for strategy in strategies)]
    return [(strategy, share, seed) for seed in numbers for strategy, share in arms]


def _fraction(value: Any) -> float:
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = -1.0
    if not 0.0 < share <= 1.0:
        raise BudgetError(
            f"A fraction is {value!r}", where="fractions", fix="Give shares of the rows, above 0 and at most 1."
        )
    return share


def _find_classes(model: nn.Module, train: Dataset, encoding: tuple[SageConfig, Any, Any]) -> str | None:
    """The column of classes that the model learns to tell; None where it learns something else, such as language."""
    config, processing_class, data_collator = encoding
    model = unwrap(model)
    with isolated_rng(config.seed):
        encoder = open_source(model, train, config, processing_class, data_collator).encoder
    return None if getattr(encoder, "causal_lm", False) else class_column(train.features, model)


def _settings(model: nn.Module, first: nn.Module, trial: Trial) -> dict[str, Any]:
    """All that every training depends on besides strategy, share and seed, JSON-ready."""
    free = ("fraction", "num_examples", "strategy", "num_workers", "cache_gradients", "check_gradients")
    metric = type(trial.metric)
    return {
        "scoring_model": model_fingerprint(model),
        # By what it builds: the function itself may be a lambda, whose text says little.
        "fresh_model": model_fingerprint(first),
        "train_rows": dataset_digest(trial.train),
        "test_rows": dataset_digest(trial.test),
        "config": {name: value for name, value in trial.config.to_dict().items() if name not in free},
        "training": {name: _plain(value) for name, value in trial.training.items()},
        "metric": getattr(trial.metric, "name", None) or f"{metric.__module__}.{metric.__qualname__}",
        "processing_class": _print_of(trial.processing_class),
        "data_collator": _print_of(trial.data_collator),
        "processes": launched().num_processes,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def _print_of(thing: Any) -> str | None:
    """Tells a tokenizer, processor or collator from another; only by its type where it cannot be pickled."""
    if thing is None:
        return None
    try:
        return Hasher.hash(settled(thing))
    except Exception:  # whatever a pickle of something unknown raises
        return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _plain(value: Any) -> Any:
    """A value of TrainingArguments as JSON can hold it."""
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def _about(model: nn.Module, trial: Trial) -> dict[str, Any]:
    """What the card tells, as text; no place on this machine is named."""
    source, scorer = describe_dataset(trial.train), describe_model(model)
    changed = {name: value for name, value in trial.config.to_dict().items() if value != getattr(SageConfig(), name)}
    chosen = {name: value for name, value in changed.items() if name not in ("strategy", "seed")}
    judged = "each test row's own loss, averaged" if trial.metric is None else "predictions of the test rows"
    return {
        "rows": f"{len(trial.train):,} of {source['id'] or source['name'] or 'a dataset made in memory'}",
        "test rows": f"{len(trial.test):,}; judged by {judged}",
        "model that scored": f"{scorer['id'] or scorer['class']}, weights {model_fingerprint(model)}",
        "training": ", ".join(f"{name}={_plain(value)}" for name, value in trial.training.items()),
        "selection": ", ".join(f"{name}={value}" for name, value in chosen.items()) or "default settings",
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
    }


# ------------------------------------------------------------------------- rows
def _find_rows(
    model: nn.Module,
    trial: Trial,
    keys: list[Key],
    folder: CellFolder | None,
    everyone: Processes,
    output: str | os.PathLike[str] | None,
    progress: bool,
) -> dict[Key, npt.NDArray[np.int64]]:
    """The chosen rows of trainings, the same in every process: as they were kept, or by both passes."""
    kept = folder.read_rows() if folder is not None else {}
    has_all = everyone.array_from_main(np.array([all(key in kept for key in keys)], dtype=np.int64))
    if has_all[0]:
        none = np.zeros(0, dtype=np.int64)
        return {key: everyone.array_from_main(kept.get(key, none)) for key in keys}
    config = trial.config
    unfinished = Path(output) / ".passes" if output is not None else None  # a killed pass goes on from it
    selector = SageSelector(
        model,
        processing_class=trial.processing_class,
        data_collator=trial.data_collator,
        config=config,
        progress=progress,
        checkpoint_dir=unfinished,
    )
    needs = frozenset[str]().union(*(needed(replace(config, strategy=strategy)) for strategy, _, _ in keys))
    material = selector.gather(trial.train, needs)
    processes, found = Processes(model), {}
    for strategy, fraction, seed in keys:
        try:
            own = replace(config, strategy=strategy, fraction=fraction, seed=seed)
            found[strategy, fraction, seed], _ = shared_choice(own, material, processes)
        except ConfigError as error:
            raise ConfigError(
                f"The strategy {strategy!r} cannot choose from these rows: {error.what}",
                where="strategies",
                fix=f"Leave it out. {error.fix}",
            ) from error
    if folder is not None:
        folder.write_rows({**kept, **found})
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
    return found


def _train_one(
    trial: Trial, key: Key, rows: npt.NDArray[np.int64], folder: CellFolder | None, everyone: Processes
) -> Cell:
    """One finished training, noted on the disk by the main process, told to all."""
    strategy, fraction, seed = key
    predictions, references = trial.run(rows, seed)
    cells: list[Cell] = []
    failure: Exception | None = None
    try:
        if everyone.rank == 0:
            cells = [Cell(strategy, fraction, seed, len(rows), trial.judge(predictions, references))]
            if folder is not None:
                folder.add(cells[0])
    except Exception as error:
        failure = error
    everyone.agree(failure)
    return _cells_from_main(everyone, cells)[0]


def _cells_from_main(everyone: Processes, cells: list[Cell]) -> list[Cell]:
    """The main process's trainings, in every process."""
    return [Cell(**told) for told in everyone.broadcast_object([vars(cell) for cell in cells])]
