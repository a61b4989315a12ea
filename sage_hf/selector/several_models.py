"""One selection by several models: the checkpoints of a warm-up, whose scores are averaged.

A single state of a model judges by what it has just learned; LESS (arXiv 2402.04333, equation 1) sums over the
checkpoints of a training, weighted by their learning rates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset
from torch import nn

from ..config import CLUSTERS, SageConfig
from ..data.status import SCORED
from ..errors import ConfigError
from ..passes.target import Target
from ..selection.resolve import needed, resolve
from ..selection.selection import Selection
from .selector import SageSelector


def select_over_checkpoints(
    models: Sequence[nn.Module | Callable[[], nn.Module]],
    dataset: Dataset,
    *,
    weights: Sequence[float] | None = None,
    target: Target | None = None,
    target_shares: Mapping[str, float] | None = None,
    config: SageConfig | None = None,
    **options: Any,
) -> Selection:
    """Selects by the mean of the scores (and losses) of several models.

    What strategies need besides, sketched gradients and embeddings, is the last model's. A row that one of the models
    cannot score is set aside.

    Args:
        models: Models, or functions that load one, so that no two are in memory at once; the last trained last.
        dataset: As for `SageSelector.select`.
        weights: One a model, positive, such as their learning rates; equal by default.
        target: As for `SageSelector.select`; a single one where there are several models.
        target_shares: The same.
        config: The settings.
        options: What else `SageSelector` takes: `processing_class`, `data_collator`, `resume_dir`, ...

    Returns:
        The selection; `stats.checkpoints` tells how many models there were.

    Raises:
        ConfigError: There is no model, weights do not fit, or groups would be others for every model.
        SageError: As for `SageSelector.select`.

    Example:
        >>> load = AutoModelForCausalLM.from_pretrained
        >>> select_over_checkpoints([lambda: load("out/checkpoint-100"), lambda: load("out/checkpoint-200")], dataset)
    """
    config = config or SageConfig()
    shares = _check(models, weights, config, target)
    config = resolve(config, has_target=target is not None)
    scores, losses, status = np.zeros(0), np.zeros(0), np.zeros(len(dataset), dtype=np.uint8)
    started = time.perf_counter()
    for number, (model, share) in enumerate(zip(models, shares, strict=True)):
        is_last = number == len(models) - 1
        loaded = model if isinstance(model, nn.Module) else model()
        selector = SageSelector(loaded, config=config, **options)
        needs = needed(config) if is_last else frozenset()
        signals = selector.gather(dataset, needs, target=target, target_shares=target_shares)
        status = np.where(status == SCORED, signals.status, status)  # the first reason that a model gives
        scores, losses = (
            (sum_ if number else 0.0) + share * column.astype(np.float64)
            for sum_, column in ((scores, signals.scores), (losses, signals.losses))
        )
    assert signals.stats is not None
    signals.status = status
    for name, values in (("scores", scores), ("losses", losses)):
        values[status != SCORED] = np.nan
        setattr(signals, name, values.astype(np.float32))
    signals.stats.checkpoints = len(models)
    signals.stats.fit_seconds, signals.stats.score_seconds = time.perf_counter() - started, 0.0
    return selector.choose(dataset, signals, config)


def _check(
    models: Sequence[Any], weights: Sequence[float] | None, config: SageConfig, target: Target | None
) -> npt.NDArray[np.float64]:
    """The models' shares, summing to 1."""
    if not models:
        raise ConfigError("There is no model", where="models", fix="Give at least one.")
    if len(models) > 1 and isinstance(target, Mapping):
        raise ConfigError(
            "Which of several targets a row is nearest to would be another for every model",
            where="target",
            fix="Give one target, or one model.",
        )
    if len(models) > 1 and config.group_by == CLUSTERS:
        raise ConfigError(
            "Clusters are found in a model's sketch, and would be others for every model",
            where="group_by",
            fix="Group by a column, or by none.",
        )
    shares = np.asarray(weights if weights is not None else np.ones(len(models)), dtype=np.float64)
    if shares.shape != (len(models),) or not np.isfinite(shares).all() or not (shares > 0).all():
        raise ConfigError(
            f"The weights are {weights} for {len(models)} models",
            where="weights",
            fix="Give each one positive number.",
        )
    return shares / shares.sum()
