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
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset, IterableDataset
from datasets.config import HF_DATASETS_CACHE
from torch import Tensor, nn

from ..config import CLUSTERS, SageConfig, check_strategy
from ..data.batches import Batcher, BatchSource, RowSource, check_dataset
from ..data.columns import find_groups, find_labels, find_text_classes, open_source, open_stream
from ..data.encoding import Collator
from ..data.groups import Groups
from ..data.status import STATUSES
from ..errors import ConfigError
from ..gradients import GradientCollector
from ..gradients.losses.per_example import LossFunction
from ..passes.embeddings import check_embeddings
from ..passes.exact_consensus import ClusteredGroups, ExactConsensus
from ..passes.gradient_cache import find_cache
from ..passes.memory import STREAM_SHARDS, check_memory, check_stream, plan_consensus
from ..passes.merge_tree import Partial
from ..passes.resume import find_checkpoint
from ..passes.run import GradientPasses, check_any_scored
from ..passes.target import NearestTarget, Target, check_target, consensus_of_target
from ..scoring.agreement import Consensus
from ..scoring.sketch import FrequentDirections
from ..selection.choice import needed
from ..selection.selection import Selection
from ..selection.signals import Material
from ..selection.stream_choice import choice_for, stream_strategy
from ..selection.stream_selection import StreamSelection
from ..strategies import SIGNALS, STRATEGIES
from ..strategies.coverage import spectrum_weights
from ..strategies.quotas import resolve_budget
from ..utils.rng import isolated_rng
from .brief import say_check, say_targets
from .gather import fit_stats, gather_material, make_selection
from .mapping import ScoredInMap
from .stream import StreamPasses

logger = logging.getLogger(__name__)

# Rows of the batch that is compared with rows alone before the first pass.
CHECKED_ROWS = 4


class SageSelector(ScoredInMap):
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
        self._outside = [processing_class, data_collator, loss_function]
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
        self._stream: StreamPasses | None = None
        self._exact: ExactConsensus | ClusteredGroups | NearestTarget | None = None
        self._streaming = True
        self._fitted = 0.0
        self._spectrum: npt.NDArray[np.float32] = np.zeros(0, dtype=np.float32)

    # ------------------------------------------------------------------- pass 1
    def fit(self, dataset: Dataset | IterableDataset) -> SageSelector:
        """Pass 1: sketches the gradients of all rows and finds the consensus directions.

        With `consensus="exact"` a further pass writes the sketched gradients to a temporary file, which `select`
        reads.

        Args:
            dataset: Raw or prepared rows, N >= 1; or a stream of them, read from its beginning in every pass.

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
        if isinstance(dataset, IterableDataset):
            return self._fit_stream(dataset)
        source = self._open(check_dataset(dataset))
        groups = self._groups = find_groups(self.collector.model, dataset, self.config.group_by)
        about_rows = (self.collector.width, self.collector.device, len(source.shards()))
        streaming = self._streaming = plan_consensus(self.config, *about_rows, groups.count)
        cache = find_cache(self._cache_dir, self.config, self.collector, dataset, self._outside)
        folder = find_checkpoint(
            self._checkpoint_dir, self.config, self.collector, dataset, groups.codes, self._outside
        )
        self._passes = GradientPasses(
            self.collector,
            self.config.seed,
            len(dataset),
            self._progress,
            cache=cache,
            checkpoint=folder,
            workers=self.config.num_workers,
            recheck_every=self.config.recheck_every if self.config.check_gradients else 0,
        )
        self._exact = None
        codes = torch.from_numpy(groups.codes)
        missing = [shard for number, shard in enumerate(source.shards()) if not (cache and cache.holds(number))]
        say_targets(self.collector, self.config)
        if missing:
            self._check_gradients(source)
            if cache is not None:
                cache.check_space(sum(map(len, missing)), self.collector.width)
        say_check(self.collector, self.config, not missing)
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
                partial.consensus.update(gradients, codes[rows].long())

        result, _ = self._passes.run(source, "sketching gradients", new_partial, add)
        self._settle(result, np.bincount(self._passes.status, minlength=STATUSES))
        if result.consensus is None:
            assert self._matrix is not None
            if self.config.group_by == CLUSTERS:
                found = ClusteredGroups(self._passes, source, self._matrix, self._spectrum, self.config)
                self._exact, self._groups = found, found.groups
            else:
                self._exact = ExactConsensus(self._passes, source, codes, groups.count, self._matrix)
            self.directions = self._exact.directions
        return self

    def _fit_stream(self, stream: IterableDataset) -> SageSelector:
        check_stream(self.config)
        with isolated_rng(self.config.seed):
            source = open_stream(self.collector.model, stream, self.config, *self._outside[:2])
            self._check_gradients(source.beginning())
        say_targets(self.collector, self.config)
        say_check(self.collector, self.config, False)
        check_memory(self.config, self.collector.width, self.collector.device, STREAM_SHARDS, 1)
        self._encoder, self._streaming, self._exact = source.encoder, True, None
        source.batch_size = self._batch_size()
        kept = (self._checkpoint_dir, self._outside)
        self._stream = StreamPasses(self.collector, self.config, source, self._progress, *kept)
        result, self._groups = self._stream.fit()
        self._settle(result, self._stream.tally.statuses)
        return self

    def _settle(self, result: Partial, statuses: npt.NDArray[np.int64]) -> None:
        """Takes over what the first pass gathered; `statuses` are counts of rows by status."""
        check_any_scored(statuses)
        self.sketch = result.sketch
        assert self.sketch is not None
        # Only directions of z count from here on: a sketch of length 1 keeps huge gradients from overflowing.
        largest = self.sketch.singular_values[0]
        self._matrix = self.sketch.sketch / largest.to(self.sketch.dtype)
        self._spectrum = (self.sketch.singular_values / largest).float().cpu().numpy()
        if self.config.spectrum_power is not None:
            weights = spectrum_weights(self._spectrum, self.config.spectrum_power - 1.0)
            self._matrix = self._matrix * torch.from_numpy(weights).to(self._matrix)[:, None]
        if result.consensus is not None:
            self.directions = result.consensus.directions(self._matrix).float()

    # ------------------------------------------------------------------- choose
    @overload
    def select(
        self, dataset: Dataset, *, target: Target | None = None, target_shares: Mapping[str, float] | None = None
    ) -> Selection: ...
    @overload
    def select(self, dataset: IterableDataset) -> StreamSelection: ...  # type: ignore[overload-cannot-match]
    def select(
        self,
        dataset: Dataset | IterableDataset,
        *,
        target: Target | None = None,
        target_shares: Mapping[str, float] | None = None,
    ) -> Selection | StreamSelection:
        """Both passes, then the choice.

        Args:
            dataset: As for `fit`.
            target: A small dataset of what the model is to be good at, or several by name: rows are scored by how they
                agree with the target's gradients instead of each other's, and the highest are kept where the strategy
                is "auto". With several, each row counts for the target that it agrees with most.
            target_shares: Of several targets, how much of the budget each gets; as much as the others by default.

        Returns:
            The selection; `.dataset` is the filtered dataset. Of a stream, a `StreamSelection` with the same rows that
            `strategy="agreement"` gives of a dataset of the same rows; its `.dataset` is a stream.

        Raises:
            BudgetError: Both or neither of fraction and num_examples are set, or more is asked than there is.
            ConfigError: The settings need what a stream has not: its length, or rows side by side.
            DatasetError: A stream gives other rows when it is read again.
            SageError: As for `fit`.
        """
        if isinstance(dataset, IterableDataset):
            if target is None:
                return self._select_stream(dataset)
            raise ConfigError("A stream has no target yet", where="target", fix="Make the stream a Dataset.")
        started = time.perf_counter()
        resolve_budget(len(check_dataset(dataset)), self.config.fraction, self.config.num_examples)
        config = self.config
        if target is not None and config.strategy == "auto":  # the aim is the target, not to stand for all rows
            config = replace(config, strategy="agreement")
        material = self.gather(dataset, needed(config), target=target, target_shares=target_shares)
        stats: dict[str, Any] = {
            "fit_seconds": self._fitted - started,
            "score_seconds": time.perf_counter() - self._fitted,
        }
        if target is not None:
            stats["targets"] = list(target) if isinstance(target, Mapping) else ["target"]
        return self.choose(dataset, material, config, **stats)

    def choose(
        self, dataset: Dataset, material: Material, config: SageConfig | None = None, **stats: Any
    ) -> Selection:
        """The selection that a configuration makes of what `gather` gathered last, without a pass.

        Args:
            dataset: That was gathered from.
            material: What `gather` returned.
            config: Budget, strategy, gate, balance and seed; the selector's own by default.
            stats: What else `Selection.stats` is to tell.

        Raises:
            BudgetError: Both or neither of fraction and num_examples are set, or more is asked than there is.
            ConfigError: The strategy needs what was not gathered.
        """
        told = {**self._fit_stats(self._passes.processes.count, dataset), **stats}
        about = (self.collector.model, dataset.features, self._encoder)
        told["classes"] = find_text_classes(*about, dataset.unique)
        return make_selection(config or self.config, dataset, material, self._passes, told)

    def gather(
        self,
        dataset: Dataset,
        needs: Iterable[str] = SIGNALS,
        *,
        target: Target | None = None,
        target_shares: Mapping[str, float] | None = None,
    ) -> Material:
        """Both passes, and what strategies need beside the scores: `choose_rows` then chooses any number of times.

        Args:
            dataset: As for `fit`.
            needs: What of `sage_hf.strategies.SIGNALS` to gather; all by default.
            target: As for `select`.
            target_shares: The same.

        Raises:
            SageError: As for `fit`.
        """
        needs = set(needs)
        if target is not None:
            check_target(target, target_shares)
        if needs & {"embeddings", "el2n"}:
            check_embeddings(self._passes, self._open(check_dataset(dataset)))
        self.fit(dataset)
        source = self._open(dataset)
        assert self._groups is not None and self._matrix is not None and self.directions is not None
        if target is not None:
            about_rows = (self._passes, self.config, source, self._groups, self._matrix)
            self.directions, self._exact, self._groups = consensus_of_target(target, self._open, *about_rows)
        self._fitted = time.perf_counter()
        about = (self._passes, source, self._groups, self._matrix, self.directions)
        material = gather_material(*about, self._spectrum, needs, self._exact)
        material.labels = find_labels(self.collector.model, dataset)
        if isinstance(target, Mapping):
            material.shares = np.array([(target_shares or {}).get(name, 1.0) for name in target])
        self._exact = None
        return material

    def _select_stream(self, stream: IterableDataset) -> StreamSelection:
        started = time.perf_counter()
        choice = choice_for(self.config)
        self._fit_stream(stream)
        fitted = time.perf_counter()
        assert self._stream is not None and self._groups is not None
        selection = self._stream.score(self._groups, self._agreement, choice)
        selection.stats.update(
            **self._fit_stats(self._stream.processes.count, stream),
            strategy=stream_strategy(self.config),
            fit_seconds=fitted - started,
            score_seconds=time.perf_counter() - fitted,
        )
        return selection

    def _fit_stats(self, processes: int, dataset: Dataset | IterableDataset) -> dict[str, Any]:
        assert self.sketch is not None
        group_by = self._groups.column if self._groups else None
        return fit_stats(self.sketch, self.collector, dataset, group_by, self._streaming, processes)

    # ------------------------------------------------------------------ internals
    def _open(self, dataset: Dataset) -> RowSource:
        with isolated_rng(self.config.seed):  # a transform of the dataset may draw
            source = self._open_source(dataset)
        self._encoder = source.encoder
        source.batch_size = self._batch_size()
        return source

    def _open_source(self, dataset: Dataset) -> RowSource:
        return open_source(self.collector.model, dataset, self.config, self.processing_class, self.data_collator)

    def _check_gradients(self, source: BatchSource) -> None:
        """Before the long run: do rows in a batch have the gradients that they have alone?"""
        if self.config.check_gradients:
            with isolated_rng(self.config.seed):
                self.collector.check(*source.sample(CHECKED_ROWS))
