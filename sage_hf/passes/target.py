"""Towards a target: the consensus is that of a small dataset of what the model is to be good at.

LESS (Xia et al., arXiv 2402.04333) ranks training rows by how their gradients agree with those of a target task; here
both are read in the training data's sketch. With several targets, each row goes to the one that it agrees with most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from torch import Tensor

from ..config import SageConfig
from ..data.batches import RowSource, check_dataset
from ..data.groups import Groups
from ..data.status import SCORED
from ..errors import ConfigError, GradientError, GroupError
from ..scoring.agreement import Consensus, sketched, unit
from .exact_consensus import keep_sketched
from .merge_tree import Partial
from .run import GradientPasses
from .vector_file import SketchedRows

Target: TypeAlias = Dataset | Mapping[str, Dataset]


def check_target(target: Target, shares: Mapping[str, float] | None) -> None:
    """Refuses what is no target, before any pass.

    Raises:
        DatasetError: A target is empty, or no Dataset.
        ConfigError: There is no target, or the shares are not one positive number for each.
    """
    if not isinstance(target, Mapping):
        check_dataset(target)
        if shares is not None:
            raise ConfigError(
                "Shares were given, and one target", where="target_shares", fix="Leave them out, or name the targets."
            )
        return
    if not target:
        raise ConfigError("There is no target", where="target", fix="Give at least one dataset.")
    for dataset in target.values():
        check_dataset(dataset)
    if shares is not None and (set(shares) != set(target) or not all(share > 0 for share in shares.values())):
        raise ConfigError(
            f"The shares are for {sorted(shares)}, and the targets are {sorted(target)}",
            where="target_shares",
            fix="Give each target one positive number.",
        )


def target_directions(
    passes: GradientPasses,
    config: SageConfig,
    source: RowSource,
    codes: npt.NDArray[np.int32],
    groups: int,
    matrix: Tensor,
) -> Tensor:
    """Consensus directions of a target's rows, [groups, l]; a group without rows of its own gets that of all rows.

    Args:
        passes: Of the training data: gives model, seed and progress.
        config: The settings.
        source: The target's rows.
        codes: [rows] their groups.
        groups: How many there are.
        matrix: S [l, D].

    Raises:
        GradientError: No row of the target has a usable gradient.
    """
    own = GradientPasses(
        passes.collector, config.seed, len(source.dataset), passes.progress, workers=config.num_workers
    )
    row_codes = torch.from_numpy(codes)

    def add(partial: Partial, rows: Tensor, gradients: Tensor) -> None:
        assert partial.consensus is not None
        partial.consensus.update(sketched(gradients, matrix), row_codes[rows].long())

    def new_partial() -> Partial:
        return Partial(consensus=Consensus(groups, len(matrix), device=matrix.device))

    result, _ = own.run(source, "reading the target", new_partial, add)
    if not (own.status == SCORED).any():
        raise GradientError(
            "No row of the target has a usable gradient",
            where="target",
            fix="Check the target's labels: it needs them as the training data does.",
        )
    assert result.consensus is not None
    sums = result.consensus.sums
    return unit(torch.where(sums.abs().sum(1, keepdim=True) > 0, sums, sums.sum(0))).float().cpu()


def target_codes(target: Dataset, groups: Groups) -> npt.NDArray[np.int32]:
    """[rows] the training data's groups of a target's rows; 0 where rows are not grouped.

    Raises:
        GroupError: The target lacks the column, or has a value of it that the training data has not.
    """
    if groups.column is None:
        return np.zeros(len(target), dtype=np.int32)
    if groups.column not in target.column_names:
        raise GroupError(
            f"The target has no column {groups.column!r}, by which rows are grouped",
            where="target",
            fix="Add it to the target, or use group_by=None.",
        )
    return groups.codes_for(list(target.with_format(None)[groups.column]))


def consensus_of_target(
    target: Target,
    open_rows: Callable[[Dataset], RowSource],
    passes: GradientPasses,
    config: SageConfig,
    source: RowSource,
    groups: Groups,
    matrix: Tensor,
) -> tuple[Tensor, NearestTarget | None, Groups]:
    """Takes the consensus from a target, or gives each row one of several.

    Args:
        target: One, or several by name.
        open_rows: Makes batches of a target's rows.
        passes: Of the training data.
        config: The settings.
        source: The training data.
        groups: Of its rows.
        matrix: S [l, D].

    Returns:
        The directions [G, l]; of several targets the scores; and the groups, which then are the targets.
    """
    if not isinstance(target, Mapping):
        codes = target_codes(target, groups)
        return target_directions(passes, config, open_rows(target), codes, groups.count, matrix), None, groups
    parts = []
    for rows in target.values():
        codes = np.zeros(len(rows), dtype=np.int32)
        parts.append(target_directions(passes, config, open_rows(rows), codes, 1, matrix))
    directions = torch.cat(parts)
    nearest = NearestTarget(passes, source, directions, list(target), matrix)
    return directions, nearest, nearest.groups


class NearestTarget:
    """Which of several targets each row agrees with most.

    Args:
        passes: Of the training data.
        source: The training data.
        directions: [T, l] consensus of each target.
        names: [T].
        matrix: S [l, D].

    Attributes:
        sketched: z of all rows.
        groups: The target of each row.
    """

    def __init__(
        self, passes: GradientPasses, source: RowSource, directions: Tensor, names: list[str], matrix: Tensor
    ) -> None:
        codes = np.zeros(len(passes.status), dtype=np.int32)
        self._scores = np.full(len(passes.status), np.nan, dtype=np.float32)
        self.sketched: SketchedRows
        self.sketched, _, _ = keep_sketched(passes, source, matrix, "scoring for targets")
        for start in range(0, len(codes), source.shard_size):
            rows = range(start, min(start + source.shard_size, len(codes)))
            towards = unit(self.sketched.read(rows)) @ directions.T
            best, code = towards.max(1)
            codes[start : rows.stop], self._scores[start : rows.stop] = code.numpy(), best.clamp(-1, 1).numpy()
        self.groups = Groups("target", codes, names, {})

    def scores(self) -> npt.NDArray[np.float32]:
        """[N] agreement of all rows with their target."""
        return self._scores.copy()
