"""Pass 2 as an ordinary `dataset.map`: rows scored batch by batch, cached by `datasets` under what determines them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets.fingerprint import Hasher
from datasets.formatting.formatting import LazyRow
from torch import Tensor

from ..config import SageConfig
from ..data.batches import Batcher, as_rows
from ..data.groups import Groups
from ..data.status import LOSS_COLUMN, SCORE_COLUMN, SCORED
from ..data.stream import HeldRows
from ..errors import ConfigError, GroupError, SageError, SketchError
from ..gradients import GradientCollector
from ..passes.run import GradientPasses
from ..scoring.agreement import agreement, sketched
from ..utils.fingerprint import model_fingerprint
from ..utils.rng import isolated_rng


class ScoredInMap:
    """The part of a selector that `dataset.map` sees: `score`, and a hash in the place of a pickle."""

    config: SageConfig
    collector: GradientCollector
    directions: Tensor | None
    _matrix: Tensor | None
    _encoder: Batcher | None
    _groups: Groups | None
    _passes: GradientPasses
    _outside: list[Any]

    def score(self, batch: dict[str, list[Any]]) -> dict[str, list[float | None]]:
        """Scores rows against the fitted sketch; made for `dataset.map(selector.score, batched=True)`.

        `datasets` caches the result under a hash of the weights, the configuration and the fit: the model itself is
        never pickled.

        Args:
            batch: {column: [B values]} with the columns of the dataset that was fitted.

        Returns:
            `sage_score`: [B] agreement in [-1, 1], and `sage_loss`: [B]; None for a row that cannot be scored.

        Raises:
            SketchError: `fit` was not called.
            GroupError: A row's group was not there at the fit.
        """
        encoder = self._encoder
        if self._matrix is None or encoder is None or self._groups is None:
            raise SketchError("The selector is not fitted", where="score", fix="Call selector.fit(dataset) first.")
        if isinstance(batch, LazyRow):
            raise ConfigError("score takes batches", where="dataset.map", fix="Pass batched=True to map.")
        rows = as_rows(batch)
        codes = torch.zeros(len(rows), dtype=torch.int64)
        if self._groups.column is not None:
            if self._groups.column not in batch:
                raise GroupError(
                    f"The batch has no column {self._groups.column!r}, only {sorted(batch)}",
                    where="score",
                    fix="Keep the column to group by when you call map.",
                )
            codes = torch.from_numpy(self._groups.codes_for([row[self._groups.column] for row in rows])).long()
        scores = np.full(len(rows), np.nan, dtype=np.float32)
        losses = np.full(len(rows), np.nan, dtype=np.float32)
        with isolated_rng(self.config.seed):
            for chosen, made in HeldRows(encoder, self._batch_size(), rows, seed=self.config.seed).batches(
                range(len(rows))
            ):
                if made is None:  # no tokens
                    continue
                gradients, loss, status = self._passes.gradients(made)
                usable = (status == SCORED).cpu().numpy()
                scores[chosen] = np.where(usable, self._agreement(gradients, codes[chosen]).cpu().numpy(), np.nan)
                losses[chosen] = np.where(usable, loss.float().cpu().numpy(), np.nan)
        return {SCORE_COLUMN: _nullable(scores), LOSS_COLUMN: _nullable(losses)}

    def _agreement(self, gradients: Tensor, codes: Tensor) -> Tensor:
        assert self._matrix is not None and self.directions is not None
        return agreement(sketched(gradients, self._matrix), self.directions, codes)

    def _batch_size(self) -> int:
        """One, once rows are known to be wrong in a batch: alone they are not padded, either."""
        return 1 if self.collector.one_at_a_time else self.config.batch_size

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as a hash of what determines the scores: all that `datasets` needs to name a cache file."""
        fitted: list[Any] = []
        if self._matrix is not None and self.directions is not None and self._groups is not None:
            fitted += [self._matrix.cpu().numpy().tobytes(), self.directions.cpu().numpy().tobytes()]
            fitted += sorted(self._groups.code_of.items(), key=str)
        state = (model_fingerprint(self.collector.model), self.config.to_dict(), fitted, self._outside)
        return _cannot_travel, (Hasher.hash(state),)


def _cannot_travel(fingerprint: str) -> Any:
    raise SageError(
        f"A selector cannot be sent to another process (it is {fingerprint})",
        where="dataset.map(num_proc=...)",
        fix="Call map without num_proc; a model scores its rows in batches, in this process.",
    )


def _nullable(values: npt.NDArray[np.float32]) -> list[float | None]:
    """Numbers as `datasets` keeps them: None for NaN."""
    return [None if np.isnan(value) else float(value) for value in values]
