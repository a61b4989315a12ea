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
from ..data.batches import Batcher
from ..data.encoding import Row
from ..data.reading import as_rows
from ..data.status import LOSS_COLUMN, SCORE_COLUMN, SCORED
from ..data.stream import HeldRows
from ..errors import ConfigError, GroupError, SageError, SketchError
from ..passes.fit import Fit
from ..passes.run import Passes
from ..scoring.agreement import agreement, sketched
from ..utils.fingerprint import model_fingerprint
from ..utils.rng import isolated_rng


class ScoredInMap:
    """The part of a selector that `dataset.map` sees: `score`, and a hash in the place of a pickle."""

    config: SageConfig
    fitted: Fit | None
    _passes: Passes
    _encoder: Batcher | None
    _outside: list[Any]

    def score(self, batch: dict[str, list[Any]]) -> dict[str, list[float | None]]:
        """Scores rows against the fitted sketch; made for `dataset.map(selector.score, batched=True)`.

        `datasets` caches the result under a hash of the weights, the configuration and the fit: the model itself is
        never pickled. After `group_by="cluster"`, rows belong to the cluster that is nearest to them; after several
        targets, to the target that they agree with most.

        Args:
            batch: {column: [B values]} with the columns of the dataset that was fitted.

        Returns:
            `sage_score`: [B] agreement in [-1, 1], and `sage_loss`: [B]; None for a row that cannot be scored.

        Raises:
            SketchError: `fit` was not called.
            GroupError: A row's group was not there at the fit.
        """
        encoder, fit = self._encoder, self.fitted
        if fit is None or encoder is None:
            raise SketchError("The selector is not fitted", where="score", fix="Call selector.fit(dataset) first.")
        if isinstance(batch, LazyRow):
            raise ConfigError("score takes batches", where="dataset.map", fix="Pass batched=True to map.")
        rows = as_rows(batch)
        codes = _codes(fit, batch, rows)
        scores = np.full(len(rows), np.nan, dtype=np.float32)
        losses = np.full(len(rows), np.nan, dtype=np.float32)
        with isolated_rng(self.config.seed):
            held = HeldRows(encoder, self._batch_size(), rows, seed=self.config.seed)
            for chosen, made in held.batches(range(len(rows))):
                if made is None:  # no tokens
                    continue
                extracted = self._passes.extract(made)
                z = sketched(extracted.vectors, fit.matrix)
                own = codes[chosen] if fit.consensus.place is None else torch.from_numpy(fit.consensus.place(z))
                usable = (extracted.status == SCORED).cpu().numpy()
                scores[chosen] = np.where(usable, agreement(z, fit.directions, own).cpu().numpy(), np.nan)
                losses[chosen] = np.where(usable, extracted.numbers.float().cpu().numpy(), np.nan)
        return {SCORE_COLUMN: _nullable(scores), LOSS_COLUMN: _nullable(losses)}

    def _batch_size(self) -> int:
        """One, once rows are known to be wrong in a batch: alone they are not padded, either."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as a hash of what determines the scores: all that `datasets` needs to name a cache file."""
        fitted: list[Any] = []
        if self.fitted is not None:
            groups, place = self.fitted.groups, self.fitted.consensus.place
            fitted += [each.cpu().numpy().tobytes() for each in (self.fitted.matrix, self.fitted.directions)]
            fitted += [*sorted(groups.code_of.items(), key=str), vars(place) if place is not None else None]
        state = (model_fingerprint(self._passes.extractor.model), self.config.to_dict(), fitted, self._outside)
        return _cannot_travel, (Hasher.hash(state),)


def _codes(fit: Fit, batch: dict[str, list[Any]], rows: list[Row]) -> Tensor:
    """[B] groups of rows, where they are a column's; zeros elsewhere."""
    column = fit.groups.column
    if column is None or fit.consensus.place is not None:
        return torch.zeros(len(rows), dtype=torch.int64)
    if column not in batch:
        raise GroupError(
            f"The batch has no column {column!r}, only {sorted(batch)}",
            where="score",
            fix="Keep the column to group by when you call map.",
        )
    return torch.from_numpy(fit.groups.codes_for([row[column] for row in rows])).long()


def _cannot_travel(fingerprint: str) -> Any:
    raise SageError(
        f"A selector cannot be sent to another process (it is {fingerprint})",
        where="dataset.map(num_proc=...)",
        fix="Call map without num_proc; a model scores its rows in batches, in this process.",
    )


def _nullable(values: npt.NDArray[np.float32]) -> list[float | None]:
    """Numbers as `datasets` keeps them: None for NaN."""
    return [None if np.isnan(value) else float(value) for value in values]
