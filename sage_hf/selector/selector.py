"""The two passes over a dataset, of which one goes through the model, and the choice.

    pass 1, fit      per-example gradients -> a file, a Frequent Directions sketch S and consensus directions
    pass 2, score    gradients in the file -> z = g S^T -> agreement with the group's consensus
    choose           scores -> quotas per group -> strategy -> rows

Axes: N rows of the dataset, B rows of a batch, D row width, l sketch size, G groups.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Set
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from datasets import Dataset, IterableDataset
from datasets.config import HF_DATASETS_CACHE
from torch import Tensor, nn

from ..config import CACHE_DTYPES, SageConfig
from ..data.batches import BatchSource, RowSource, check_dataset
from ..data.columns import find_groups, open_source, open_stream
from ..data.encoding import Collator
from ..data.groups import Groups
from ..data.stream import StreamSource
from ..errors import ConfigError
from ..gradients import GradientCollector
from ..gradients.adam import AdamUpdates
from ..gradients.losses.per_example import LossFunction
from ..gradients.model.state import num_weights
from ..passes.check import check_alike, check_gradients
from ..passes.embeddings import EmbeddingReader
from ..passes.extractor import GradientExtractor
from ..passes.fit import Fit, RunKey
from ..passes.gradient_cache import FORMAT_VERSION as CACHE_FORMAT
from ..passes.gradient_cache import GradientCache
from ..passes.job import PassSettings
from ..passes.kept_rows import Widths, check_disk
from ..passes.memory import STREAM_SHARDS, check_memory, check_stream, is_streaming, plan_consensus
from ..passes.resume import FORMAT_VERSION, hold_run, say_if_other_format
from ..passes.run import Passes
from ..passes.target import Aim, Target, check_aimed, check_target, consensus_of_target
from ..scoring.sketch import FrequentDirections
from ..selection.resolve import as_measured, needed, resolve
from ..selection.selection import Selection
from ..selection.signals import RowSignals
from ..selection.stream_selection import StreamSelection
from ..strategies import SIGNALS
from ..strategies.quotas import resolve_budget
from ..utils.bars import at, planned, replan, stage
from ..utils.deprecation import renamed_arguments
from ..utils.given import given_folder
from ..utils.interruption import told_if_interrupted
from ..utils.rng import isolated_rng
from .brief import say_check, say_rows, say_targets
from .fit import fit_dataset, fit_stream, reader_for
from .gather import describe, describe_stream, gather_signals, shared_choice
from .mapping import ScoredInMap
from .stages import CHOOSING, PREPARING, about_kept, fit_stages, num_targets, rows_of_run, stream_stages
from .stream import choose_from_stream, stream_selection


class SageSelector(ScoredInMap):
    """Chooses the rows of a dataset whose gradients agree with the consensus of their group.

    The model, its training modes, `requires_grad` flags, `.grad`s and hooks, and the global random states are the
    same afterwards as before; nothing is downloaded or trained.

    Under `accelerate launch` or `torchrun`, call `fit` and `select` in every process: each takes its share of the
    rows, and all get the same result, equal to the bit to that of one process (on CPUs that compute alike).

    Args:
        model: Any `torch.nn.Module` whose forward takes the batch's columns and returns a loss or logits,
            such as a PreTrainedModel. It stays on its device.
        processing_class: Tokenizer, image processor or processor, for raw columns and padding.
        data_collator: Joins rows to a batch, instead of the default.
        loss_function: (outputs, batch) -> [B] losses, instead of the model's own.
        config: The settings.
        progress: Whether to show progress, on the main process: a line on a terminal or in a notebook, elsewhere
            one every half minute.
        resume_dir: Folder for the finished parts of `fit` and `select`: if a run is killed, the same call with the
            same folder continues from there, with any number of processes, and gives the same result; damaged parts
            are run again. All processes must be able to read it; one run at a time may use it. Nothing in it is
            deleted automatically, except for the gradient rows of a finished run. None: nothing is stored.
        optimizer_state: Folder of the Trainer checkpoint that `model` was loaded from, with its `optimizer.pt`. With a
            target, the updates that Adam would make of the rows are then compared with the target's plain gradients,
            as in LESS. Takes exact gradients of a few rows at a time: for adapters and small models.
        cache_dir: Folder for the gradient rows of `config.cache_gradients` "float16" and "float32"; by default, the
            folder of `datasets`' own caches. Nothing in it is deleted automatically.

    Raises:
        ConfigError: The strategy is unknown, or the optimizer's state is not the model's.
        TargetError: `config.target_modules` targets nothing.

    Example:
        >>> selector = SageSelector(model, processing_class=tokenizer, config=SageConfig(fraction=0.1))
        >>> selection = selector.select(dataset)
        >>> selection.dataset                        # the kept rows, with a column sage_score
    """

    @renamed_arguments(checkpoint_dir="resume_dir")
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
        resume_dir: str | os.PathLike[str] | None = None,
        optimizer_state: str | os.PathLike[str] | None = None,
    ) -> None:
        self.config = config or SageConfig()
        self.model = model
        self.processing_class, self.data_collator = processing_class, data_collator
        self._outside = [processing_class, data_collator, loss_function]
        self.collector = GradientCollector.of(model, self.config, loss_function)
        self._updates: AdamUpdates | None = None
        if optimizer_state is not None:
            self._updates = AdamUpdates(self.collector, optimizer_state)
            self._outside.append(self._updates.fingerprint)
        self.config = self.config.settled(self.collector.width, num_weights(self.collector.model))
        self.fitted: Fit | None = None
        self._progress = progress
        self._resume_dir = given_folder(resume_dir, "resume_dir")
        self._cache_dir = given_folder(cache_dir, "cache_dir") or Path(HF_DATASETS_CACHE) / "sage_hf"
        self._passes = self._new_passes()
        self._encoder, self._held = None, ExitStack()  # of the last fit; of this run

    @property
    def sketch(self) -> FrequentDirections | None:
        """The sketch of the last fit; None before one."""
        return self.fitted.sketch if self.fitted else None

    @property
    def directions(self) -> Tensor | None:
        """Consensus directions of the last fit, [G, l]; None before one."""
        return self.fitted.directions if self.fitted else None

    # ------------------------------------------------------------------- pass 1
    def fit(self, dataset: Dataset | IterableDataset) -> SageSelector:
        """Pass 1: sketches the gradients of all rows and finds the consensus directions.

        With `consensus="exact"` a further pass writes the sketched gradients to a temporary file.

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
        check_aimed(self._updates, False)
        with planned(fit_stages(self.config, None), shown=self._progress), rows_of_run(self):
            if isinstance(dataset, IterableDataset):
                self._fit_stream(dataset)
            else:
                self._fit_dataset(dataset)
        return self

    def _fit_dataset(self, dataset: Dataset, needs: Set[str] | None = None, targets: int = 0) -> tuple[Fit, RowSource]:
        """Pass 1; `needs` of the passes that follow, None where there are none."""
        with stage(PREPARING, shown=self._progress):
            source, groups, key = self._prepare(dataset, needs, targets)
        config = as_measured(self.config, has_target=targets > 0)
        fit = fit_dataset(self._passes, source, groups, config, key)
        self.fitted = replace(fit, consensus=fit.consensus.for_new_rows())
        return fit, source

    def _prepare(self, dataset: Dataset, needs: Set[str] | None, targets: int) -> tuple[RowSource, Groups, RunKey]:
        """All that comes before the first row of a dataset goes through the model; the passes are ready then."""
        at("opening rows")
        source, config = self._open(check_dataset(dataset)), as_measured(self.config, has_target=targets > 0)
        with self._passes.processes.agreed():
            groups = self._groups(dataset)
            shards, width = source.shards(), self.collector.width
            plan_consensus(config, width, self.collector.device, len(shards), groups.count)
            is_kept = self._resume_dir is not None or config.cache_gradients in CACHE_DTYPES
            key = RunKey.of(self.collector.model, dataset, config.gradient_settings, self._outside, is_kept)
            folder = self._folder(key, config, consensus=config.consensus, groups=groups.codes)
            say_targets(self.collector, config)
            cache = None
            if config.cache_gradients in CACHE_DTYPES:
                place = self._cache_dir / key.folder(format=CACHE_FORMAT)
                cache = GradientCache(place, str(config.cache_gradients))
            missing = [shard for number, shard in enumerate(shards) if not (cache and cache.holds(number))]
            if missing:
                self._check_gradients(source)
            reader = reader_for(self.collector, source, needs or set(), bool(cache and missing), config.seed)
            widths = Widths(int(config.sketch_size), *((reader.width, reader.input_width) if reader else ()))
            embedding_width = widths.embedding + widths.inputs
            if not (streaming := is_streaming(config, groups.count, width)):
                exact = replace(self.config, consensus="exact")
                replan(fit_stages(self.config, needs, targets), fit_stages(exact, needs, targets))
            reserved = 0
            if needs or not streaming:
                reserved = check_disk(len(dataset), widths, folder)
            if cache is not None:
                cache.check_space(sum(map(len, missing)), width, embedding_width)
            elif config.cache_gradients == "auto" and not (needs is None and streaming):
                cache = self._cache_of_run(folder, embedding_width, reserved)
            self._passes = self._new_passes(folder, cache, reader)
        hold_run(folder, self._held)
        say_check(self.collector, config, not missing)
        say_rows(cache, len(dataset), width, embedding_width)
        source.batch_size = self._batch_size()
        return source, groups, key

    def _fit_stream(self, stream: IterableDataset, needs: Set[str] | None = None) -> tuple[Fit, StreamSource]:
        """Pass 1 over a stream; `needs` as of `_fit_dataset`."""
        with stage(PREPARING, shown=self._progress):
            source, key = self._prepare_stream(stream, needs)
        self.fitted = fit_stream(self._passes, source, self.config, key)
        return self.fitted, source

    def _prepare_stream(self, stream: IterableDataset, needs: Set[str] | None) -> tuple[StreamSource, RunKey]:
        config = self.config
        self._check_alike(None)
        check_stream(config)
        with isolated_rng(config.seed):
            source = open_stream(self.collector.model, stream, config, *self._outside[:2])
            beginning = source.beginning()
            self._check_gradients(beginning)
        reader = reader_for(self.collector, beginning, needs or set(), False, config.seed)
        say_targets(self.collector, config)
        say_check(self.collector, config, False)
        check_memory(config, self.collector.width, self.collector.device, STREAM_SHARDS, 1)
        self._encoder, source.batch_size = source.encoder, self._batch_size()
        with self._passes.processes.agreed():
            key = RunKey.of(self.collector.model, source.example, config.gradient_settings, self._outside)
            folder = self._folder(key, config, group_by=config.group_by)
            embedding_width = reader.width + reader.input_width if reader else 0
            is_cached = config.cache_gradients == "auto" and needs is not None
            cache = self._cache_of_run(folder, embedding_width) if is_cached else None
            self._passes = self._new_passes(folder, cache, reader)
        hold_run(folder, self._held)
        say_rows(cache, None, self.collector.width, embedding_width)
        return source, key

    def _new_passes(
        self, folder: Path | None = None, cache: GradientCache | None = None, reader: EmbeddingReader | None = None
    ) -> Passes:
        config, every = self.config, self.config.recheck_every if self.config.check_gradients else 0
        is_half = config.cache_gradients != "float32"  # with and without a file alike
        settings = PassSettings(config.seed, self._progress, config.num_workers, folder, is_half)
        return Passes(GradientExtractor(self.collector, every, reader, self._updates), settings, cache)

    def _cache_of_run(self, folder: Path | None, embedding_width: int, reserved: int = 0) -> GradientCache:
        """Gradient rows that go with this run: in its folder, where a killed one goes on, or in a temporary one."""
        place = folder and folder / ("gradients-with-embeddings" if embedding_width else "gradients")
        return GradientCache.of_run(place, self._passes.processes.count, reserved)

    def _about_interruption(self) -> str:
        return about_kept(self._passes, self._resume_dir)

    def _folder(self, key: RunKey, config: SageConfig, **more: Any) -> Path | None:
        """Where what is finished of a run lies: on budget, strategy and balance nothing of it depends."""
        if self._resume_dir is None:
            return None
        say_if_other_format(self._resume_dir)
        settings = {name: getattr(config, name) for name in ("sketch_size", "spectrum_power", "max_row_norm")}
        return self._resume_dir / key.folder(format=FORMAT_VERSION, **settings, **more)

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
                is "auto". With several, each row counts for the target that it agrees with most, or is scored by the
                largest or the mean of its agreements (`config.target_reduction`).
            target_shares: Of several targets, how much of the budget each gets; as much as the others by default.

        Returns:
            The selection; `.dataset` is the filtered dataset. Of a stream, a `StreamSelection`, whose `.dataset` is a
            stream: the rows that a dataset of the same rows gives, where the strategy judges rows by themselves
            ("agreement", "random") or there are no more than 32,768; else chosen from so many at a time.

        Raises:
            BudgetError: Both or neither of fraction and num_examples are set, or more is asked than there is.
            ConfigError: The settings need what a stream has not: its length, or rows side by side.
            DatasetError: A stream gives other rows when it is read again.
            SageError: As for `fit`.
        """
        if isinstance(dataset, IterableDataset):
            if target is None:
                check_aimed(self._updates, False)
                return self._select_stream(dataset)
            raise ConfigError("Streams do not support a target yet", where="target", fix="Make the stream a Dataset.")
        resolve_budget(len(check_dataset(dataset)), self.config.fraction, self.config.num_examples)
        config = resolve(self.config, has_target=target is not None)
        needs, targets = needed(config), num_targets(target)
        with planned([*fit_stages(config, needs, targets), CHOOSING], shown=self._progress):
            signals = self.gather(dataset, needs, target=target, target_shares=target_shares)
            return self.choose(dataset, signals, config)

    def choose(self, dataset: Dataset, signals: RowSignals, config: SageConfig | None = None) -> Selection:
        """The selection that a configuration makes of what `gather` returned, without a pass.

        Args:
            dataset: That was gathered from.
            signals: What `gather` returned.
            config: Budget, strategy, gate, balance and seed; the selector's own by default.

        Raises:
            BudgetError: Both or neither of fraction and num_examples are set, or more is asked than there is.
            ConfigError: The strategy needs what was not gathered.
        """
        is_aimed = signals.stats is not None and signals.stats.targets is not None
        config, processes = resolve(config or self.config, has_target=is_aimed), self._passes.processes
        started = time.perf_counter()
        with told_if_interrupted(self._about_interruption), stage(CHOOSING, unit="parts", shown=self._progress):
            choice = shared_choice(config, signals, processes)
        selection = Selection.of(config, signals, dataset, choice, say=processes.rank == 0)
        selection.stats.choose_seconds = time.perf_counter() - started
        return selection

    def gather(
        self,
        dataset: Dataset,
        needs: Iterable[str] = SIGNALS,
        *,
        target: Target | None = None,
        target_shares: Mapping[str, float] | None = None,
    ) -> RowSignals:
        """Both passes, and what strategies need beside the scores: `choose` then chooses any number of times.

        Args:
            dataset: As for `fit`, but no stream, whose rows are not held.
            needs: What of `sage_hf.strategies.SIGNALS` to gather; all by default.
            target: As for `select`.
            target_shares: The same.

        Raises:
            SageError: As for `fit`.
        """
        aim = None if target is None else Aim(target, target_shares, self.config.target_reduction)
        check_aimed(self._updates, aim is not None)
        if aim is not None:
            check_target(aim)
        started, needs = time.perf_counter(), set(needs)
        targets = num_targets(target)
        with planned(fit_stages(self.config, needs, targets), shown=self._progress), rows_of_run(self):
            fit, source = self._fit_dataset(dataset, needs, targets)
            fitted = time.perf_counter()
            if aim is not None:
                consensus = consensus_of_target(aim, self._open, self._passes, source, fit)
                fit = replace(fit, consensus=consensus)
                self.fitted, self._encoder = replace(fit, consensus=consensus.for_new_rows()), source.encoder
            signals = gather_signals(self._passes, source, fit, needs)
        stats = describe(signals, fit, self.collector, dataset, source.encoder, self._passes.processes)
        if aim is not None:
            stats.targets, stats.target_shares, stats.adam = aim.names, aim.budget, self._updates is not None
            signals.shares = None if aim.budget is None else np.array(aim.budget)
        stats.fit_seconds, stats.score_seconds = fitted - started, time.perf_counter() - fitted
        return signals

    def _select_stream(self, stream: IterableDataset) -> StreamSelection:
        started, config = time.perf_counter(), self.config
        resolve_budget(2**62, config.fraction, config.num_examples)
        with planned(stream_stages(config), shown=self._progress), rows_of_run(self):
            fit, source = self._fit_stream(stream, needed(config))
            fitted = time.perf_counter()
            chosen = choose_from_stream(self._passes, source, fit, config)
        stats = describe_stream(fit, self.collector, source, chosen[0].meaning, self._passes.processes)
        stats.fit_seconds, stats.score_seconds = fitted - started, time.perf_counter() - fitted
        return stream_selection(self._passes, source, config, stats, chosen)

    def _open(self, dataset: Dataset) -> RowSource:
        self._check_alike(dataset)
        with isolated_rng(self.config.seed):  # a transform of the dataset may draw
            source = self._open_source(dataset)
        self._encoder, source.batch_size = source.encoder, self._batch_size()
        return source

    def _check_alike(self, dataset: Dataset | None) -> None:
        settings = {**self.config.to_dict(), "resume_dir": self._resume_dir}
        check_alike(self._passes.processes, self.collector.model, dataset, settings)

    def _open_source(self, dataset: Dataset) -> RowSource:
        return open_source(self.collector.model, dataset, self.config, self.processing_class, self.data_collator)

    def _groups(self, dataset: Dataset) -> Groups:
        return find_groups(self.collector.model, dataset, self.config.group_by)

    def _batch_size(self) -> int:
        return 1 if self.collector.one_at_a_time else int(self.config.batch_size)

    def _check_gradients(self, source: BatchSource) -> None:
        if self.config.check_gradients:
            at("checking gradients")
            check_gradients([self.collector, *([self._updates.collector] if self._updates else [])], source)
