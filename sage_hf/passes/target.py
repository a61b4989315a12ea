"""Towards a target: the consensus is that of a small dataset of what the model is to be good at.

LESS (Xia et al., arXiv 2402.04333) ranks training rows by how their gradients agree with those of a target task; here
both are read in the training data's sketch. With several targets, each row goes to the one that it agrees with
most, or the largest or the mean of its agreements counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from torch import Tensor

from ..data.batches import RowSource, check_dataset
from ..data.groups import Groups
from ..data.status import SCORED
from ..errors import ConfigError, GradientError, GroupError
from ..gradients.adam import AdamUpdates
from ..scoring.agreement import Consensus, sketched, unit
from .consensus import GroupConsensus, NearestDirection, Place, keep_only, keep_rows
from .extractor import Extracted
from .fit import Fit
from .job import Pass
from .merge_tree import Partial
from .run import Passes

Target: TypeAlias = Dataset | Mapping[str, Dataset]


@dataclass(frozen=True)
class Aim:
    """What a selection is to be good at.

    Attributes:
        target: One dataset, or several by name.
        shares: How much of the budget each of several gets; equal where None.
        reduction: As `SageConfig.target_reduction`.
    """

    target: Target
    shares: Mapping[str, float] | None = None
    reduction: str = "nearest"

    @property
    def names(self) -> list[str]:
        """Names of the targets."""
        return list(self.target) if isinstance(self.target, Mapping) else ["target"]

    @property
    def budget(self) -> list[float] | None:
        """Share of the budget of each target; None where one budget is for all."""
        if not isinstance(self.target, Mapping) or self.reduction != "nearest":
            return None
        return [float((self.shares or {}).get(name, 1.0)) for name in self.target]


def check_target(aim: Aim) -> None:
    """Refuses what is no target, before any pass.

    Raises:
        DatasetError: A target is empty, or no Dataset.
        ConfigError: There is no target, or the shares are not one positive number for each, or none has a share.
    """
    target, shares = aim.target, aim.shares
    if not isinstance(target, Mapping):
        check_dataset(target, "target")
        if shares is not None:
            raise ConfigError(
                "Shares were given, but there is only one target",
                where="target_shares",
                fix="Leave them out, or name the targets.",
            )
        return
    if not target:
        raise ConfigError("There is no target", where="target", fix="Give at least one dataset.")
    if odd := [name for name in target if not isinstance(name, str) or not name.strip()]:
        raise ConfigError(f"A target is called {odd[0]!r}", where="target", fix="Give each a name, as text.")
    for dataset in target.values():
        check_dataset(dataset, "target")
    if shares is not None and aim.reduction != "nearest":
        raise ConfigError(
            f"Shares were given, but with target_reduction={aim.reduction!r} all targets have one budget",
            where="target_shares",
            fix='Leave them out, or use target_reduction="nearest".',
        )
    if shares is not None and (set(shares) != set(target) or not all(share > 0 for share in shares.values())):
        raise ConfigError(
            f"The shares are for {sorted(shares)}, and the targets are {sorted(target)}",
            where="target_shares",
            fix="Give each target one positive number.",
        )


def check_aimed(updates: AdamUpdates | None, is_aimed: bool) -> None:
    """Refuses Adam's updates of rows without a target.

    Raises:
        ConfigError: There is none.
    """
    if updates is not None and not is_aimed:
        raise ConfigError(
            "optimizer_state compares Adam's updates with a target's gradients, but there is no target",
            where="optimizer_state",
            fix="Give select or gather a target, or leave optimizer_state out.",
        )


def target_directions(
    passes: Passes, source: RowSource, matrix: Tensor, groups: Groups, place: Place | None = None
) -> Tensor:
    """Consensus directions of a target's rows, [groups, l]; a group without rows of its own gets that of all rows.

    Args:
        passes: Passes of the training data: gives the extractor and the settings.
        source: The target's rows.
        matrix: S [l, D].
        groups: Groups of the target's rows.
        place: As of `GroupConsensus`; then the codes of `groups` do not count.

    Raises:
        GradientError: No row of the target has a usable gradient.
    """

    def new_partial() -> Partial:
        return Partial(consensus=Consensus(groups.count, len(matrix), device=matrix.device))

    def add(partial: Partial, rows: Tensor, codes: Tensor, extracted: Extracted) -> None:
        assert partial.consensus is not None
        z = sketched(extracted.vectors, matrix)
        partial.consensus.update(z, torch.from_numpy(place(z)) if place else codes)

    own = Passes(passes.extractor.for_target(), replace(passes.settings, folder=None))
    job = Pass("reading the target", add, new_partial, lambda window: groups.codes)
    result, piece = own.run_whole(source, job)
    if not (piece.status == SCORED).any():
        raise GradientError(
            "No row of the target has a usable gradient",
            where="target",
            fix="Check the target's labels: it needs them as the training data does.",
        )
    assert result.consensus is not None
    sums = result.consensus.sums
    return unit(torch.where(sums.abs().sum(1, keepdim=True) > 0, sums, sums.sum(0))).float().cpu()


def target_codes(target: Dataset, consensus: GroupConsensus) -> npt.NDArray[np.int32]:
    """[rows] the training data's groups of a target's rows; 0 where no column groups them.

    Raises:
        GroupError: The target lacks the column, or has a value of it that the training data has not.
    """
    groups = consensus.groups
    if groups.column is None or consensus.place is not None:
        return np.zeros(len(target), dtype=np.int32)
    if groups.column not in target.column_names:
        raise GroupError(
            f"The target has no column {groups.column!r}, by which rows are grouped",
            where="target",
            fix="Add it to the target, or use group_by=None.",
        )
    return groups.codes_for(list(target.with_format(None)[groups.column]))


def consensus_of_target(
    aim: Aim,
    open_rows: Callable[[Dataset], RowSource],
    passes: Passes,
    source: RowSource,
    fit: Fit,
) -> GroupConsensus:
    """The consensus of a target, or of several.

    Args:
        aim: The targets, and how several count.
        open_rows: Makes batches of a target's rows.
        passes: Passes of the training data.
        source: The training data.
        fit: What the first pass found in the training data.

    Returns:
        Of several targets by the nearest, these are the groups; else groups stay, and with the largest agreement z of
        all rows are kept.
    """
    target = aim.target
    if not isinstance(target, Mapping):
        # z of all rows, where they are kept, are scored against the target.
        return replace(fit.consensus, directions=_by_group(target, open_rows, passes, fit))
    if aim.reduction != "nearest":
        each = torch.stack([_by_group(rows, open_rows, passes, fit) for rows in target.values()])
        if aim.reduction == "mean":  # of the cosines: a product with the mean of unit directions
            return replace(fit.consensus, directions=each.mean(0))
        if fit.consensus.kept is not None:
            return replace(fit.consensus, directions=each)
        kept, _, piece = keep_rows(passes, source, fit.matrix, keep_only("scoring for targets"))
        return replace(fit.consensus, directions=each, kept=kept, piece=piece)
    parts = [(open_rows(rows), Groups.single(len(rows))) for rows in target.values()]
    directions = torch.cat([target_directions(passes, rows, fit.matrix, groups) for rows, groups in parts])
    place = NearestDirection(directions.numpy())
    kept, _, piece = keep_rows(passes, source, fit.matrix, keep_only("scoring for targets"))
    nearest = np.concatenate([place(kept.read(shard)) for shard in source.shards()]).astype(np.int32)
    return GroupConsensus(Groups("target", nearest, list(target), {}), directions, place, kept, piece)


def _by_group(rows: Dataset, open_rows: Callable[[Dataset], RowSource], passes: Passes, fit: Fit) -> Tensor:
    """Consensus directions of one target's rows in the groups of the training data, [G, l]."""
    groups = replace(fit.groups, codes=target_codes(rows, fit.consensus))
    return target_directions(passes, open_rows(rows), fit.matrix, groups, fit.consensus.place)
