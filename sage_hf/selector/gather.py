"""From passes to a selection: what strategies need, the choice that all processes share, and the result."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset, IterableDataset
from torch import Tensor

from ..config import SageConfig
from ..data.batches import RowSource
from ..data.groups import Groups
from ..data.status import NOT_FINITE, SCORED
from ..gradients import GradientCollector
from ..hub.provenance import provenance
from ..passes.embeddings import read_features
from ..passes.exact_consensus import ClusteredGroups, ExactConsensus, keep_sketched
from ..passes.merge_tree import Partial
from ..passes.processes import Processes
from ..passes.run import GradientPasses
from ..passes.target import NearestTarget
from ..scoring.agreement import agreement, sketched
from ..scoring.sketch import FrequentDirections
from ..selection.choice import choose_rows, lost_groups
from ..selection.selection import Selection
from ..selection.signals import Material
from ..strategies.quotas import resolve_budget


def gather_material(
    passes: GradientPasses,
    source: RowSource,
    groups: Groups,
    matrix: Tensor,
    directions: Tensor,
    spectrum: npt.NDArray[np.float32],
    needs: Set[str],
    known: ExactConsensus | ClusteredGroups | NearestTarget | None,
) -> Material:
    """Scores all rows, and keeps of them what strategies need.

    Args:
        passes: After the first pass.
        source: The dataset.
        groups: Of its rows.
        matrix: S [l, D].
        directions: [G, l] consensus directions.
        spectrum: [l] singular values, the largest 1.
        needs: Some of `strategies.SIGNALS`.
        known: Where z and scores of all rows are known already.
    """
    codes = torch.from_numpy(groups.codes)
    kept = None
    if known is not None:
        kept, scores = known.sketched, known.scores()
    elif needs & {"sketched", "norms"}:
        kept, _, scores = keep_sketched(
            *(passes, source, matrix, "scoring and keeping", Partial),
            lambda _, rows, z: agreement(z, directions, codes[rows].long()),
        )
    else:
        _, scores = passes.run(
            *(source, "scoring agreement", Partial),
            lambda _, rows, g: agreement(sketched(g, matrix), directions, codes[rows].long()),
        )
    usable = passes.status == SCORED
    scores[~usable] = passes.losses[~usable] = np.nan
    material = Material(groups, usable, scores, passes.losses, spectrum=spectrum, progress=passes.progress)
    if kept is not None:
        material.sketched, material.norms = kept, kept.norms
    if needs & {"embeddings", "el2n"}:
        found = read_features(passes, source)
        material.embeddings, material.el2n, material.doubts = found.embeddings, found.el2n, found.doubts
    return material


def fit_stats(
    sketch: FrequentDirections,
    collector: GradientCollector,
    dataset: Dataset | IterableDataset,
    group_by: str | None,
    is_streaming: bool,
    processes: int,
) -> dict[str, Any]:
    """What the first pass has to say of itself, of a dataset or a stream."""
    return {
        "energy": sketch.energy,
        "error_bound": sketch.error_bound,
        "squared_norm": sketch.squared_norm,
        "sketch_size": sketch.sketch_size,
        "row_width": collector.width,
        "target_weights": collector.num_target_weights,
        "target_share": collector.layout.share,
        "left_out": sorted(collector.left_out),
        "check_seconds": collector.check_seconds,
        "consensus": "streaming" if is_streaming else "exact",
        "group_by": group_by,
        "one_at_a_time": collector.one_at_a_time,
        "processes": processes,
        "spectrum": [float(value) for value in sketch.singular_values.double() ** 2],
        **provenance(collector.model, dataset),
    }


def shared_choice(
    config: SageConfig, material: Material, processes: Processes
) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
    """`choose_rows` on the main process, for all: clusterings round differently where threads are not as many.

    Args:
        config: The settings, with a budget.
        material: The same in every process.
        processes: All of them.
    """
    about: dict[str, Any] = {}
    indices, failure = np.zeros(0, dtype=np.int64), None
    try:
        if processes.rank == 0:
            budget = resolve_budget(len(material.scores), config.fraction, config.num_examples)
            indices, about = choose_rows(config, material, budget)
    except Exception as error:
        failure = error
    processes.agree(failure)
    return processes.array_from_main(indices), processes.broadcast_object(about)


def make_selection(
    config: SageConfig,
    dataset: Dataset,
    material: Material,
    passes: GradientPasses,
    stats: dict[str, Any],
) -> Selection:
    """The selection of what a configuration chooses from the material.

    Args:
        config: The settings, with a budget.
        dataset: The source.
        material: Of its rows.
        passes: What gathered it.
        stats: What they measured.
    """
    indices, about = shared_choice(config, material, passes.processes)
    selection = Selection(
        indices=indices,
        scores=material.scores,
        losses=material.losses,
        groups=material.groups.codes,
        group_names=material.groups.names,
        status=np.where(material.usable, SCORED, np.maximum(passes.status, NOT_FINITE)).astype(np.uint8),
        stats={},
        config=config.to_dict(),
        source_fingerprint=dataset._fingerprint,
        source=dataset,
    )
    usable = material.usable
    selection.stats.update(
        rows=len(usable),
        kept=len(selection),
        set_aside=int((~usable).sum()),
        **stats,
        strategy=config.strategy,
        **about,
        mean_score=float(material.scores[usable].mean(dtype=np.float64)),
        mean_score_kept=float(material.scores[indices].mean(dtype=np.float64)),
        mean_loss=float(material.losses[usable].mean(dtype=np.float64)),
        groups=(table := selection.group_table),
        lost_groups=lost_groups(table, config, say=passes.processes.rank == 0),
    )
    return selection
