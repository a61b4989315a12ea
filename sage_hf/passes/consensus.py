"""Groups of rows and the consensus of each: from the first pass's sums, by the paper's own formula, or of clusters.

The last two need the sketched gradients of all rows, which a pass keeps in a file, with their embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import pairwise_distances_argmin
from torch import Tensor

from ..config import CLUSTERS, SageConfig
from ..data.batches import RowSource
from ..data.groups import Groups
from ..data.status import SCORED
from ..scoring.agreement import Consensus, agreement, agreement_by_target, sketched, unit
from ..strategies.base import PartOf
from ..strategies.coverage import GradientDirections
from ..strategies.partition import cluster
from ..utils.bars import stage
from ..utils.checksums import DAMAGE, set_aside
from ..utils.columns import blocks
from ..utils.shown import ShortRepr
from .extractor import Extracted
from .job import Pass, Piece
from .kept_rows import KeptRows, Widths
from .merge_tree import Partial
from .resume import FinishedNodes
from .run import Passes


@dataclass(frozen=True, repr=False)
class GroupConsensus(ShortRepr):
    """The group of every row, and the direction that each group agrees on.

    Attributes:
        groups: Groups of the rows; of a stream, without rows.
        directions: [G, l] unit consensus directions, or their means over several targets; [K, G, l] of K targets of
            which the one counts that a row agrees with most.
        place: z [B, l] -> [B] groups, where these are no column's.
        kept: What a pass has kept of all rows, z among it.
        piece: What that pass found of the rows.
    """

    groups: Groups
    directions: Tensor
    place: Place | None = None
    kept: KeptRows | None = None
    piece: Piece | None = None

    def for_new_rows(self) -> GroupConsensus:
        """What scores any row, without what a pass kept of those that it saw: a file of all z is let go."""
        return replace(self, kept=None, piece=None)

    def scores(self) -> npt.NDArray[np.float32]:
        """[N] agreement of all rows whose z are kept."""
        return self._of_kept(agreement)

    def target_scores(self) -> npt.NDArray[np.float32] | None:
        """[K, N] the same with each of several targets; None where directions are not of several."""
        return self._of_kept(agreement_by_target) if self.directions.ndim == 3 else None

    def _of_kept(self, score: Callable[[Tensor, Tensor, Tensor], Tensor]) -> npt.NDArray[np.float32]:
        assert self.kept is not None
        codes, kept = torch.from_numpy(self.groups.codes), self.kept
        parts = [score(kept.read(rows), self.directions, codes[rows].long()) for rows in blocks(len(codes))]
        return torch.cat(parts, dim=-1).numpy()


@dataclass(frozen=True)
class NearestDirection:
    """The group whose consensus a row agrees with most; directions [G, l]."""

    directions: npt.NDArray[np.float32]

    def __call__(self, z: Tensor) -> npt.NDArray[np.int64]:
        """[B] groups of z [B, l]."""
        return (unit(z.float().cpu()) @ torch.from_numpy(self.directions).T).argmax(1).numpy()


@dataclass(frozen=True)
class NearestCentre:
    """The cluster whose centre [l] a row's direction in the sketch is nearest to; centres [G, l]."""

    centres: npt.NDArray[np.float32]
    spectrum: npt.NDArray[np.float32]
    spectrum_power: float | None

    def __call__(self, z: Tensor) -> npt.NDArray[np.int64]:
        """[B] groups of z [B, l]."""
        directions = GradientDirections(z.float().cpu().numpy(), self.spectrum, self.spectrum_power)
        return pairwise_distances_argmin(directions[np.arange(len(z))], self.centres).astype(np.int64)


Place: TypeAlias = NearestDirection | NearestCentre


def keep_rows(passes: Passes, source: RowSource, matrix: Tensor, job: Pass) -> tuple[KeptRows, Partial, Piece]:
    """Runs a pass that writes z, |g| and the embedding of every row; afterwards every process has those of all rows.

    Args:
        passes: Runs it. Where finished shards are kept, the file lies beside them, one for all processes; else each
            process has its own.
        source: The dataset.
        matrix: S [l, D]; of no rows, where embeddings alone are kept.
        job: What else is done, with z [B, l] in the place of gradients.

    Returns:
        The file, and what `Passes.run_whole` returns.
    """
    widths = Widths(len(matrix), passes.extractor.embedding_width, passes.extractor.input_width)
    if widths.embedding:  # an earlier run may have kept none
        job = replace(job, name=f"{job.name}-with-embeddings")
    kept = _open(passes, source, widths, job.name)

    def write(partial: Partial, rows: Tensor, codes: Tensor, extracted: Extracted) -> Tensor | None:
        z = sketched(extracted.vectors, matrix)
        kept.write(rows, extracted, z)
        return job.add(partial, rows, codes, replace(extracted, vectors=z))

    result, piece = passes.run_whole(source, replace(job, add=write, settle=kept.flush))
    passes.processes.gather(kept.bytes, piece.window.parts)
    return kept, result, piece


def keep_only(title: str) -> Pass:
    """A pass for `keep_rows` that does nothing else."""
    return Pass(title, lambda partial, rows, codes, extracted: None)


def _open(passes: Passes, source: RowSource, widths: Widths, name: str) -> KeptRows:
    rows = len(source.dataset)
    if passes.settings.folder is None:
        return KeptRows(rows, widths)
    path = passes.settings.folder / f"{name}.npy"
    with passes.processes.agreed():
        if passes.processes.rank == 0:
            finished = FinishedNodes(path.with_name(name))
            try:
                if finished.find_whole() or path.exists():
                    _check_kept(path, finished, source, widths)
            except DAMAGE as error:
                finished.forget()
                set_aside(path, error, "its rows are scored again")
            KeptRows(rows, widths, path)
    return KeptRows(rows, widths, path)


def _check_kept(path: Path, finished: FinishedNodes, source: RowSource, widths: Widths) -> None:
    """Refuses a file that does not hold what finished shards have written to it.

    Raises:
        OutputError: It cannot be read, or is of something else.
        ValueError: It is missing, or a shard's rows are others.
    """
    if not path.exists():
        raise ValueError("finished shards have written to it")
    kept, size = KeptRows(len(source.dataset), widths, path), source.shard_size
    for start, count in finished.find():
        for shard, digest in enumerate(finished.digests(start, count), start):
            rows = range(shard * size, min((shard + 1) * size, len(source.dataset)))
            if kept.digest(rows) != digest:
                raise ValueError(f"rows {rows.start} to {rows.stop - 1} are not what was written")


def exact_consensus(passes: Passes, source: RowSource, groups: Groups, matrix: Tensor) -> GroupConsensus:
    """The paper's own consensus: the mean direction of z, which needs all z first.

    Args:
        passes: Runs the pass.
        source: The dataset.
        groups: Groups of its rows.
        matrix: S [l, D].
    """

    def add(partial: Partial, rows: Tensor, codes: Tensor, extracted: Extracted) -> None:
        assert partial.consensus is not None
        partial.consensus.update(extracted.vectors, codes)

    def new_partial() -> Partial:
        return Partial(consensus=Consensus(groups.count, len(matrix), device=matrix.device))

    job = Pass("projecting gradients", add, new_partial, lambda window: groups.codes)
    kept, result, piece = keep_rows(passes, source, matrix, job)
    assert result.consensus is not None
    return GroupConsensus(groups, result.consensus.directions().float().cpu(), kept=kept, piece=piece)


def clustered_consensus(
    passes: Passes, source: RowSource, matrix: Tensor, spectrum: npt.NDArray[np.float32], config: SageConfig
) -> GroupConsensus:
    """Groups found in the sketch itself: rows whose gradients point alike, and their mean directions.

    Mini-batch k-means on directions in the sketch, weighted as coverage weights them; the main process clusters, and
    the others take its result.

    Args:
        passes: Runs the pass that writes z.
        source: The dataset.
        matrix: S [l, D].
        spectrum: [l], singular values, the largest 1.
        config: How many clusters (fewer where fewer rows have a gradient), the seed and the spectrum's power.
    """
    kept, _, piece = keep_rows(passes, source, matrix, keep_only("finding clusters"))
    codes, centres = np.zeros(len(piece.status), dtype=np.int64), np.zeros((0, len(matrix)), dtype=np.float32)
    with passes.processes.agreed():
        if passes.processes.rank == 0:
            scored = np.flatnonzero(piece.status == SCORED)
            directions = GradientDirections(PartOf(kept.sketched, scored), spectrum, config.spectrum_power)
            count = min(config.num_clusters, len(scored))
            with stage("clustering rows", unit="parts", shown=passes.settings.progress):
                clusters, centres = cluster(directions, np.arange(len(scored)), count, config.seed)
            used, codes[scored] = np.unique(clusters, return_inverse=True)
            centres = centres[used]
    codes, centres = passes.processes.array_from_main(codes), passes.processes.array_from_main(centres)
    groups = Groups(CLUSTERS, codes.astype(np.int32), [f"cluster {number}" for number in range(len(centres))], {})
    sums = Consensus(groups.count, len(matrix))
    for rows in blocks(len(codes)):
        sums.update(kept.read(rows), torch.from_numpy(codes[rows]))
    place = NearestCentre(centres, spectrum, config.spectrum_power)
    return GroupConsensus(groups, sums.directions().float(), place, kept, piece)
