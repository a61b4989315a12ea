"""One selection by several models: the checkpoints of a warm-up, whose scores are averaged.

A single state of a model judges by what it has just learned; LESS (arXiv 2402.04333, equation 1) sums over the
checkpoints of a training, weighted by their learning rates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from torch import nn

from ..config import CLUSTERS, SageConfig
from ..data.status import SCORED
from ..errors import ConfigError
from ..passes.target import Target
from ..selection.resolve import needed, resolve
from ..selection.selection import Selection
from ..utils.bars import planned
from ..utils.given import given_config
from .checkpoints import PathLike, learning_rates
from .selector import SageSelector
from .stages import CHOOSING, fit_stages, num_targets

Model = nn.Module | Callable[[], nn.Module] | PathLike


def select_over_checkpoints(
    models: Sequence[Model],
    dataset: Dataset,
    *,
    load_model: Callable[[str], nn.Module] | None = None,
    weights: Sequence[float] | None = None,
    adam: bool = False,
    target: Target | None = None,
    target_shares: Mapping[str, float] | None = None,
    config: SageConfig | None = None,
    **options: Any,
) -> Selection:
    """Selects by the mean of the scores (and losses) of several models.

    Whatever else strategies need, sketched gradients and embeddings, comes from the last model. A row that one of the
    models cannot score is set aside. With several targets and `target_reduction="max"`, a row's agreements with each
    target are averaged over the models first, as in LESS.

    Args:
        models: Folders of Trainer's checkpoints; or models, or functions that load one. With folders and functions,
            only one model is in memory at a time. The model that was trained longest comes last.
        dataset: As for `SageSelector.select`.
        load_model: Loads a folder, such as `AutoModelForCausalLM.from_pretrained`; not needed without folders.
        weights: One positive number a model. By default, the weights of folders are the mean learning rates of the
            steps since the checkpoint before, which Trainer logs in `trainer_state.json`; models and functions count
            equally.
        adam: Whether to compare Adam's updates instead of gradients, by the `optimizer.pt` of each folder; needs a
            target, as `optimizer_state` of `SageSelector` does.
        target: As for `SageSelector.select`; with several models and several targets, `config.target_reduction` must
            be "max" or "mean".
        target_shares: As for `SageSelector.select`; for one model only.
        config: The settings.
        options: Other arguments of `SageSelector`: `processing_class`, `data_collator`, `resume_dir`, ...

    Returns:
        The selection; with several models, `stats.checkpoints` is their number, and
        `stats.checkpoint_weights` are their weights.

    Raises:
        ConfigError: There is no model, nothing loads a folder, weights or states of optimizers do not fit or cannot be
            read, or groups would differ from model to model.
        SageError: As for `SageSelector.select`.

    Example:
        >>> folders = ["out/checkpoint-100", "out/checkpoint-200"]
        >>> load = AutoModelForCausalLM.from_pretrained
        >>> select_over_checkpoints(folders, dataset, load_model=load, target=a_few_rows, processing_class=tokenizer)
    """
    config = given_config(config)
    _check(models, load_model, config, target)
    if adam and not all(isinstance(model, str | os.PathLike) for model in models):
        raise ConfigError(
            "A model in memory comes without its optimizer's state",
            where="adam",
            fix="Name folders of Trainer's checkpoints.",
        )
    shares = _shares(models, weights)
    config = resolve(config, has_target=target is not None)
    scores, losses, status = np.zeros(0), np.zeros(0), np.zeros(len(dataset), dtype=np.uint8)
    fit_seconds = score_seconds = 0.0
    targets = num_targets(target)
    stages = fit_stages(config, (), targets) * (len(models) - 1) + fit_stages(config, needed(config), targets)
    with planned([*stages, CHOOSING], shown=options.get("progress", True)):
        for number, (model, share) in enumerate(zip(models, shares, strict=True)):
            is_last = number == len(models) - 1
            if adam:
                options["optimizer_state"] = model
            selector = SageSelector(_loaded(model, load_model), config=config, **options)
            needs = needed(config) if is_last else frozenset()
            signals = selector.gather(dataset, needs, target=target, target_shares=target_shares)
            assert signals.stats is not None
            fit_seconds, score_seconds = (
                fit_seconds + signals.stats.fit_seconds,
                score_seconds + signals.stats.score_seconds,
            )
            status = np.where(status == SCORED, signals.status, status)  # the first reason that a model gives
            # With each target where there are several, [K, N]: the largest is that of the sums.
            own = signals.scores if signals.target_scores is None else signals.target_scores
            scores, losses = (
                (sum_ if number else 0.0) + share * column.astype(np.float64)
                for sum_, column in ((scores, own), (losses, signals.losses))
            )
        assert signals.stats is not None
        if scores.ndim > 1:
            signals.target_scores, scores = scores.astype(np.float32), scores.max(0)
        signals.status = status
        for name, values in (("scores", scores), ("losses", losses)):
            values[status != SCORED] = np.nan
            setattr(signals, name, values.astype(np.float32))
        if len(models) > 1:
            signals.stats.checkpoints, signals.stats.checkpoint_weights = len(models), shares
        signals.stats.fit_seconds, signals.stats.score_seconds = fit_seconds, score_seconds
        return selector.choose(dataset, signals, config)


def _loaded(model: Model, load_model: Callable[[str], nn.Module] | None) -> nn.Module:
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, str | os.PathLike):
        assert load_model is not None
        return load_model(os.fspath(model))
    return model()


def _check(
    models: Sequence[Model], load_model: Callable[[str], nn.Module] | None, config: SageConfig, target: Target | None
) -> None:
    """Refuses what cannot be averaged, before a model is loaded."""
    if not models:
        raise ConfigError("There is no model", where="models", fix="Give at least one.")
    folders = [model for model in models if isinstance(model, str | os.PathLike)]
    if folders and load_model is None:
        raise ConfigError(
            "Folders were given as models, but nothing that loads them",
            where="load_model",
            fix="Pass load_model=AutoModelForCausalLM.from_pretrained, say.",
        )
    if gone := [str(folder) for folder in folders if not Path(folder).is_dir()]:
        raise ConfigError(
            f"There is no folder {', '.join(gone)}", where="models", fix="Name folders of Trainer's checkpoints."
        )
    if len(models) > 1 and isinstance(target, Mapping) and len(target) > 1 and config.target_reduction == "nearest":
        raise ConfigError(
            "The nearest of several targets could differ from model to model",
            where="target",
            fix='Use target_reduction="max" or "mean", or give one target, or one model.',
        )
    if len(models) > 1 and config.group_by == CLUSTERS:
        raise ConfigError(
            "Clusters are found in a model's sketch, and would differ from model to model",
            where="group_by",
            fix="Group by a column, or by none.",
        )


def _shares(models: Sequence[Model], weights: Sequence[float] | None) -> list[float]:
    """The models' shares, summing to 1."""
    folders = [model for model in models if isinstance(model, str | os.PathLike)]
    if weights is None and len(folders) == len(models) > 1:
        weights = learning_rates(folders)
    shares = np.asarray(weights if weights is not None else np.ones(len(models)), dtype=np.float64)
    if shares.shape != (len(models),) or not np.isfinite(shares).all() or not (shares > 0).all():
        raise ConfigError(
            f"The weights are {weights} for {len(models)} models",
            where="weights",
            fix="Give each one positive number.",
        )
    return [float(share) for share in shares / shares.sum()]
