"""Passes that keep every row's sketched gradient in a file, and what is read from it: consensus, groups, scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..config import CLUSTERS, SageConfig
from ..data.batches import RowSource
from ..data.groups import Groups
from ..data.status import SCORED
from ..scoring.agreement import Consensus, agreement, sketched
from ..strategies.base import PartOf
from ..strategies.coverage import GradientDirections
from ..strategies.partition import cluster
from .merge_tree import Partial
from .run import GradientPasses
from .vector_file import SketchedRows

# Rows that are read at once.
_BLOCK_ROWS = 2**14


def keep_sketched(
    passes: GradientPasses,
    source: RowSource,
    matrix: Tensor,
    title: str,
    new_partial: Callable[[], Partial] = Partial,
    add: Callable[[Partial, Tensor, Tensor], Tensor | None] = lambda partial, rows, z: None,
) -> tuple[SketchedRows, Partial, npt.NDArray[np.float32]]:
    """Runs a pass that writes z and |g| of every row; afterwards every process has those of all rows.

    Args:
        passes: Runs it. With a checkpoint, the file lies in its folder, one for all processes; else each has its own.
        source: The dataset.
        matrix: S [l, D].
        title: Of the progress bar, and the file.
        new_partial: As for `GradientPasses.run`.
        add: The same, with z [B, l] in the place of gradients.

    Returns:
        The file, and what `GradientPasses.run` returns.
    """
    kept = _open(passes, len(source.dataset), len(matrix), title)

    def write(partial: Partial, rows: Tensor, gradients: Tensor) -> Tensor | None:
        z = sketched(gradients, matrix)
        kept.write(rows, z, gradients.to(torch.float64).norm(dim=1))
        return add(partial, rows, z)

    result, values = passes.run(source, title, new_partial, write, kept.file.flush)
    passes.processes.gather(kept.file.array, passes.last_parts)
    return kept, result, values


def _open(passes: GradientPasses, rows: int, sketch_size: int, title: str) -> SketchedRows:
    if passes.checkpoint is None:
        return SketchedRows(rows, sketch_size)
    path = passes.checkpoint / f"{title.replace(' ', '-')}.npy"
    if passes.processes.rank == 0:
        SketchedRows(rows, sketch_size, path)
    passes.processes.wait()
    return SketchedRows(rows, sketch_size, path)


class ExactConsensus:
    """The paper's own consensus: the mean direction of z, which needs all z first.

    Args:
        passes: Runs the pass.
        source: The dataset.
        codes: [N] int32 groups.
        num_groups: G.
        matrix: S [l, D].

    Attributes:
        sketched: z of all rows.
        directions: [G, l] unit consensus directions.
    """

    def __init__(
        self, passes: GradientPasses, source: RowSource, codes: Tensor, num_groups: int, matrix: Tensor
    ) -> None:
        def add(partial: Partial, rows: Tensor, z: Tensor) -> None:
            assert partial.consensus is not None
            partial.consensus.update(z, codes[rows].long())

        def new_partial() -> Partial:
            return Partial(consensus=Consensus(num_groups, len(matrix), device=matrix.device))

        self._codes = codes
        about = (passes, source, matrix, "projecting gradients")
        self.sketched, result, _ = keep_sketched(*about, new_partial, add)
        assert result.consensus is not None
        self.directions = result.consensus.directions().float().cpu()

    def scores(self) -> npt.NDArray[np.float32]:
        """[N] agreement of all rows."""
        return scores_from(self.sketched, self.directions, self._codes)


def scores_from(kept: SketchedRows, directions: Tensor, codes: Tensor) -> npt.NDArray[np.float32]:
    """[N] agreement of rows whose z are in a file.

    Args:
        kept: z [N, l].
        directions: [G, l].
        codes: [N] groups.
    """
    scores = np.full(len(codes), np.nan, dtype=np.float32)
    for start in range(0, len(codes), _BLOCK_ROWS):
        rows = range(start, min(start + _BLOCK_ROWS, len(codes)))
        scores[start : rows.stop] = agreement(kept.read(rows), directions, codes[start : rows.stop].long()).numpy()
    return scores


class ClusteredGroups:
    """Groups found in the sketch itself: rows whose gradients point alike.

    Mini-batch k-means on directions in the sketch, weighted as coverage weights them; the main process clusters, and
    the others take its result.

    Args:
        passes: Runs the pass that writes z.
        source: The dataset.
        matrix: S [l, D].
        spectrum: [l], singular values, the largest 1.
        config: How many clusters (fewer where fewer rows have a gradient), the seed and the spectrum's power.

    Attributes:
        sketched: z of all rows.
        groups: The cluster of each row.
        directions: [G, l] unit consensus directions.
    """

    def __init__(
        self,
        passes: GradientPasses,
        source: RowSource,
        matrix: Tensor,
        spectrum: npt.NDArray[np.float32],
        config: SageConfig,
    ) -> None:
        self.sketched, _, _ = keep_sketched(passes, source, matrix, "finding clusters")
        codes = np.zeros(len(source.dataset), dtype=np.int64)
        if passes.processes.rank == 0:
            scored = np.flatnonzero(passes.status == SCORED)
            directions = GradientDirections(PartOf(self.sketched, scored), spectrum, config.spectrum_power)
            count = min(config.num_clusters, len(scored))
            found = cluster(directions, np.arange(len(scored)), count, config.seed)
            codes[scored] = np.unique(found, return_inverse=True)[1]
        codes = passes.processes.array_from_main(codes)
        names = [f"cluster {number}" for number in range(int(codes.max()) + 1)]
        self.groups = Groups(CLUSTERS, codes.astype(np.int32), names, {})
        sums = Consensus(len(names), len(matrix))
        for start in range(0, len(codes), _BLOCK_ROWS):
            rows = range(start, min(start + _BLOCK_ROWS, len(codes)))
            sums.update(self.sketched.read(rows), torch.from_numpy(codes[start : rows.stop]))
        self.directions = sums.directions().float()

    def scores(self) -> npt.NDArray[np.float32]:
        """[N] agreement of all rows with their cluster."""
        return scores_from(self.sketched, self.directions, torch.from_numpy(self.groups.codes))
