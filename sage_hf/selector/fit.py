"""Pass 1: the sketch of all gradients, and the consensus of each group; of a dataset or a stream."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Set

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..config import CLUSTERS, SageConfig
from ..data.batches import BatchSource, RowSource
from ..data.groups import Groups, say_if_many
from ..data.longest import LongestRow, NormTally
from ..data.status import NO_TOKENS, NOT_FINITE, SCORED, STATUSES, ZERO_GRADIENT
from ..data.stream import GrowingGroups, StreamSource, changed
from ..data.windows import Window
from ..errors import ConfigError, GradientError
from ..gradients import GradientCollector
from ..passes.check import reader_of, sample_of
from ..passes.consensus import GroupConsensus, clustered_consensus, exact_consensus
from ..passes.embeddings import EmbeddingReader
from ..passes.extractor import Extracted
from ..passes.fit import Fit, RunKey, sketch_matrix
from ..passes.job import Pass, Piece
from ..passes.memory import is_streaming, sums_fit
from ..passes.merge_tree import Partial
from ..passes.run import Passes
from ..scoring.agreement import Consensus, cut
from ..scoring.sketch import FrequentDirections
from ..utils.columns import counts_of
from .stages import SKETCHING
from .stream import StreamTally

logger = logging.getLogger(__name__)


def fit_dataset(passes: Passes, source: RowSource, groups: Groups, config: SageConfig, key: RunKey) -> Fit:
    """Pass 1 over a dataset; with the exact consensus or clusters, a further pass writes z of all rows to a file.

    Args:
        passes: Runs the passes.
        source: The dataset.
        groups: Groups of its rows.
        config: The settings.
        key: Key of the run.

    Raises:
        GradientError: No row has a usable gradient.
    """
    started = time.perf_counter()
    streaming = is_streaming(config, groups.count, passes.extractor.width)
    job = _sketch_pass(passes, config, lambda: groups.count if streaming else 0, lambda window: groups.codes)
    result, piece = passes.run_whole(source, job)
    _check_any_scored(counts_of(piece.status, STATUSES))
    norms = NormTally()
    norms.add(piece.values)
    longest = _say_longest(passes, norms)
    assert result.sketch is not None
    matrix, spectrum = sketch_matrix(result.sketch, config.spectrum_power)
    if config.group_by == CLUSTERS:
        consensus = clustered_consensus(passes, source, matrix, spectrum, config)
    elif result.consensus is None:
        consensus = exact_consensus(passes, source, groups, matrix)
    else:
        consensus = GroupConsensus(groups, result.consensus.directions(matrix).float())
    seconds = time.perf_counter() - started
    return Fit(
        sketch=result.sketch,
        matrix=matrix,
        spectrum=spectrum,
        consensus=consensus,
        is_streaming=streaming,
        status=piece.status,
        rows=len(piece.status),
        digests=[],
        group_rows=counts_of(consensus.groups.codes, consensus.groups.count, piece.status == SCORED),
        longest=longest,
        run_key=key,
        seconds=seconds,
    )


def fit_stream(passes: Passes, source: StreamSource, config: SageConfig, key: RunKey) -> Fit:
    """Pass 1 over a stream; groups are those that are met, ordered by value.

    Args:
        passes: Runs the pass.
        source: The stream.
        config: The settings.
        key: Key of the run.

    Raises:
        GradientError: No row has a usable gradient.
        ConfigError: There are more groups than directions fit into the memory.
    """
    started, tally, norms = time.perf_counter(), StreamTally(), NormTally()
    growing = GrowingGroups(source.group_column, source.class_names)

    def codes(window: Window) -> npt.NDArray[np.int64]:
        before, codes = growing.count, growing.codes(window.values, window.first)
        if growing.count > before and not sums_fit(growing.count, passes.extractor.width):
            raise ConfigError(
                f"The stream has {growing.count} groups or more, whose directions do not fit into the memory",
                where="group_by",
                fix="Group by a column with fewer values, use a narrower projection, or pass group_by=None.",
            )
        return codes

    def each(piece: Piece) -> None:
        tally.add(piece)
        norms.add(piece.values, piece.window.first)

    result = passes.run(source, _sketch_pass(passes, config, lambda: growing.count, codes), each)
    if not tally.rows:
        raise changed("it was empty when it was read again")
    groups, order = growing.settle()
    say_if_many(logger, passes.extractor.model, groups.column, groups.count, tally.rows)
    _check_any_scored(tally.statuses)
    longest = _say_longest(passes, norms)
    assert result.sketch is not None and result.consensus is not None
    result.consensus.grow(growing.count)
    result.consensus.sums = result.consensus.sums[order]
    matrix, spectrum = sketch_matrix(result.sketch, config.spectrum_power)
    consensus = GroupConsensus(groups, result.consensus.directions(matrix).float())
    return Fit(
        sketch=result.sketch,
        matrix=matrix,
        spectrum=spectrum,
        consensus=consensus,
        is_streaming=True,
        status=np.zeros(0, dtype=np.uint8),
        rows=tally.rows,
        digests=tally.digests,
        group_rows=tally.scored_rows(growing.count)[order],
        longest=longest,
        run_key=key,
        seconds=time.perf_counter() - started,
    )


def reader_for(
    collector: GradientCollector, source: BatchSource, needs: Set[str], is_kept: bool, seed: int
) -> EmbeddingReader | None:
    """Reads embeddings where strategies need them, and for a cache that stays, in case that one will.

    Args:
        collector: Whose model is read.
        source: Gives rows to try it with.
        needs: Some of `strategies.SIGNALS`.
        is_kept: Whether there is a cache that stays, with rows to fill in.
        seed: Seed of what the model and the rows draw.

    Raises:
        ConfigError: They are needed, and the model shows no vector of a row.
    """
    is_needed = bool(needs & {"embeddings", "el2n"})
    if not (is_needed or is_kept):
        return None
    try:
        return reader_of(collector.model, collector.device, sample_of(source), seed)
    except ConfigError:
        if is_needed:
            raise
        return None


def _sketch_pass(
    passes: Passes,
    config: SageConfig,
    groups: Callable[[], int],
    codes: Callable[[Window], npt.NDArray[np.integer]],
) -> Pass:
    """Sketches gradients, and sums their directions by group; gives each row's length as it was sketched.

    Long rows are cut for the sketch alone: a consensus is of directions, in which a row's length does not count.

    Args:
        passes: Runs it.
        config: The settings.
        groups: Number of groups so far; 0 where directions are not summed.
        codes: As of `Pass`.
    """
    width, device = passes.extractor.width, passes.extractor.device

    def new_partial() -> Partial:
        sums = Consensus(groups(), width, device=device) if groups() else None
        return Partial(FrequentDirections(int(config.sketch_size), width, device=device), sums)

    def add(partial: Partial, rows: Tensor, codes: Tensor, extracted: Extracted) -> Tensor:
        assert partial.sketch is not None
        vectors = cut(extracted.vectors, config.max_row_norm)
        partial.sketch.update(vectors)
        if partial.consensus is not None:
            partial.consensus.grow(groups())
            partial.consensus.update(extracted.vectors, codes)
        return torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64).float()

    return Pass(SKETCHING, add, new_partial, codes)


def _say_longest(passes: Passes, norms: NormTally) -> LongestRow | None:
    """The longest row; the main process logs a warning where it outweighs all others."""
    longest = norms.finish()
    if longest is not None and longest.warning and passes.processes.rank == 0:
        logger.warning("%s", longest.warning)
    return longest


def _check_any_scored(statuses: npt.NDArray[np.int64]) -> None:
    """Refuses rows of which none has a usable gradient; counts of rows by status.

    Raises:
        GradientError: There is none.
    """
    if not statuses[SCORED]:
        raise GradientError(
            f"No row has a usable gradient: {statuses[NOT_FINITE]} are not finite, {statuses[ZERO_GRADIENT]} are "
            f"exactly zero, {statuses[NO_TOKENS]} have no tokens",
            where="dataset",
            fix="Check the labels (are all of them masked?), the model's weights, and that the loss of one row "
            "alone is not constant (a contrastive loss is).",
        )
