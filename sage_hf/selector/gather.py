"""Pass 2, and what strategies need besides; and the choice that all processes share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Set
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
from datasets import Dataset, IterableDataset
from datasets.fingerprint import Hasher
from torch import Tensor

from ..config import SageConfig
from ..data.batches import Batcher, RowSource
from ..data.columns import find_labels, find_text_classes
from ..data.groups import Groups
from ..data.meaning import Meaning, MeaningTally
from ..data.stats import FitStats, GateStats
from ..data.status import SCORED
from ..data.stream import StreamSource
from ..data.windows import Window
from ..gradients import GradientCollector
from ..hub.provenance import describe_dataset, describe_model
from ..passes.consensus import keep_rows
from ..passes.extractor import Extracted
from ..passes.fit import Fit
from ..passes.job import Pass
from ..passes.merge_tree import Partial
from ..passes.processes import Processes
from ..passes.run import Passes
from ..scoring.agreement import agreement, sketched
from ..selection.choice import choose_rows
from ..selection.outcomes import Choice, RowVerdicts
from ..selection.signals import RowSignals
from ..strategies.jobs import JobRunner
from ..strategies.quotas import resolve_budget
from ..utils.environment import library_versions
from .stages import KEEPING, SCORING

logger = logging.getLogger(__name__)


def score_pass(fit: Fit, codes: Callable[[Window], npt.NDArray[np.integer]]) -> Pass:
    """Scores rows against a fit; `codes` as of `Pass`."""

    def add(partial: Partial, rows: Tensor, codes: Tensor, extracted: Extracted) -> Tensor:
        return agreement(sketched(extracted.vectors, fit.matrix), fit.directions, codes)

    return Pass(SCORING, add, codes=codes, name=f"scoring-agreement-{_towards(fit)}", rows=fit.rows)


def keep_pass(fit: Fit, codes: Callable[[Window], npt.NDArray[np.integer]]) -> Pass:
    """The same for `keep_rows`, which gives z."""

    def add(partial: Partial, rows: Tensor, codes: Tensor, extracted: Extracted) -> Tensor:
        return agreement(extracted.vectors, fit.directions, codes)

    return Pass(KEEPING, add, codes=codes, name=f"scoring-and-keeping-{_towards(fit)}", rows=fit.rows)


def _towards(fit: Fit) -> str:
    """A hash of the directions that scores are of, which may be those of a target."""
    return str(Hasher.hash(fit.directions.cpu().numpy().tobytes()))


def gather_signals(passes: Passes, source: RowSource, fit: Fit, needs: Set[str]) -> RowSignals:
    """Scores all rows, and keeps of them what strategies need.

    Args:
        passes: Those of the first pass.
        source: The dataset.
        fit: What the first pass found.
        needs: Some of `strategies.SIGNALS`.
    """
    kept, piece = fit.consensus.kept, fit.consensus.piece
    if kept is not None:
        scores = fit.consensus.scores()
    elif needs:
        kept, _, piece = keep_rows(passes, source, fit.matrix, keep_pass(fit, lambda window: fit.groups.codes))
        scores = piece.values
    else:
        _, piece = passes.run_whole(source, score_pass(fit, lambda window: fit.groups.codes))
        scores = piece.values
    assert piece is not None
    status, losses = np.maximum(fit.status, piece.status, out=piece.status), piece.numbers
    aside = status != SCORED
    scores[aside] = losses[aside] = np.nan
    signals = RowSignals(fit.groups, status, scores, losses, spectrum=fit.spectrum, progress=passes.settings.progress)
    signals.target_scores = fit.consensus.target_scores()
    if kept is not None:
        signals.read(kept)
    return signals


def fit_stats(fit: Fit, collector: GradientCollector, dataset: Dataset | IterableDataset, processes: int) -> FitStats:
    """What the first pass has to say of itself, of a dataset or a stream."""
    sketch = fit.sketch
    return FitStats(
        energy=sketch.energy,
        error_bound=sketch.error_bound,
        squared_norm=sketch.squared_norm,
        spectrum=[float(value) for value in sketch.singular_values.double() ** 2],
        sketch_size=sketch.sketch_size,
        row_width=collector.width,
        target_weights=collector.num_target_weights,
        target_share=collector.layout.share,
        left_out=sorted(collector.left_out),
        consensus="streaming" if fit.is_streaming else "exact",
        group_by=fit.groups.column,
        longest=fit.longest,
        one_at_a_time=collector.one_at_a_time,
        processes=processes,
        model=describe_model(collector.model),
        model_fingerprint=fit.run_key.model,
        source=describe_dataset(dataset),
        source_digest=fit.run_key.digest,
        versions=library_versions(),
        check_seconds=collector.check_seconds,
        fit_seconds=fit.seconds,
    )


def describe(
    signals: RowSignals,
    fit: Fit,
    collector: GradientCollector,
    dataset: Dataset,
    encoder: Batcher,
    processes: Processes,
) -> FitStats:
    """Notes the classes of a dataset's rows in their signals, and the statistics of the passes, which it returns."""
    model = collector.model
    if (classes := find_labels(model, dataset, fit.groups)) is not None:
        signals.labels, signals.label_names = classes.codes, classes.names
    stats = signals.stats = fit_stats(fit, collector, dataset, processes.count)
    stats.classes = find_text_classes(model, dataset.features, encoder, dataset.unique)
    stats.meaning = meaning_of(tally_of(signals), signals.groups, collector, processes)
    return stats


def describe_stream(
    fit: Fit, collector: GradientCollector, source: StreamSource, tally: MeaningTally, processes: Processes
) -> FitStats:
    """The statistics of the passes over a stream, whose rows `tally` has counted."""
    stats, groups = fit_stats(fit, collector, source.dataset, processes.count), fit.groups
    known = lambda name: groups.code_of if groups.column == name else ()  # noqa: E731
    stats.classes = find_text_classes(collector.model, source.features, source.encoder, known)
    stats.meaning = meaning_of(tally, groups, collector, processes)
    return stats


def tally_of(signals: RowSignals) -> MeaningTally:
    """All rows of a dataset, counted for `meaning_of`."""
    tally = MeaningTally()
    tally.add(signals.scores, signals.losses, signals.labels, signals.doubts)
    return tally


def meaning_of(tally: MeaningTally, groups: Groups, collector: GradientCollector, processes: Processes) -> Meaning:
    """Whether scores mean anything, after the passes; the main process logs a warning where they do not.

    Args:
        tally: Has counted all rows.
        groups: Their groups.
        collector: Whose model scored.
        processes: Those of the selection.
    """
    is_own_loss = collector.loss_function is None and collector.loss_reduction == "mean"
    meaning = tally.finish(groups.count, collector.model, is_own_loss)
    if processes.rank == 0 and meaning.warning:
        logger.warning("%s", meaning.warning)
    return meaning


def shared_choice(config: SageConfig, signals: RowSignals, processes: Processes) -> Choice:
    """`choose_rows` by all processes, which share the work out; what the main one comes to goes for all.

    Args:
        config: The settings, with a budget.
        signals: The same in every process.
        processes: All of them.

    Raises:
        SageError: Choosing failed in another process.
    """

    def choose(runner: JobRunner) -> Choice:
        budget = resolve_budget(len(signals.scores), config.fraction, config.num_examples)
        return choose_rows(config, signals, budget, runner)

    return chosen_together(processes, choose)


def chosen_together(processes: Processes, choose: Callable[[JobRunner], Choice]) -> Choice:
    """What a choice by all processes comes to, in the main one.

    Args:
        processes: All of them.
        choose: Chooses, with what shares the work out; called in every process.

    Raises:
        SageError: Choosing failed in another process.
    """
    runner = JobRunner(processes)
    with runner.agreed():
        own = choose(runner)
    told = processes.broadcast_object(None if own.gate is None else asdict(own.gate))
    indices = processes.array_from_main(own.indices)
    if told is None or own.verdicts is None:
        return Choice(indices)
    verdicts = RowVerdicts(
        processes.array_from_main(own.verdicts.doubts),
        processes.array_from_main(own.verdicts.suggested.view(np.uint8)).view(np.int32),
        processes.array_from_main(own.verdicts.outcomes),
    )
    return Choice(indices, GateStats.from_dict(told), verdicts)
