"""`SageTrainer`: a Trainer that trains on a subset which follows the model.

    warm-up on all rows -> selection with the model as it is -> passes over the subset -> next selection -> ...

`transformers.Trainer` keeps its training loop. Three of its methods are told which rows an epoch is over and how many
steps there are in all (`_run_epoch`, `set_initial_training_values`, `_init_training_state`), and one puts the subset
into the checkpoint (`_save_checkpoint`).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from ..errors import ConfigError, GradientError
from ..gradients.losses.per_example import LossFunction
from ..gradients.model.state import unwrap
from ..hub.checks import check_push
from ..hub.provenance import describe_origin
from ..passes.processes import Processes
from ..selection.selection import Selection
from ..strategies.quotas import resolve_budget
from ..utils.interruption import told_if_interrupted
from ..utils.rng import default_seed
from .arguments import SageArguments
from .checkpoint import SELECTION_FOLDER, check_selection, checkpoint_to_resume, load_renamed, load_selection
from .loss import from_compute_loss_func, smoothed
from .pacer import Pacer
from .publishing import PublishesSelection
from .selector import TrainingSelector, check_encoded, check_trainable
from .timeline import PassSize, Segment, Timeline, plan

logger = logging.getLogger(__name__)


class SageMixin(PublishesSelection):
    """Selection inside a training; goes in front of `Trainer` or any subclass of it.

    The first `sage_warmup_epochs` go over all rows. Then the rows are scored by the model as trained so far, the best
    are kept, and every epoch after that is a pass over the subset, which is chosen anew every `sage_refresh_epochs`
    passes. For Trainer it is as if nothing had been scored: random states, the model's modes and flags, the optimizer
    and the dataloaders' workers are as they were. Under several processes each scores all rows, and all train on the
    main process's choice.

    With neither `sage_fraction` nor `sage_num_examples` it is the Trainer that it goes in front of.

    Attributes:
        selection: The current subset; None during the warm-up.
        selections: All since training began or was resumed, the current one last.

    Raises:
        ConfigError: The arguments carry selection settings that cannot work with this Trainer.
        DatasetError: `train_dataset` is no `datasets.Dataset`.

    Example:
        >>> class SageSFTTrainer(SageMixin, SFTTrainer):
        ...     pass
    """

    train_dataset: Any  # Trainer's

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.selections: list[Selection] = []
        self._timeline: Timeline | None = None
        self._selected_for: int | None = None
        self._loader: DataLoader | None = None
        self._pacer = Pacer()
        self._scorer: TrainingSelector | None = None
        self._scorer_is_for: tuple[Any, ...] = ()
        super().__init__(*args, **kwargs)
        if not isinstance(self.args, SageArguments):
            kind = type(self.args).__name__
            logger.warning("Selection is off: %s has no sage_ settings. Use SageTrainingArguments.", kind)
        if self._is_on:
            self._check_settings()

    @property
    def selection(self) -> Selection | None:
        """The current subset; None during the warm-up."""
        return self.selections[-1] if self.selections else None

    @property
    def _is_on(self) -> bool:
        return isinstance(self.args, SageArguments) and self.args.sage_is_on

    def get_sage_loss_function(self) -> LossFunction | None:
        """The loss that rows are scored by: of `compute_loss_func`, with label smoothing, or the model's own (None).

        Override it where `compute_loss` is overridden.

        Returns:
            (outputs, batch) -> [B], or None; the batch holds its labels.
        """
        if self.compute_loss_func is not None:
            return from_compute_loss_func(self.compute_loss_func)
        if self.label_smoother is not None:
            return smoothed(self.label_smoother.epsilon, unwrap(self.model))
        return None

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Trains as Trainer does; arguments as Trainer's.

        A checkpoint that was not written to its end, because the run was killed, is not resumed from: True finds the
        last one that is whole. If the training is interrupted, a warning says which checkpoint it goes on from.

        Raises:
            OutputError: The checkpoint that is named is not whole.
        """
        found = checkpoint_to_resume(resume_from_checkpoint, self.args.output_dir)
        if not self._is_on:
            return super().train(found, *args, **kwargs)
        with told_if_interrupted(self._about_interruption):
            return super().train(found, *args, **kwargs)

    def _about_interruption(self) -> str:
        steps, folder = self.state.global_step, Path(self._get_output_dir(trial=None))
        last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
        if last is None:
            return f"No checkpoint is kept of {steps} steps: see save_strategy and save_steps."
        where = f"Of {steps} steps, those up to the checkpoint {last} are kept"
        return f"{where}. Go on with trainer.train(resume_from_checkpoint=True)."

    # ------------------------------------------------------- what Trainer calls
    def set_initial_training_values(self, args: TrainingArguments, dataloader: DataLoader) -> tuple[Any, ...]:
        """Trainer's counts for a training whose epochs differ in length; checks what could fail in the middle."""
        values = super().set_initial_training_values(args, dataloader)
        self._timeline = self._pacer.segment = self._scorer = None
        # Settings may be others than when the Trainer was made: set since, or by a search for hyperparameters.
        self._pacer.join(self.callback_handler, self._is_on)
        if not self._is_on:
            return values
        self.args.check_sage()
        self._check_settings()
        self._selector(dataloader).check()
        _, updates, examples, _, step_rows, batches, _ = values
        # Where a random order starts from; the same for the loader of every subset.
        self._loader_seed = torch.random.initial_seed()
        everything = PassSize(len(self.train_dataset), batches, updates)
        self._timeline = timeline = plan(everything, self._subset_size(everything), self.args, step_rows)
        return len(timeline.segments), updates, examples, timeline.samples, step_rows, batches, timeline.max_steps

    def _init_training_state(
        self, max_steps: int, updates: int, epochs: int, resume_from_checkpoint: str | None, trial: Any
    ) -> tuple[int, int]:
        timeline = self._timeline
        if timeline is not None:
            epochs = timeline.epochs
        start = super()._init_training_state(max_steps, updates, epochs, resume_from_checkpoint, trial)
        self.selections, self._selected_for = [], None
        self._drop_loader()
        if timeline is None or resume_from_checkpoint is None:
            return start
        number, steps = timeline.locate(self.state.global_step)
        following = timeline.segments[number] if number < len(timeline.segments) else None
        self._restore(Path(resume_from_checkpoint), following, steps)
        skipped = 0 if self.args.ignore_data_skip else steps * self.args.gradient_accumulation_steps
        return number, skipped

    def _run_epoch(self, *, epoch: int, train_dataloader: DataLoader, **others: Any) -> None:
        loader = train_dataloader
        if self._timeline is not None:
            segment = self._pacer.segment = self._timeline.segments[epoch]
            if not segment.is_warmup:
                if segment.selects and self._selected_for != epoch:
                    self._select_or_keep(train_dataloader)
                if self._loader is None:
                    self._loader = self._subset_loader()
                loader = self._loader
            others |= {"steps_in_epoch": segment.size.batches, "num_update_steps_per_epoch": segment.size.updates}
            # Here, because accelerate does not pass it on where the first batches are skipped.
            if hasattr(loader, "set_epoch"):
                loader.set_epoch(epoch)
            self.callback_handler.train_dataloader = loader
        super()._run_epoch(epoch=epoch, train_dataloader=loader, **others)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        selection = self.selection
        folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:  # what an earlier run left of the same name is not whole any more
            (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
        if selection is not None and self.args.should_save:
            # Before the rest, because Trainer pushes and deletes checkpoints at the end of it.
            selection.save_to_disk(folder / SELECTION_FOLDER, include_dataset=False, overwrite=True)
        super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # Trainer's state is written next, which tells that the checkpoint is whole: no process's file may be missing.
        Processes(nn.Identity()).wait()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._rename(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.state.best_model_checkpoint:
            self._rename(self.state.best_model_checkpoint)

    def _rename(self, checkpoint: str) -> None:
        is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if self._is_on and not is_sharded:
            load_renamed(self.model, Path(checkpoint))

    # ---------------------------------------------------------------- selection
    def _select_or_keep(self, dataloader: DataLoader) -> None:
        """Chooses a new subset; a model that has diverged can choose none, and goes on with what it has, as Trainer.

        Raises:
            GradientError: It has diverged before the first choice, and the budget is not all rows.
        """
        try:
            self._select(dataloader)
        except GradientError as error:
            assert self._timeline is not None
            if all(bool(weight.isfinite().all()) for weight in self.model.parameters()):
                raise
            is_all = self._timeline.segments[-1].size.rows == len(self.train_dataset)
            if self.selection is None and not is_all:
                raise GradientError(
                    f"The model has weights that are not finite after {self.state.global_step} steps, so that no row "
                    "can be scored, and there is no earlier subset",
                    where="learning_rate, sage_warmup_epochs",
                    fix="Lower the learning rate, clip gradients, or look at the losses of the warm-up.",
                ) from error
            logger.warning(
                "The model has weights that are not finite after %d steps, and no row can be scored: training goes on "
                "with %s.",
                self.state.global_step,
                "all rows" if self.selection is None else "the last subset",
            )
            if self.selection is not None:  # a resumed training is to find it as the choice of this time
                self.selection.stats.trained_steps = self.state.global_step

    def _select(self, dataloader: DataLoader) -> None:
        """Chooses a new subset, and logs it."""
        selector = self._selector(dataloader)
        try:
            selection = selector.select(self.train_dataset)
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and not should_reduce_batch_size(error):
                raise
            raise GradientError(
                f"The device's memory is not enough to score {selector.config.batch_size} rows at once",
                where="sage_batch_size",
                fix="Lower it, or use a smaller sage_sketch_size or sage_projection.",
            ) from error
        # Devices may round differently; rows that differ between processes would be seen twice, or never.
        selection.indices = Processes(nn.Identity()).array_from_main(selection.indices)
        selection.stats.trained_steps = self.state.global_step
        selection.stats.trained_epochs = float(self.state.epoch or 0)
        logs = {
            "sage_rows_kept": len(selection),
            "sage_rows_set_aside": selection.stats.set_aside,
            "sage_energy": selection.stats.energy,
            "sage_agreement": selection.stats.mean_score_kept,
        }
        if self.selection is not None:
            overlap = np.intersect1d(self.selection.indices, selection.indices, assume_unique=True)
            logs["sage_overlap"] = len(overlap) / len(selection)
        selector.fitted = None  # its sketch would lie on the device while the training goes on
        selection.signals = None  # nor its signals on the disk
        self.selections.append(selection)
        self._drop_loader()
        # Past a subclass's log, which may take it for a step's: trl's averages its metrics so far, and clears them.
        Trainer.log(self, logs)

    def _selector(self, dataloader: DataLoader) -> TrainingSelector:
        """The one of this training; another where a callback has changed what is trained, or a wrapper the weights."""
        config = self.args.sage_config()
        if self.args.auto_find_batch_size:  # what fits is known better now
            config = replace(config, batch_size=min(int(config.batch_size), self._train_batch_size))
        loss_function = self.get_sage_loss_function()  # it may be another at every refresh
        weights = tuple((id(weight), weight.requires_grad) for weight in self.model.parameters())
        is_for = (config, id(dataloader), id(self.train_dataset), weights)
        if self._scorer is None or self._scorer_is_for != is_for:
            self._scorer, self._scorer_is_for = None, is_for  # the old one is gone before its successor comes
            self._scorer = TrainingSelector(
                self.model,
                dataloader,
                self.train_dataset,
                loss_function=loss_function,
                config=config,
                progress=not self.args.disable_tqdm,
            )
        self._scorer.score_by(loss_function)
        return self._scorer

    # ------------------------------------------------------------------ loaders
    def _subset_loader(self) -> DataLoader:
        """A dataloader over the subset, as Trainer would make it."""
        assert self._timeline is not None
        size = self._timeline.segments[-1].size
        indices = self.selection.indices if self.selection is not None else np.arange(size.rows)
        if len(indices) < size.rows:
            logger.warning(
                "Only %d of %d rows could be scored: the kept rows repeat up to %d, so that the schedule stays right.",
                len(indices),
                len(self.train_dataset),
                size.rows,
            )
            indices = np.resize(indices, size.rows)
        loader = self._loader_over(self.train_dataset.select(indices))
        if len(loader) != size.batches:
            raise ConfigError(
                f"The subset makes {len(loader)} batches, and {size.batches} were expected from its size",
                where="train_sampling_strategy",
                fix="Use a sampler whose number of batches depends on the number of rows only.",
            )
        return loader

    def _loader_over(self, rows: Dataset) -> DataLoader:
        everything = self.train_dataset
        self.train_dataset = rows
        try:
            with default_seed(self._loader_seed):
                return self.get_train_dataloader()
        finally:
            self.train_dataset = everything

    def _subset_size(self, everything: PassSize) -> PassSize:
        config = self.args.sage_config()
        count = resolve_budget(everything.rows, config.fraction, config.num_examples)
        if count == everything.rows:
            return everything
        loader = self._loader_over(self.train_dataset.select(range(count)))
        self._forget(loader)
        if len(loader) == 0:
            raise ConfigError(
                f"A subset of {count} rows fills no batch, and incomplete ones are dropped",
                where="sage_fraction, dataloader_drop_last",
                fix="Keep more rows, lower the batch size, or set dataloader_drop_last=False.",
            )
        return PassSize(count, len(loader), -(-len(loader) // self.args.gradient_accumulation_steps))

    def _drop_loader(self) -> None:
        if self._loader is not None:
            self._forget(self._loader)
            self._loader = None

    def _forget(self, loader: DataLoader) -> None:
        """Lets go of a loader that accelerate keeps, and so of its workers."""
        kept = self.accelerator._dataloaders
        kept[:] = [each for each in kept if each is not loader]

    # -------------------------------------------------------- checks and resume
    def _check_settings(self) -> None:
        args, rows = self.args, self.train_dataset
        if rows is not None:  # a Trainer may only evaluate
            if args.push_to_hub and args.sage_hub_dataset_id and self.is_world_process_zero():
                check_push(args.sage_hub_dataset_id, describe_origin(rows), token=args.hub_token)
            check_trainable(rows, args, getattr(self, "get_sp_size", lambda: 1)())
            reader = next(kind for kind in type(self).__mro__ if "get_train_dataloader" in vars(kind))
            # Else a collator reads what it likes, as with sentence-transformers.
            if args.remove_unused_columns and reader is Trainer:
                self._set_signature_columns_if_needed()
                check_encoded(rows, self._signature_columns)
        owner = next(kind for kind in type(self).__mro__ if "compute_loss" in vars(kind))
        known = owner.__module__.partition(".")[0] in ("transformers", "trl")
        is_models = known and getattr(self.args, "loss_type", "nll") == "nll"
        if not is_models and type(self).get_sage_loss_function is SageMixin.get_sage_loss_function:
            logger.warning(
                "%s has its own loss, but rows are scored by the model's loss. Override get_sage_loss_function.",
                owner.__name__,
            )

    def _restore(self, checkpoint: Path, segment: Segment | None, steps: int) -> None:
        """Reads the subset that the checkpoint was trained on, and `steps` of the segment that goes on with it."""
        assert self._timeline is not None
        needed = segment is not None and not segment.is_warmup and (steps > 0 or not segment.selects)
        selection = load_selection(checkpoint, self.train_dataset, needed)
        if selection is None:
            return
        if segment is not None and needed:
            check_selection(selection, self.args.sage_config(), self._timeline.chosen_at(segment.number), checkpoint)
            self._selected_for = segment.number
        self.selections = [selection]


class SageTrainer(SageMixin, Trainer):
    """`transformers.Trainer` that trains on a subset which follows the model; see `SageMixin`.

    Args: as `transformers.Trainer`, with `SageTrainingArguments`.

    Example:
        >>> args = SageTrainingArguments("out", num_train_epochs=5, sage_fraction=0.1, sage_refresh_epochs=2)
        >>> trainer = SageTrainer(model=model, args=args, train_dataset=dataset)
        >>> trainer.train()
        >>> trainer.selection.dataset                # the rows it trained on last, with a column sage_score
    """
