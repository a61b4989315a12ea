"""Does a selection help? Trainings on the rows that strategies keep, on random rows and on all, and what they reach.

    gather      both passes, once                                      -> signals
    choose      strategies x fractions x seeds                         -> rows
    train       as many steps each, from the same weights for a seed   -> a line each in the folder
    judge       by the test rows                                       -> Comparison

A finished training is never made twice: what a killed run leaves in its folder is read again.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from datasets import Dataset
from datasets.fingerprint import Hasher
from torch import nn

from ..config import SageConfig, check_strategy
from ..data.batches import check_dataset
from ..data.columns import class_column
from ..data.encoding import Collator
from ..errors import BudgetError, ConfigError, DatasetError, LabelError
from ..gradients.model.state import check_model, num_weights, unwrap
from ..hub.pictures import can_draw
from ..hub.provenance import describe_dataset, describe_model
from ..passes.processes import Processes, launched
from ..selection.choice import needed
from ..selector.gather import shared_choice
from ..selector.selector import SageSelector
from ..selector.stages import CHOOSING, fit_stages
from ..strategies import STRATEGIES
from ..utils.bars import planned, stage
from ..utils.deprecation import renamed_arguments
from ..utils.files import whole_file
from ..utils.fingerprint import dataset_digest, model_fingerprint, settled
from ..utils.given import given_config
from ..utils.interruption import told_if_interrupted
from ..utils.rng import isolated_rng
from .experiment import Experiment, complete
from .folder import RunFolder
from .metrics import Accuracy, Metric, guessing, is_greater_better
from .picture import save_picture
from .result import Comparison
from .runs import ALL, Key, Run

logger = logging.getLogger(__name__)

FRACTIONS = (0.01, 0.05, 0.1, 0.25)
COMPARED = ("auto", "agreement", "random")
CARD_NAME = "comparison.md"
# Where a killed pass goes on from, in the folder of a comparison.
_PASSES = ".passes"
_TRAINING = "trainings"


def _greater_is_better(lower_is_better: Any) -> Any:
    """What `lower_is_better` said, a truth value or names of metrics, as `greater_is_better`."""
    if lower_is_better is None or isinstance(lower_is_better, bool):
        return None if lower_is_better is None else not lower_is_better
    names = frozenset(lower_is_better)
    return lambda metric: metric not in names and is_greater_better(metric)


@renamed_arguments(
    build_model="model_init",
    test_dataset="eval_dataset",
    training="training_args",
    lower_is_better=("greater_is_better", _greater_is_better),
    output="output_dir",
    overwrite="overwrite_output_dir",
)
def compare(
    model: nn.Module,
    train_dataset: Dataset,
    eval_dataset: Dataset,
    *,
    model_init: Callable[[int], nn.Module],
    fractions: Sequence[float] = FRACTIONS,
    strategies: Sequence[str] = COMPARED,
    seeds: int | Sequence[int] = 5,
    processing_class: Any = None,
    data_collator: Collator | None = None,
    config: SageConfig | None = None,
    training_args: Mapping[str, Any] | None = None,
    metric: Metric | None = None,
    greater_is_better: bool | None = None,
    tolerance: float = 0.01,
    output_dir: str | os.PathLike[str] | None = None,
    overwrite_output_dir: bool = False,
    progress: bool = True,
) -> Comparison:
    """Trains on what strategies keep, at several shares and with several seeds, and on all rows, and compares.

    Rows are scored once; each strategy then chooses at each share. Every training takes the same number of optimizer
    steps, those on few rows by seeing them more often, and starts for a seed from the same fresh weights. Under
    `accelerate launch`, call it in every process: each training is Trainer's own data-parallel one.

    Args:
        model: What scores the rows, already warmed up; it stays as it is. Trainings run on the CPU where it is there,
            unless `training_args` say otherwise.
        train_dataset: The rows to choose from.
        eval_dataset: The rows to judge by, with the same columns and none of the same rows.
        model_init: seed -> a fresh model to train; called for every training, with the seed set.
        fractions: Shares of the rows to keep, in (0, 1].
        strategies: Names of strategies; with "random" among them, the others are held against it.
        seeds: How many, counted up from `config.seed`, or which. A seed gives weights, order of rows and random rows.
        processing_class: As for `SageSelector`; also encodes the rows to train on and to judge by.
        data_collator: The same.
        config: Settings of the selection; its strategy and budget do not count.
        training_args: Keywords of `transformers.TrainingArguments`; 300 steps of 32 rows at 5e-5 by default.
        metric: Anything with `compute(predictions=, references=)`, as `evaluate` modules have. By default accuracy
            where rows have a class, else the mean loss of the test rows: each row's own loss, a mean over its tokens,
            and the mean of these, so that it depends on no batch size and a long row counts as much as a short one.
            (Trainer's own `eval_loss` depends on which rows share a batch where their lengths differ.) Predictions are
            the class of the largest logit, [N] or [N, T] for a class a position, unshifted and padded with -100;
            numbers where the labels are numbers. The first number that it computes counts.
        greater_is_better: Whether more of the metric is better; by default its name tells: less is of losses, errors
            and the like.
        tolerance: How far from training on all rows still counts as reaching it, as a share of what that reaches.
        output_dir: Folder for finished trainings, result, picture and card. The same call with the same folder goes on
            where a killed one stopped, and may add strategies, fractions and seeds. None keeps nothing.
        overwrite_output_dir: Whether trainings with other settings in that folder may be deleted.
        progress: Whether to show progress, on the main process.

    Raises:
        ConfigError: An argument is out of range, or a strategy refuses these rows.
        BudgetError: A fraction is out of range.
        DatasetError: A dataset is empty, cannot be encoded, or both are the same.
        LabelError: The test rows have no labels.
        OutputError: The folder holds trainings with other settings, is used by another run, or cannot be written.

    Example:
        >>> comparison = compare(model, train, test, model_init=lambda seed: build(), output_dir="out/compare")
        >>> print(comparison.recommendation)
    """
    check_model(model)
    config = replace(given_config(config), fraction=None, num_examples=None)
    plan = _plan(fractions, strategies, seeds, config.seed)
    if not 0.0 <= tolerance < 1.0:
        raise ConfigError(f"tolerance is {tolerance}", where="tolerance", fix="Give a share from 0 to below 1.")
    direction = is_greater_better if greater_is_better is None else greater_is_better
    if not isinstance(direction, bool) and not callable(direction):
        raise ConfigError(
            f"greater_is_better is {direction!r}", where="greater_is_better", fix="Give True, False or None."
        )
    if metric is not None and not callable(getattr(metric, "compute", None)):
        raise ConfigError(
            f"{type(metric).__name__} has no compute", where="metric", fix="Give a metric as evaluate.load does."
        )
    arguments = complete(
        training_args,
        config.batch_size_for(num_weights(model)),
        next(model.parameters()).device.type == "cpu",
    )
    check_dataset(train_dataset)
    check_dataset(eval_dataset)
    if dataset_digest(train_dataset) == dataset_digest(eval_dataset):
        raise DatasetError(
            "The test rows are the training rows, so memorising would look like learning",
            where="eval_dataset",
            fix="Hold some rows out: dataset.train_test_split(test_size=0.2), or --test-size 0.2 in the shell.",
        )
    experiment = Experiment(
        model_init, train_dataset, eval_dataset, arguments, metric, config, processing_class, data_collator
    )
    column = _find_classes(model, experiment)
    if column is not None and column not in eval_dataset.column_names:
        raise LabelError(
            f"The test rows have no column {column!r}, only {eval_dataset.column_names}",
            where="eval_dataset",
            fix="Give test rows with labels.",
        )
    if metric is None and column is not None:  # not `or`: a module of evaluate that holds no rows yet is false
        experiment = replace(experiment, metric=Accuracy())
    first = experiment.fresh(config.seed)
    experiment.check(first)
    settings = _settings(model, first, experiment)
    del first

    # Where weights are spread over processes, each chooses for itself; trainings are shared all the same.
    everyone = Processes(nn.Identity())
    folder: RunFolder | None = None
    with everyone.agreed():
        if output_dir is not None and everyone.rank == 0:
            folder = RunFolder(Path(output_dir), settings, overwrite_output_dir)
    with nullcontext() if folder is None else closing(folder):
        done = {run.key: run for run in _runs_from_main(everyone, list(folder.runs.values()) if folder else [])}
        missing = [key for key in plan if key not in done]
        if done:
            logger.info("%d of %d trainings are finished already.", len(plan) - len(missing), len(plan))
        selector = SageSelector(
            model,
            processing_class=processing_class,
            data_collator=data_collator,
            config=config,
            progress=progress,
            resume_dir=Path(output_dir) / _PASSES if output_dir is not None else None,
        )
        kept = folder.read_rows() if folder is not None else {}
        wanted = [key for key in missing if key[0] != ALL]
        is_known = bool(everyone.array_from_main(np.array([all(key in kept for key in wanted)], dtype=np.int64))[0])
        stages = [] if is_known else [*fit_stages(config, _needed(config, wanted)), CHOOSING]

        def about_interruption() -> str:
            if folder is None:
                return (
                    "Nothing is kept. With output_dir= (a folder), the same call would go on from the last training."
                )
            count = len(plan) - len(missing) + sum(key in done for key in missing)
            return f"{count} of {len(plan)} trainings are kept in {output_dir}. The same call goes on from there."

        with planned([*stages, _TRAINING], shown=progress), told_if_interrupted(about_interruption):
            if is_known:
                none = np.zeros(0, dtype=np.int64)
                rows = {key: everyone.array_from_main(kept.get(key, none)) for key in wanted}
            else:
                rows = _find_rows(selector, train_dataset, wanted, folder, kept)
            with stage(_TRAINING, len(plan), "trainings", shown=progress) as line:
                line.skip(len(plan) - len(missing))
                for key in missing:
                    strategy, fraction, seed = key
                    line.note(f"{strategy} {100 * fraction:g} % seed {seed}")
                    chosen = rows[key] if strategy != ALL else np.arange(len(train_dataset))
                    done[key] = _train_one(experiment, key, chosen, folder, everyone)
                    line.update()
        runs = [done[key] for key in plan]
        name = next(iter(runs[0].metrics))  # the first number that a metric computes counts
        comparison = Comparison(
            runs=runs,
            metric=name,
            greater_is_better=direction(name) if callable(direction) else direction,
            strategies=list(dict.fromkeys(key[0] for key in plan if key[0] != ALL)),
            fractions=sorted({key[1] for key in plan if key[0] != ALL}),
            tolerance=tolerance,
            settings=_card_settings(model, experiment, settings),
            guessing=guessing(experiment.metric, _classes_of(eval_dataset, column)),
            eval_rows=len(eval_dataset),
        )
        if folder is not None:
            comparison.save(folder.folder)
            picture = save_picture(comparison.plot(), folder.folder)[0].name if can_draw() else None
            with whole_file(folder.folder / CARD_NAME, "Choose a folder that can be written to.") as part:
                part.write_text(comparison.card(picture), encoding="utf-8")
        everyone.wait()
        return comparison


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
    shares = [fractions] if isinstance(fractions, (int, float)) else list(fractions)
    if not shares:
        raise BudgetError("No fraction is given", where="fractions", fix="Give shares such as 0.05 and 0.1.")
    for share in shares:
        if not isinstance(share, Real) or not 0.0 < share <= 1.0:
            raise BudgetError(
                f"A fraction is {share!r}", where="fractions", fix="Give shares of the rows, above 0 and at most 1."
            )
    if not isinstance(seeds, Sequence):
        if seeds < 1:
            raise ConfigError(f"seeds is {seeds}", where="seeds", fix="Train with at least one seed.")
        numbers = list(range(first_seed, first_seed + seeds))
    else:
        numbers = list(dict.fromkeys(int(seed) for seed in seeds))
    if not numbers or min(numbers) < 0 or max(numbers) >= 2**32:
        raise ConfigError(f"seeds is {seeds!r}", where="seeds", fix="Give a number of seeds, or seeds from 0.")
    shares = sorted(set(map(float, shares)))
    groups = [(ALL, 1.0), *((strategy, share) for share in shares for strategy in strategies)]
    return [(strategy, share, seed) for seed in numbers for strategy, share in groups]


def _find_classes(model: nn.Module, experiment: Experiment) -> str | None:
    """The column of classes that the model learns to tell; None where it learns something else, such as language."""
    model, rows = unwrap(model), experiment.train_dataset
    with isolated_rng(experiment.config.seed):
        encoder = experiment.open(model, rows).encoder
    return None if getattr(encoder, "causal_lm", False) else class_column(rows.features, model)


def _classes_of(dataset: Dataset, column: str | None) -> npt.NDArray[np.integer[Any]]:
    """[N] the classes of rows as numbers; none where there is no such column."""
    values = [] if column is None else dataset.with_format(None)[column][:]
    if all(isinstance(value, int) for value in values):
        return np.array(values, dtype=np.int64)
    return np.unique(np.array(values, dtype=np.str_), return_inverse=True)[1]


def _settings(model: nn.Module, first: nn.Module, experiment: Experiment) -> dict[str, Any]:
    """All that every training depends on besides strategy, share and seed, JSON-ready."""
    free = ("fraction", "num_examples", "strategy", "num_workers", "cache_gradients", "check_gradients")
    metric = type(experiment.metric)
    return {
        "scoring_model": model_fingerprint(model),
        # What it builds tells it from others: the function itself may be a lambda, whose text says little.
        "fresh_model": model_fingerprint(first),
        "train_rows": dataset_digest(experiment.train_dataset),
        "test_rows": dataset_digest(experiment.eval_dataset),
        "config": {name: value for name, value in experiment.config.to_dict().items() if name not in free},
        "training": {
            name: value if value is None or isinstance(value, (int, float, str)) else str(value)
            for name, value in experiment.training_args.items()
            if not name.endswith("token")  # which changes no training, and is nobody else's
        },
        "metric": getattr(experiment.metric, "name", None) or f"{metric.__module__}.{metric.__qualname__}",
        "processing_class": _print_of(experiment.processing_class),
        "data_collator": _print_of(experiment.data_collator),
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


def _card_settings(model: nn.Module, experiment: Experiment, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the card tells, as text; no place on this machine is named."""
    train, source, scorer = experiment.train_dataset, describe_dataset(experiment.train_dataset), describe_model(model)
    default = {**SageConfig().to_dict(), "strategy": experiment.config.strategy, "seed": experiment.config.seed}
    changed = {name: value for name, value in experiment.config.to_dict().items() if value != default[name]}
    judge = "each test row's own loss, averaged" if experiment.metric is None else "predictions of the test rows"
    return {
        "rows": f"{len(train):,} of {source['id'] or source['name'] or 'a dataset made in memory'}",
        "test rows": f"{len(experiment.eval_dataset):,}; judged by {judge}",
        "model that scored": f"{scorer['id'] or scorer['class']}, weights {settings['scoring_model']}",
        "training": ", ".join(f"{name}={value}" for name, value in settings["training"].items()),
        "selection": ", ".join(f"{name}={value}" for name, value in changed.items()) or "default settings",
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
    }


# ------------------------------------------------------------------------- rows
def _find_rows(
    selector: SageSelector,
    dataset: Dataset,
    keys: list[Key],
    folder: RunFolder | None,
    kept: Mapping[Key, npt.NDArray[np.int64]],
) -> dict[Key, npt.NDArray[np.int64]]:
    """The chosen rows of trainings by both passes, the same in every process; written beside those that are kept."""
    config = selector.config
    signals = selector.gather(dataset, _needed(config, keys))
    processes, rows = Processes(selector.model), {}
    with stage(CHOOSING, unit="parts"):
        for strategy, fraction, seed in keys:
            own = replace(config, strategy=strategy, fraction=fraction, seed=seed)
            try:
                rows[strategy, fraction, seed] = shared_choice(own, signals, processes).indices
            except ConfigError as error:
                raise ConfigError(
                    f"The strategy {strategy!r} cannot choose from these rows: {error.what}",
                    where="strategies",
                    fix=f"Leave it out. {error.fix}",
                ) from error
    if folder is not None:
        folder.write_rows({**kept, **rows})
        shutil.rmtree(folder.folder / _PASSES, ignore_errors=True)
    return rows


def _needed(config: SageConfig, keys: list[Key]) -> frozenset[str]:
    """What the strategies of some trainings need of every row."""
    return frozenset[str]().union(*(needed(replace(config, strategy=strategy)) for strategy, _, _ in keys))


def _train_one(
    experiment: Experiment, key: Key, rows: npt.NDArray[np.int64], folder: RunFolder | None, everyone: Processes
) -> Run:
    """One finished training, noted on the disk by the main process, told to all."""
    predictions, references = experiment.run(rows, key[2])
    runs: list[Run] = []
    with everyone.agreed():
        if everyone.rank == 0:
            runs = [Run(*key, len(rows), experiment.judge(predictions, references))]
            if folder is not None:
                folder.add(runs[0])
    return _runs_from_main(everyone, runs)[0]


def _runs_from_main(everyone: Processes, runs: list[Run]) -> list[Run]:
    """The main process's trainings, in every process."""
    return [Run(**values) for values in everyone.broadcast_object([vars(run) for run in runs])]
