"""While a pass runs, a row in every few thousand is compared with itself alone.

The check before a pass sees a few rows. A model that goes wrong later (a cache that fills, a branch that only some
rows take, rows of another kind further down) is found here, and the run stops with the row named.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from ..data.status import SCORED
from ..errors import GradientError
from ..gradients import GradientCollector
from ..gradients.batch_axis import rows_of


class Recheck:
    """Which rows are compared, and the comparison.

    Args:
        collector: Whose rows they are.
        every: One row of so many; 0 for none.

    Attributes:
        rows: How many were compared.
        seconds: How long that took.
    """

    def __init__(self, collector: GradientCollector, every: int) -> None:
        self._collector, self._every = collector, every
        self._longest = torch.zeros(())  # of the gradients until now, on their device: nobody waits for it
        self.rows = 0
        self.seconds = 0.0

    def look_at(self, rows: Tensor, batch: dict[str, Any], gradients: Tensor, losses: Tensor, status: Tensor) -> None:
        """Compares the rows of a batch that end a stretch of rows, and were scored.

        Args:
            rows: [B] row numbers of the source.
            batch: The batch.
            gradients: [B, D], as taken.
            losses: [B], as taken.
            status: [B].

        Raises:
            GradientError: A row is another one alone.
        """
        if not self._every or self._collector.one_at_a_time:
            return  # rows that are taken alone need no comparison with themselves
        self._longest = torch.maximum(self._longest.to(gradients), gradients.norm(dim=1).max())
        for index, number in enumerate(rows.tolist()):
            if number % self._every == self._every - 1 and int(status[index]) == SCORED:
                started = time.perf_counter()
                alone = rows_of(batch, slice(index, index + 1))
                if wrong := self._collector.compare(alone, gradients[index], losses[index], float(self._longest)):
                    raise GradientError(
                        f"In its batch, row {number} is another one than alone: {wrong}. Earlier rows were right",
                        where=f"row {number}",
                        fix="Look at what its batch holds and at what the model keeps between batches; "
                        "batch_size=1 scores rows alone.",
                    )
                self.rows += 1
                self.seconds += time.perf_counter() - started
