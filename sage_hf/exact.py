"""The exact consensus: a pass that keeps every row's sketched gradient in a file, from which scores are read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from datasets import Dataset
from torch import Tensor

from .agreement import Consensus, agreement, unit
from .data import RowSource
from .passes import GradientPasses
from .projections import Projections
from .shards import Partial


class ExactConsensus:
    """Runs the pass, and scores from its file.

    Args:
        passes: Runs it; of its processes each writes and reads its own rows.
        source: The dataset.
        codes: [N] int32 groups.
        num_groups: G.
        matrix: S [l, D].

    Attributes:
        directions: [G, l] unit consensus directions.
    """

    def __init__(
        self, passes: GradientPasses, source: RowSource, codes: Tensor, num_groups: int, matrix: Tensor
    ) -> None:
        self._passes = passes
        self._source = source
        self._codes = codes
        self._file = projected = self._open_file(source.dataset, len(matrix))

        def add(partial: Partial, rows: Tensor, gradients: Tensor) -> None:
            z = unit(gradients).to(matrix) @ matrix.T
            assert partial.consensus is not None
            partial.consensus.update(z, codes[rows].long())
            projected.write(rows, z)

        def new_partial() -> Partial:
            return Partial(consensus=Consensus(num_groups, len(matrix), device=matrix.device))

        result, _ = passes.run(source, "projecting gradients", new_partial, add, projected.flush)
        assert result.consensus is not None
        self.directions = result.consensus.directions().float()

    def scores(self) -> npt.NDArray[np.float32]:
        """[N] agreement of all rows, the same in every process."""
        scores = np.full(len(self._codes), np.nan, dtype=np.float32)
        processes, parts = self._passes.processes, self._passes.last_parts
        own, step = parts[processes.rank], self._source.shard_size
        for start in range(own.start, own.stop, step):
            rows = range(start, min(start + step, own.stop))
            codes = self._codes[rows.start : rows.stop].long()
            scores[rows.start : rows.stop] = agreement(self._file.read(rows), self.directions.cpu(), codes).numpy()
        processes.gather(scores, parts)
        return scores

    def _open_file(self, dataset: Dataset, width: int) -> Projections:
        """The file of z: each process's own and temporary, or one for all beside the checkpoint."""
        folder = self._passes.checkpoint
        about = (len(dataset), width, dataset._fingerprint)
        if folder is None:
            return Projections(*about)
        if self._passes.processes.rank == 0:
            Projections(*about, folder / "z.npy")
        self._passes.processes.wait()
        return Projections(*about, folder / "z.npy")
