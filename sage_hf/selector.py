"""The two passes over a dataset, and the choice.

    pass 1, fit      per-example gradients -> Frequent Directions sketch S and consensus directions
    pass 2, score    per-example gradients -> z = g S^T -> agreement with the group's consensus
    choose           scores -> quotas per group -> strategy -> rows

Axes: N rows of the dataset, B rows of a batch, D row width, l sketch size, G groups.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from datasets.config import HF_DATASETS_CACHE
from datasets.fingerprint import Hasher
from datasets.formatting.formatting import LazyRow
from torch import Tensor, nn

from .agreement import Consensus, agreement, unit
from .budget import resolve_budget
from .choice import choose_rows
from .config import SageConfig, check_strategy
from .data import Batcher, RowSource, as_rows, check_dataset, collate_checked
from .encoding import Collator
from .errors import ConfigError, GradientError, GroupError, SageError, SketchError
from .fingerprint import dataset_digest, model_fingerprint
from .finished import find_checkpoint
from .gradient_cache import find_cache
from .gradients import GradientCollector
from .gradients.loss import LossFunction
from .groups import Groups
from .memory import check_memory, is_streaming
from .opening import find_groups, open_source
from .passes import GradientPasses
from .projections import Projections
from .rng import isolated_rng
from .selection import LOSS_COLUMN, NOT_FINITE, SCORE_COLUMN, SCORED, ZERO_GRADIENT, Selection
from .shards import Partial
from .sketch import FrequentDirections
from .strategies import STRATEGIES

logger = logging.getLogger(__name__)

# Rows of the batch that is compared with rows alone before the first pass.
CHECKED_ROWS = 4


class SageSelector:
    """Chooses the rows of a dataset whose gradients agree with the consensus of their group.

    The model, its training modes, `requires_grad` flags, `.grad`s and hooks and the global random states are
    afterwards as they were before; nothing is downloaded or trained.

    Under `accelerate launch` or `torchrun`, call `fit` and `select` in every process: each takes its share of the
    rows, and ends with the same result, equal to the bit to that of one process (on CPUs that compute alike).

    Args:
        model: Any `torch.nn.Module` whose forward takes the batch's columns and returns a loss or logits; a
            PreTrainedModel first of all. It computes where it is.
        processing_class: Tokenizer, image processor or processor, for raw columns and padding.
        data_collator: Joins rows to a batch, instead of the default.
        loss_function: (outputs, batch) -> [B] losses, instead of the model's own.
        config: The settings.
        progress: Whether to show progress bars, on the main process.
        checkpoint_dir: Folder for what is finished of `fit` and `select`: after a kill, the same call with the same
            folder goes on from there, with any number of processes, and ends with the same result. All processes must
            see it. Nothing in it is ever deleted by itself. None keeps nothing.
        cache_dir: Where `config.cache_gradients` keeps rows; the folder of `datasets`' own caches by default. Nothing
            in it is ever deleted by itself.

    Raises:
        ConfigError: The strategy is unknown.
        TargetError: `config.target_modules` targets nothing.

    Example:
        >>> selector = SageSelector(model, processing_class=tokenizer, config=SageConfig(fraction=0.1))
        >>> selection = selector.select(dataset)
        >>> selection.dataset                        # the kept rows, with a column sage_score
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        processing_class: Any = None,
        data_collator: Collator | None = None,
        loss_function: LossFunction | None = None,
        config: SageConfig | None = None,
        progress: bool = True,
        cache_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.config = config or SageConfig()
        check_strategy(self.config.strategy, STRATEGIES)
        self.model = model
        self.processing_class = processing_class
        self.data_collator = data_collator
        self.collector = GradientCollector(
            model,
            target_modules=self.config.target_modules,
            projection=self.config.projection,
            loss_reduction=self.config.loss_reduction,
            loss_function=loss_function,
            seed=self.config.seed,
        )
        self.sketch: FrequentDirections | None = None
        self.directions: Tensor | None = None
        self._matrix: Tensor | None = None
        self._encoder: Batcher | None = None
        self._groups: Groups | None = None
        self._progress = progress
        self._checkpoint_dir = Path(checkpoint_dir) if checkpoint_dir is not None else None
        self._cache_dir = Path(cache_dir) if cache_dir is not None else Path(HF_DATASETS_CACHE) / "sage_hf"
        self._passes = GradientPasses(self.collector, self.config.seed, 0, progress)
        self._projected: Projections | None = None
        self._streaming = True

    # ------------------------------------------------------------------- pass 1
    def fit(self, dataset: Dataset) -> SageSelector:
        """Pass 1: sketches the gradients of all rows and finds the consensus directions.

        With `consensus="exact"` a further pass writes the sketched gradients to a temporary file, which `select`
        reads.

        Args:
            dataset: Raw or prepared rows, N >= 1.

        Returns:
            The selector itself.

        Raises:
            DatasetError: The dataset is empty, or its columns cannot be encoded.
            GroupError: The column to group by is missing, has nulls or is no scalar.
            LabelError: There are no labels.
            BatchAxisError: The collator packs rows.
            GradientError: No row has a usable gradient.
            ConfigError: The sketch does not fit into the memory.
        """
        source = self._open(check_dataset(dataset))
        groups = self._groups = find_groups(self.collector.model, dataset, self.config.group_by)
        streaming = self._streaming = is_streaming(self.config, groups.count, self.collector.width)
        self._check_memory(source, groups)
        outside = [self.processing_class, self.data_collator, self.collector.loss_function]
        cache = find_cache(self._cache_dir, self.config, self.collector, dataset, outside)
        folder = find_checkpoint(self._checkpoint_dir, self.config, self.collector, dataset, groups.codes, outside)
        self._passes = GradientPasses(self.collector, self.config.seed, len(dataset), self._progress, cache, folder)
        self._projected = None
        codes = torch.from_numpy(groups.codes.astype(np.int64))
        missing = [shard for number, shard in enumerate(source.shards()) if not (cache and cache.holds(number))]
        if missing:
            self._check_gradients(source)
            if cache is not None:
                cache.check_space(sum(map(len, missing)), self.collector.width)
        source.batch_size = self._batch_size()

        def new_partial() -> Partial:
            device = self.collector.device
            sketch = FrequentDirections(self.config.sketch_size, self.collector.width, device=device)
            sums = Consensus(groups.count, self.collector.width, device=device) if streaming else None
            return Partial(sketch, sums)

        def add(partial: Partial, rows: Tensor, gradients: Tensor) -> None:
            assert partial.sketch is not None
            partial.sketch.update(gradients)
            if partial.consensus is not None:
                partial.consensus.update(gradients, codes[rows])

        result, _ = self._passes.run(source, "sketching gradients", new_partial, add)
        if not (self._passes.status == SCORED).any():
            raise GradientError(
                f"No row has a usable gradient: {int((self._passes.status == NOT_FINITE).sum())} are not finite, "
                f"{int((self._passes.status == ZERO_GRADIENT).sum())} are exactly zero",
                where="dataset",
                fix="Check the labels (are all of them masked?), the model's weights, and that the loss of one row "
                "alone is not constant (a contrastive loss is).",
            )
        self.sketch = result.sketch
        assert self.sketch is not None
        # Only directions of z count from here on: a sketch of length 1 keeps huge gradients from overflowing.
        self._matrix = self.sketch.sketch / self.sketch.singular_values[0].to(self.sketch.dtype)
        if result.consensus is not None:
            self.directions = result.consensus.directions(self._matrix).float()
        else:
            self._project(source, codes)
        return self

    def _project(self, source: RowSource, codes: Tensor) -> None:
        """The exact consensus: writes z of every row to a file and sums its directions."""
        groups = self._groups
        assert groups is not None and self._matrix is not None
        matrix = self._matrix
        projected = self._open_projections(source.dataset)

        def add(partial: Partial, rows: Tensor, gradients: Tensor) -> None:
            z = unit(gradients).to(matrix) @ matrix.T
            assert partial.consensus is not None
            partial.consensus.update(z, codes[rows])
            projected.write(rows, z)

        def new_partial() -> Partial:
            return Partial(consensus=Consensus(groups.count, self.config.sketch_size, device=self.collector.device))

        result, _ = self._passes.run(source, "projecting gradients", new_partial, add, projected.flush)
        assert result.consensus is not None
        self.directions = result.consensus.directions().float()
        self._projected = projected

    def _open_projections(self, dataset: Dataset) -> Projections:
        """The file of z: each process's own and temporary, or one for all beside the checkpoint."""
        folder = self._passes.checkpoint
        about = (len(dataset), self.config.sketch_size, dataset._fingerprint)
        if folder is None:
            return Projections(*about)
        if self._passes.processes.rank == 0:
            Projections(*about, folder / "z.npy")
        self._passes.processes.wait()
        return Projections(*about, folder / "z.npy")

    # ------------------------------------------------------------------- pass 2
    def score(self, batch: dict[str, list[Any]]) -> dict[str, list[float | None]]:
        """Scores rows against the fitted sketch; made for `dataset.map(selector.score, batched=True)`.

        `datasets` caches the result under a hash of the weights, the configuration and the fit: the model itself is
        never pickled.

        Args:
            batch: {column: [B values]} with the columns of the dataset that was fitted.

        Returns:
            `sage_score`: [B] agreement in [-1, 1], and `sage_loss`: [B]; None for a row that cannot be scored (its
            gradient is not finite, or exactly zero).

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
            codes = torch.from_numpy(
                self._groups.codes_for([row[self._groups.column] for row in rows]).astype(np.int64)
            )
        scores = np.full(len(rows), np.nan, dtype=np.float32)
        losses = np.full(len(rows), np.nan, dtype=np.float32)
        with isolated_rng(self.config.seed):
            features = encoder.encode(rows)
            order = sorted(range(len(rows)), key=lambda row: (-(encoder.length(features[row]) or 0), row))
            for start in range(0, len(order), self._batch_size()):
                chosen = order[start : start + self._batch_size()]
                made = collate_checked(encoder, [features[row] for row in chosen])
                gradients, loss, status = self._passes.gradients(made)
                usable = (status == SCORED).cpu().numpy()
                scores[chosen] = np.where(usable, self._agreement(gradients, codes[chosen]).cpu().numpy(), np.nan)
                losses[chosen] = np.where(usable, loss.float().cpu().numpy(), np.nan)
        return {SCORE_COLUMN: _nullable(scores), LOSS_COLUMN: _nullable(losses)}

    def _score_all(self, source: RowSource) -> npt.NDArray[np.float32]:
        groups = self._groups
        assert groups is not None
        codes = torch.from_numpy(groups.codes.astype(np.int64))
        scores = np.full(len(codes), np.nan, dtype=np.float32)
        if self._projected is not None and self._projected.fingerprint == source.dataset._fingerprint:
            processes, parts = self._passes.processes, self._passes.last_parts
            own = parts[processes.rank]  # each process wrote its own
            for start in range(own.start, own.stop, self.config.shard_size):
                rows = range(start, min(start + self.config.shard_size, own.stop))
                assert self.directions is not None
                z = self._projected.read(rows)
                scores[rows.start : rows.stop] = agreement(z, self.directions.cpu(), codes[list(rows)]).numpy()
            processes.gather(scores, parts)
        else:
            _, scores = self._passes.run(
                source,
                "scoring agreement",
                Partial,
                lambda _, rows, rows_gradients: self._agreement(rows_gradients, codes[rows]),
            )
        scores[self._passes.status != SCORED] = np.nan
        return scores

    # ------------------------------------------------------------------- choose
    def select(self, dataset: Dataset) -> Selection:
        """Both passes, then the choice.

        Args:
            dataset: As for `fit`.

        Returns:
            The selection; `.dataset` is the filtered dataset.

        Raises:
            BudgetError: Both or neither of fraction and num_examples are set, or more is asked than there is.
            SageError: As for `fit`.
        """
        started = time.perf_counter()
        budget = resolve_budget(len(check_dataset(dataset)), self.config.fraction, self.config.num_examples)
        self.fit(dataset)
        fitted = time.perf_counter()
        scores = self._score_all(self._open(dataset))
        scored = time.perf_counter()
        indices = self._choose(scores, budget)
        assert self._groups is not None
        self._passes.losses[self._passes.status != SCORED] = np.nan
        selection = Selection(
            indices=indices,
            scores=scores,
            losses=self._passes.losses,
            groups=self._groups.codes,
            group_names=self._groups.names,
            status=self._passes.status,
            stats={},
            config=self.config.to_dict(),
            source_fingerprint=dataset._fingerprint,
            source=dataset,
        )
        self._projected = None
        selection.stats.update(self._stats(selection, fitted - started, scored - fitted))
        return selection

    def _choose(self, scores: npt.NDArray[np.float32], budget: int) -> npt.NDArray[np.int64]:
        assert self._groups is not None
        usable = self._passes.status == SCORED
        return choose_rows(self.config, self._groups, usable, scores, self._passes.losses, budget)

    def _stats(self, selection: Selection, fit_seconds: float, score_seconds: float) -> dict[str, Any]:
        assert self.sketch is not None
        scored = selection.status == SCORED
        return {
            "rows": len(selection.scores),
            "kept": len(selection),
            "set_aside": int((~scored).sum()),
            "energy": self.sketch.energy,
            "error_bound": self.sketch.error_bound,
            "squared_norm": self.sketch.squared_norm,
            "sketch_size": self.config.sketch_size,
            "row_width": self.collector.width,
            "target_weights": self.collector.num_target_weights,
            "consensus": "streaming" if self._streaming else "exact",
            "group_by": self._groups.column if self._groups else None,
            "one_at_a_time": self.collector.one_at_a_time,
            "processes": self._passes.processes.count,
            "mean_score": float(selection.scores[scored].mean(dtype=np.float64)),
            "mean_score_kept": float(selection.scores[selection.indices].mean(dtype=np.float64)),
            "mean_loss": float(selection.losses[scored].mean(dtype=np.float64)),
            "fit_seconds": fit_seconds,
            "score_seconds": score_seconds,
            "model_fingerprint": model_fingerprint(self.collector.model),
            "source_digest": dataset_digest(selection.source) if selection.source is not None else None,
            "groups": selection.group_table,
        }

    # ------------------------------------------------------------------ internals
    def _agreement(self, gradients: Tensor, codes: Tensor) -> Tensor:
        assert self._matrix is not None and self.directions is not None
        return agreement(unit(gradients).to(self._matrix) @ self._matrix.T, self.directions, codes)

    def _open(self, dataset: Dataset) -> RowSource:
        with isolated_rng(self.config.seed):  # a transform of the dataset may draw
            source = self._open_source(dataset)
        self._encoder = source.encoder
        source.batch_size = self._batch_size()
        return source

    def _open_source(self, dataset: Dataset) -> RowSource:
        return open_source(self.collector.model, dataset, self.config, self.processing_class, self.data_collator)

    def _check_gradients(self, source: RowSource) -> None:
        """Before the long run: do rows in a batch have the gradients that they have alone?"""
        if self.config.check_gradients:
            with isolated_rng(self.config.seed):
                self.collector.check(*source.sample(CHECKED_ROWS))

    def _batch_size(self) -> int:
        """One, once rows are known to be wrong in a batch: alone they are not padded, either."""
        return 1 if self.collector.one_at_a_time else self.config.batch_size

    def _check_memory(self, source: RowSource, groups: Groups) -> None:
        consensus = groups.count if self._streaming else 0
        check_memory(self.config, self.collector.width, self.collector.device, len(source.shards()), consensus)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as a hash of what determines the scores: all that `datasets` needs to name a cache file."""
        fitted: list[Any] = []
        if self._matrix is not None and self.directions is not None and self._groups is not None:
            fitted += [self._matrix.cpu().numpy().tobytes(), self.directions.cpu().numpy().tobytes()]
            fitted += sorted(self._groups.code_of.items(), key=str)
        outside = [self.processing_class, self.data_collator, self.collector.loss_function]
        state = (model_fingerprint(self.collector.model), self.config.to_dict(), fitted, outside)
        return _cannot_travel, (Hasher.hash(state),)


def _cannot_travel(fingerprint: str) -> SageSelector:
    raise SageError(
        f"A selector cannot be sent to another process (it is {fingerprint})",
        where="dataset.map(num_proc=...)",
        fix="Call map without num_proc; a model scores its rows in batches, in this process.",
    )


def _nullable(values: npt.NDArray[np.float32]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
