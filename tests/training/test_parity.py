"""SageTrainer against Trainer: the same to the bit where nothing is left out, and nothing is disturbed."""

import inspect
import multiprocessing
import random

import numpy as np
import pytest
import torch
from transformers import Trainer

from sage_hf import SageMixin, SageTrainer, SageTrainingArguments
from sage_hf.training.publishing import PublishesSelection

from ..cases import image_rows, llama, pad_tokens, token_rows, vit
from .runs import QUIET, difference, losses, make, plain_args, sage_args, selection_logs, train


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"gradient_accumulation_steps": 2},
        {"max_steps": 13},
        {"num_train_epochs": 2.5},
        {"lr_scheduler_type": "cosine", "warmup_steps": 3},
        {"dataloader_num_workers": 1, "dataloader_persistent_workers": True},
        {"dataloader_drop_last": True},
        {"data_seed": 5},
        {"train_sampling_strategy": "sequential"},
        {"weight_decay": 0.1, "max_grad_norm": 0.1},
    ],
    ids=str,
)
def test_with_all_rows_kept_the_loss_curve_is_trainers(tmp_path, change):
    rows = image_rows(44)
    theirs = train(vit(), plain_args(tmp_path, **change), rows, Trainer)
    ours = train(vit(), sage_args(tmp_path, sage_fraction=1.0, sage_refresh_epochs=1, **change), rows)
    assert len(ours.selections) >= 1
    assert losses(ours) == losses(theirs)
    assert difference(ours.model, theirs.model) == 0
    for name in ("global_step", "max_steps", "epoch", "num_train_epochs", "total_flos"):
        assert getattr(ours.state, name) == getattr(theirs.state, name), name
    assert [e.get("learning_rate") for e in ours.state.log_history if "loss" in e] == [
        e.get("learning_rate") for e in theirs.state.log_history if "loss" in e
    ]


def test_dropout_draws_what_it_would_have_drawn(tmp_path):
    rows = image_rows(40)
    models = [vit(), vit()]
    for model in models:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.3
    theirs = train(models[0], plain_args(tmp_path), rows, Trainer)
    ours = train(models[1], sage_args(tmp_path, sage_fraction=1.0, sage_refresh_epochs=1), rows)
    assert losses(ours) == losses(theirs)


@pytest.mark.parametrize("arguments", [plain_args, lambda folder: SageTrainingArguments(str(folder), **QUIET)])
def test_with_selection_off_it_is_trainer(tmp_path, arguments):
    rows = image_rows(40)
    theirs = train(vit(), plain_args(tmp_path), rows, Trainer)
    ours = train(vit(), arguments(tmp_path), rows)
    assert ours.state.log_history[:-1] == theirs.state.log_history[:-1]
    assert difference(ours.model, theirs.model) == 0
    assert ours.selection is None
    kinds = [type(callback) for callback in ours.callback_handler.callbacks]
    assert kinds == [type(callback) for callback in theirs.callback_handler.callbacks]


def test_arguments_without_sage_settings_are_said(tmp_path, caplog):
    make(vit(), plain_args(tmp_path), image_rows(8))
    assert "Use SageTrainingArguments" in caplog.text


# ------------------------------------------------------- nothing is disturbed
def state_of(trainer):
    model = trainer.model
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "python": random.getstate(),
        "training": [module.training for module in model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [parameter.grad is None for parameter in model.parameters()],
        "weights": [parameter.tolist() for parameter in model.parameters()],
        "hooks": [len(module._forward_hooks) for module in model.modules()],
        "autocast": torch.is_autocast_enabled("cpu"),
        "optimizer": str(trainer.optimizer.state_dict()),
        "dataset": trainer.train_dataset._fingerprint,
        "columns": trainer.train_dataset.column_names,
    }


@pytest.mark.parametrize("change", [{}, {"bf16": True}, {"gradient_checkpointing": True}], ids=str)
def test_a_selection_leaves_everything_as_it_was(tmp_path, change):
    seen = []

    class Watched(SageTrainer):
        def _select(self, dataloader):
            before = state_of(self)
            super()._select(dataloader)
            seen.append((before, state_of(self)))

    model = vit()
    model.vit.embeddings.requires_grad_(False)
    train(model, sage_args(tmp_path, sage_refresh_epochs=1, **change), image_rows(40), Watched)
    assert len(seen) == 3
    for before, after in seen:
        for name, value in before.items():
            assert after[name] == value, name


def test_loaders_of_old_subsets_and_their_workers_are_let_go(tmp_path):
    kept, workers = [], []

    class Watched(SageTrainer):
        def _run_epoch(self, **given):
            super()._run_epoch(**given)
            kept.append(len(self.accelerator._dataloaders))
            workers.append(len(multiprocessing.active_children()))

    args = sage_args(tmp_path, sage_refresh_epochs=1, dataloader_num_workers=1, dataloader_persistent_workers=True)
    train(vit(), args, image_rows(40), Watched)
    # All rows and the subset, however often it is chosen.
    assert kept == [1, 2, 2, 2]
    assert max(workers) <= 2


def test_tokens_are_scored_as_they_are_trained(tmp_path):
    rows = token_rows(32).map(lambda row: {"labels": row["input_ids"]})
    args = sage_args(tmp_path, sage_fraction=1.0)

    theirs = train(llama(), plain_args(tmp_path), rows, Trainer, data_collator=pad_tokens)
    ours = train(llama(), args, rows, data_collator=pad_tokens)
    assert losses(ours) == losses(theirs)
    assert len(selection_logs(ours)) == 1


# ------------------------------------------------------- what Trainer may change
OVERRIDDEN = {
    "_run_epoch": [
        *("model", "epoch", "train_dataloader", "steps_in_epoch", "num_update_steps_per_epoch", "trial"),
        *("ignore_keys_for_eval", "start_time", "resume_from_checkpoint", "epochs_trained"),
        "steps_trained_in_current_epoch",
    ],
    "set_initial_training_values": ["args", "dataloader"],
    "_init_training_state": [
        *("max_steps", "num_update_steps_per_epoch", "num_train_epochs", "resume_from_checkpoint", "trial"),
    ],
    "_save_checkpoint": ["model", "trial"],
    "_save_rng_state": ["output_dir"],
    "_load_from_checkpoint": ["resume_from_checkpoint", "model"],
    "_load_best_model": [],
    "train": ["resume_from_checkpoint", "trial", "ignore_keys_for_eval"],
}


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_trainers_methods_take_what_the_overrides_expect(name):
    assert list(inspect.signature(getattr(Trainer, name)).parameters)[1:] == OVERRIDDEN[name]


def test_there_are_no_other_overrides():
    named = {*vars(SageMixin), *vars(PublishesSelection)}
    own = {name for name in named if not name.startswith("__") and hasattr(Trainer, name)}
    assert own == {*OVERRIDDEN, "create_model_card", "push_to_hub"}


def test_trainers_loop_calls_the_overrides_as_expected(tmp_path):
    """Trainer passes an epoch's arguments by keyword, and the initial values are seven."""
    called = {}

    class Watched(Trainer):
        def _run_epoch(self, *args, **kwargs):
            called["epoch"] = (args, set(kwargs))
            super()._run_epoch(*args, **kwargs)

        def set_initial_training_values(self, args, dataloader):
            called["values"] = super().set_initial_training_values(args, dataloader)
            return called["values"]

    train(vit(), plain_args(tmp_path, num_train_epochs=1), image_rows(20), Watched)
    assert called["epoch"] == ((), set(OVERRIDDEN["_run_epoch"]))
    epochs, updates, examples, samples, step_rows, batches, max_steps = called["values"]
    assert (epochs, updates, examples, samples, step_rows, batches, max_steps) == (1, 3, 20, 20, 8, 3, 3)
