"""Settings that come later than the Trainer: set on its arguments, searched for, found; loaders; diverged models."""

from typing import ClassVar

import pytest
import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.hyperparameter_search import ALL_HYPERPARAMETER_SEARCH_BACKENDS
from transformers.trainer_utils import BestRun

from sage_hf import SageError, SageTrainer
from sage_hf.errors import DatasetError

from ..cases import bert, image_rows, vit
from .runs import difference, losses, make, plain_args, sage_args, selection_logs, train


# ------------------------------------------------------- set later
def course(trainer):
    return trainer.state.global_step, trainer.state.epoch, losses(trainer), selection_logs(trainer)


def test_a_budget_that_is_set_after_the_trainer_was_made_counts(tmp_path):
    settings = {"sage_warmup_epochs": 0.5, "sage_refresh_epochs": 2}
    whole = train(vit(), sage_args(tmp_path, **settings), image_rows(48))
    later = make(vit(), sage_args(tmp_path, sage_fraction=None, **settings), image_rows(48))
    later.args.sage_fraction = 0.4
    later.train()
    assert course(later) == course(whole)
    assert difference(later.model, whole.model) == 0


def test_settings_may_change_between_two_trainings(tmp_path):
    trainer = train(vit(), sage_args(tmp_path), image_rows(48))
    assert (trainer.state.max_steps, len(trainer.selection)) == (6 + 3 * 3, 19)
    trainer.args.sage_fraction, trainer.args.sage_refresh_epochs = 0.2, 1
    trainer.train()
    assert (trainer.state.max_steps, len(trainer.selection), len(trainer.selections)) == (6 + 3 * 2, 10, 3)
    trainer.args.sage_fraction = None
    trainer.train()
    assert (trainer.state.max_steps, trainer.state.epoch, trainer.selection) == (24, 4.0, None)
    plain = make(vit(), plain_args(tmp_path), image_rows(48), Trainer).callback_handler.callbacks
    assert [type(each) for each in trainer.callback_handler.callbacks] == [type(each) for each in plain]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sage_fraction", 1.5),
        ("sage_num_examples", 4),
        ("sage_refresh_epochs", -1),
        ("sage_strategy", "best"),
        ("sage_warmup_epochs", 4.0),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(tmp_path, name, value):
    trainer = make(vit(), sage_args(tmp_path), image_rows(48))
    setattr(trainer.args, name, value)
    with pytest.raises(SageError, match=name.removeprefix("sage_").replace("warmup_epochs", "warm-up")):
        trainer.train()
    assert trainer.state.global_step == 0


class TwoTrials:
    """A search over two budgets: no backend of transformers is installed."""

    name = "two trials"
    seen: ClassVar[list[tuple]] = []

    def ensure_available(self):
        pass

    def default_hp_space(self, trial):
        return {}

    def run(self, trainer, n_trials, direction, **kwargs):
        self.seen.clear()
        for fraction in (0.5, 0.25):
            trainer.args.sage_fraction, trainer.args.learning_rate = fraction, 1e-3  # as Trainer sets a trial's
            trainer.train()
            self.seen.append((trainer.state.max_steps, len(trainer.selection), losses(trainer)))
        return BestRun("1", 0.0, {"sage_fraction": fraction}, None)


def test_a_search_for_hyperparameters_may_try_budgets(tmp_path, monkeypatch):
    trainer = make(None, sage_args(tmp_path, sage_fraction=None), image_rows(48), model_init=lambda: vit())
    monkeypatch.setitem(ALL_HYPERPARAMETER_SEARCH_BACKENDS, "optuna", TwoTrials)
    trainer.hyperparameter_search(backend="optuna", n_trials=2)
    for fraction, (steps, kept, curve) in zip((0.5, 0.25), TwoTrials.seen, strict=True):
        args = sage_args(tmp_path, sage_fraction=fraction, learning_rate=1e-3)
        alone = make(None, args, image_rows(48), model_init=lambda: vit())
        alone.train()
        assert (steps, kept, curve) == (alone.state.max_steps, len(alone.selection), losses(alone))
    assert TwoTrials.seen[0][:2] == (6 + 3 * 3, 24)


# ------------------------------------------------------- the log
def test_the_selections_row_does_not_pass_a_subclass_log(tmp_path):
    class Averaging(SageTrainer):
        """As trl's trainers do: metrics since the last row go into the next one."""

        def __init__(self, *args, **kwargs):
            self.metrics = []
            super().__init__(*args, **kwargs)

        def training_step(self, *args, **kwargs):
            self.metrics.append(1.0)
            return super().training_step(*args, **kwargs)

        def log(self, logs, *args, **kwargs):
            super().log({**logs, "metrics": sum(self.metrics)}, *args, **kwargs)
            self.metrics.clear()

    trainer = train(vit(), sage_args(tmp_path, logging_steps=4), image_rows(48), Averaging)
    assert "metrics" not in selection_logs(trainer)[0]
    assert [entry["metrics"] for entry in trainer.state.log_history if "loss" in entry] == [4.0, 4.0, 4.0]


def test_two_runs_have_the_same_history(tmp_path):
    histories = [train(vit(), sage_args(tmp_path), image_rows(48)).state.log_history[:-1] for _ in range(2)]
    assert histories[0] == histories[1]
    assert any("sage_rows_kept" in entry for entry in histories[0])


# ------------------------------------------------------- batch sizes
class Crowded(nn.Module):
    """A model that has no memory for more than a few rows at once, in the words of a GPU."""

    def __init__(self, training=99, scoring=99):
        super().__init__()
        self.inner = vit()
        self.most = {True: training, False: scoring}
        self.largest = 0

    def forward(self, pixel_values, labels=None):
        if len(pixel_values) > self.most[self.training]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 bytes.")
        if not self.training:
            self.largest = max(self.largest, len(pixel_values))
        return self.inner(pixel_values=pixel_values, labels=labels)


def test_scoring_follows_the_batch_size_that_was_found(tmp_path):
    model = Crowded(training=5)
    trainer = train(model, sage_args(tmp_path, auto_find_batch_size=True, num_train_epochs=2), image_rows(48))
    found = trainer._train_batch_size
    assert found <= 5
    assert model.largest <= 8  # the first try's look at rows in a batch
    assert trainer._selector(trainer.get_train_dataloader()).config.batch_size == found


def test_an_own_scoring_batch_size_is_left_where_none_is_searched(tmp_path):
    trainer = make(vit(), sage_args(tmp_path, sage_batch_size=24), image_rows(48))
    assert trainer._selector(trainer.get_train_dataloader()).config.batch_size == 24


@pytest.mark.parametrize("search", [True, False])
def test_scoring_backs_off_further_with_the_same_result(tmp_path, search):
    settings = {"sage_batch_size": 16, "auto_find_batch_size": search}
    roomy = train(Crowded(), sage_args(tmp_path, **settings), image_rows(48))
    crowded = train(Crowded(scoring=6), sage_args(tmp_path, **settings), image_rows(48))
    assert crowded.selection.indices.tolist() == roomy.selection.indices.tolist()
    assert losses(crowded) == losses(roomy)


# ------------------------------------------------------- loaders
class Plain:
    """Gives batches, and nothing else."""

    def __init__(self, loader, **attributes):
        self.loader = loader
        vars(self).update(attributes)

    def __iter__(self):
        return iter(self.loader)

    def __len__(self):
        return len(self.loader)


@pytest.mark.parametrize("has", [[], ["dataset"], ["collate_fn"]])
def test_a_loader_that_rows_cannot_be_scored_through_is_refused(tmp_path, has):
    class Own(SageTrainer):
        def get_train_dataloader(self):
            loader = super().get_train_dataloader()
            return Plain(loader, **{name: getattr(loader, name) for name in has})

    with pytest.raises(SageError, match="which the Plain does not have") as caught:
        train(vit(), sage_args(tmp_path), image_rows(48), Own)
    assert caught.value.where == "get_train_dataloader"
    assert all(name not in caught.value.what for name in has)


def test_a_loader_over_something_else_is_refused(tmp_path):
    class Own(SageTrainer):
        def get_train_dataloader(self):
            return DataLoader([{"pixel_values": torch.zeros(1, 8, 8), "labels": 0}] * 8, batch_size=4)

    with pytest.raises(SageError, match="reads from a list"):
        train(vit(), sage_args(tmp_path), image_rows(48), Own)


# ------------------------------------------------------- a model that diverges
def diverged_after(steps):
    """A model whose weights are NaN from a step on."""
    model = bert()
    taken = []

    def spoil(module, given):
        if module.training:
            taken.append(1)
            if len(taken) > steps:
                with torch.no_grad():
                    module.classifier.weight.fill_(torch.nan)

    model.register_forward_pre_hook(spoil)
    return model


def text_rows(count=48):
    torch.manual_seed(1)
    ids = torch.randint(3, 64, (count, 9)).tolist()
    return Dataset.from_dict({"input_ids": ids, "labels": [row % 3 for row in range(count)]})


def test_a_model_that_diverges_goes_on_with_the_last_subset(tmp_path, caplog):
    args = sage_args(tmp_path, sage_refresh_epochs=1, save_strategy="steps", save_steps=11)
    trainer = train(diverged_after(8), args, text_rows())
    assert trainer.state.global_step == trainer.state.max_steps
    assert len(trainer.selections) == len(selection_logs(trainer)) == 1
    assert "after 9 steps, and no row can be scored: training goes on with the last subset" in caplog.text
    again = train(bert(), sage_args(tmp_path, sage_refresh_epochs=1), text_rows(), resume=tmp_path / "checkpoint-11")
    assert again.state.global_step == trainer.state.max_steps


def test_a_model_that_diverges_before_the_first_choice_is_said(tmp_path):
    with pytest.raises(SageError, match="not finite after 6 steps") as caught:
        train(diverged_after(2), sage_args(tmp_path), text_rows())
    assert "learning rate" in caught.value.fix


def test_a_model_that_diverges_with_all_rows_kept_goes_on_as_trainer_does(tmp_path, caplog):
    args = sage_args(tmp_path, sage_fraction=1.0, sage_refresh_epochs=2)
    ours = train(diverged_after(2), args, text_rows())
    theirs = train(diverged_after(2), plain_args(tmp_path), text_rows(), Trainer)
    assert ours.selection is None
    assert str(losses(ours)) == str(losses(theirs))
    assert ours.state.global_step == theirs.state.global_step
    assert "training goes on with all rows" in caplog.text


def test_other_failures_of_a_later_selection_are_errors(tmp_path):
    """Finite weights, and no row that can be scored: that is no divergence."""

    class Masked(SageTrainer):
        def get_sage_loss_function(self):
            scale = 0.0 if self.state is not None and self.state.global_step else 1.0
            return lambda outputs, batch: (
                scale * nn.functional.cross_entropy(outputs["logits"], batch["labels"], reduction="none")
            )

    with pytest.raises(SageError, match="exactly zero"):
        train(vit(), sage_args(tmp_path, sage_check_gradients=False), image_rows(48), Masked)


# ------------------------------------------------------- rows that nobody encoded
def test_raw_rows_are_refused_with_the_line_that_tokenises_them(tmp_path):
    rows = Dataset.from_dict({"review": ["a", "b"], "label": [0, 1]})
    with pytest.raises(DatasetError, match=r"takes none of the columns \['review'\].*Tokenise first") as caught:
        make(bert(), sage_args(tmp_path, remove_unused_columns=True), rows)
    assert "train_dataset.map(lambda rows: tokenizer(rows['review'], truncation=True), batched=True)" in str(
        caught.value
    )
    make(bert(), sage_args(tmp_path, remove_unused_columns=False), rows)  # a collator may read them
    make(bert(), sage_args(tmp_path, sage_fraction=None, remove_unused_columns=True), rows)  # Trainer's own matter
