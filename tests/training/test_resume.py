"""A training that goes on from any checkpoint is the training that was never interrupted."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import DefaultDataCollator, Trainer, TrainerCallback

from sage_hf import SageError, SageTrainer

from ..cases import bert, image_rows, token_batch, vit
from .runs import Recorder, difference, losses, make, plain_args, sage_args, selection_logs, train, weights

RUNS = {
    "whole epochs": {"sage_refresh_epochs": 1},
    "warm-up inside an epoch, accumulation": {
        "sage_warmup_epochs": 1.5,
        "gradient_accumulation_steps": 2,
        "sage_refresh_epochs": 2,
        "num_train_epochs": 4.5,
    },
    "no warm-up, chosen once": {"sage_warmup_epochs": 0.0, "num_train_epochs": 3},
    "max_steps": {"max_steps": 14, "sage_refresh_epochs": 1},
}


def text_rows(count=40):
    from datasets import Dataset

    torch.manual_seed(1)
    ids = token_batch(count)["input_ids"]
    return Dataset.from_dict({"input_ids": ids.tolist(), "labels": [row % 3 for row in range(count)]})


def model():
    """With dropout, so that the random states count."""
    return bert(hidden_dropout_prob=0.1)


def run(folder, resume=None, **changes):
    """A training that records the rows of its last call, in their order."""
    recorder = Recorder(DefaultDataCollator())
    trained = []

    class Watched(SageTrainer):
        def training_step(self, model, inputs, *args, **kwargs):
            trained.append(inputs["input_ids"].tolist())
            return super().training_step(model, inputs, *args, **kwargs)

    rows = text_rows().add_column("row", list(range(40)))
    args = sage_args(folder, remove_unused_columns=False, **changes)
    return train(model(), args, rows, Watched, resume, data_collator=recorder), trained


@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS.keys())
def test_every_checkpoint_leads_to_the_same_weights_rows_and_logs(tmp_path, settings):
    whole, rows = run(tmp_path / "whole", save_strategy="steps", save_steps=1, **settings)
    accumulation = settings.get("gradient_accumulation_steps", 1)
    steps = whole.state.max_steps
    assert steps == whole.state.global_step
    assert len(list((tmp_path / "whole").glob("checkpoint-*"))) == steps
    done = {entry["step"]: entry for entry in whole.state.log_history if "loss" in entry}
    # From the end inside an epoch, Trainer goes one step too far.
    is_inside = whole.state.epoch % 1 > 0
    for step in range(1, steps + (not is_inside)):
        torch.manual_seed(1000 + step)  # the state of a new process
        again, tail = run(tmp_path / "again", tmp_path / "whole" / f"checkpoint-{step}", **settings)
        assert difference(again.model, whole.model) == 0, step
        assert tail == rows[len(rows) - len(tail) :], step
        assert len(tail) > 0 or step == steps
        assert {entry["step"]: entry for entry in again.state.log_history if "loss" in entry} == done, step
        assert again.selection.indices.tolist() == whole.selection.indices.tolist(), step
        assert len(selection_logs(again)) == len(selection_logs(whole)), step
        assert [entry.get("sage_overlap") for entry in selection_logs(again)] == [
            entry.get("sage_overlap") for entry in selection_logs(whole)
        ], step
    assert accumulation * steps >= len(rows) > 0


@pytest.mark.parametrize(
    ("length", "more"),
    [({"max_steps": 11}, 0), ({"num_train_epochs": 2.5}, 0), ({"num_train_epochs": 2}, 0), ({"max_steps": 11}, 4)],
    ids=["inside an epoch", "at half an epoch", "at an epoch's end", "and longer"],
)
def test_a_finished_training_is_resumed_as_trainer_does(tmp_path, length, more):
    found = []
    for name, arguments, trainer_class in (("theirs", plain_args, Trainer), ("ours", sage_args, SageTrainer)):
        settings = {"lr_scheduler_type": "constant", **({} if trainer_class is Trainer else {"sage_fraction": 1.0})}
        args = arguments(tmp_path / name, save_strategy="steps", save_steps=1, **settings, **length)
        steps = train(model(), args, text_rows(), trainer_class).state.global_step
        length_now = {"max_steps": steps + more} if more else length
        args = arguments(tmp_path / "again", **settings, **length_now)
        again = train(model(), args, text_rows(), trainer_class, tmp_path / name / f"checkpoint-{steps}")
        found.append((again.state.global_step, again.state.epoch, losses(again), weights(again.model).tolist()))
    assert found[0] == found[1]


def test_resume_finds_the_last_checkpoint_by_itself(tmp_path):
    whole, _ = run(tmp_path, save_strategy="steps", save_steps=4)
    shutil.rmtree(tmp_path / "checkpoint-11")
    again = make(
        model(),
        sage_args(tmp_path, remove_unused_columns=False),
        text_rows().add_column("row", list(range(40))),
        data_collator=Recorder(DefaultDataCollator()),
    )
    started = []

    class Watch(TrainerCallback):
        def on_train_begin(self, args, state, control, **given):
            started.append(state.global_step)

    again.add_callback(Watch())
    again.train(resume_from_checkpoint=True)
    assert started == [8]
    assert difference(again.model, whole.model) == 0


@pytest.mark.parametrize("left", [0, 30, None])
def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path, caplog, left):
    whole, _ = run(tmp_path, save_strategy="steps", save_steps=4)
    state = tmp_path / "checkpoint-11" / "trainer_state.json"
    state.unlink() if left is None else state.write_text(state.read_text()[:left])
    (tmp_path / "checkpoint-old").mkdir()
    with pytest.raises(SageError, match="The checkpoint is not whole") as caught:
        run(tmp_path / "named", tmp_path / "checkpoint-11")
    assert "checkpoint-11" in caught.value.where
    again, rows = run(tmp_path, True, save_strategy="steps", save_steps=4)
    assert "checkpoint-11 is not whole" in caplog.text and "goes on from checkpoint-8" in caplog.text
    assert difference(again.model, whole.model) == 0
    assert len(rows) == 3


def test_a_training_whose_first_checkpoint_was_not_written_to_its_end_begins_again(tmp_path, caplog):
    whole, _ = run(tmp_path / "whole")
    (tmp_path / "again" / "checkpoint-4").mkdir(parents=True)
    again, _ = run(tmp_path / "again", True)
    assert "begins again" in caplog.text
    assert difference(again.model, whole.model) == 0


def test_the_subset_is_in_the_checkpoint_as_readable_files(tmp_path):
    trainer, _ = run(tmp_path, save_strategy="epoch")
    folders = sorted(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert [(folder / "sage_selection").is_dir() for folder in folders] == [False, True, True, True]
    about = json.loads((folders[-1] / "sage_selection" / "selection.json").read_text())
    assert about["stats"]["trained_steps"] == 5
    assert not list(folders[-1].glob("**/*.pkl"))
    assert trainer.selection.stats.source_digest == about["stats"]["source_digest"]


def test_a_missing_subset_is_said_before_training_goes_on(tmp_path):
    run(tmp_path, save_strategy="steps", save_steps=1)
    shutil.rmtree(tmp_path / "checkpoint-6" / "sage_selection")
    with pytest.raises(SageError, match="the subset is missing") as caught:
        run(tmp_path / "again", tmp_path / "checkpoint-6")
    assert "checkpoint-6" in caught.value.where


def test_a_subset_of_another_dataset_is_refused(tmp_path):
    args = {"save_strategy": "steps", "save_steps": 1}
    train(vit(), sage_args(tmp_path, **args), image_rows(40, seed=0))
    with pytest.raises(SageError, match="The selection was made from 40 rows") as caught:
        train(vit(), sage_args(tmp_path / "again"), image_rows(40, seed=1), resume=tmp_path / "checkpoint-7")
    assert caught.value.where == "source"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sage_fraction": 0.5}, "fraction 0.4 (now 0.5)"),
        ({"sage_strategy": "random"}, "strategy 'agreement' (now 'random')"),
        ({"sage_warmup_epochs": 0.5}, "trained_steps 5 (now 3)"),
        ({"sage_refresh_epochs": 1}, "trained_steps 5 (now 7)"),
    ],
    ids=str,
)
def test_other_settings_than_the_checkpoints_are_refused(tmp_path, change, told):
    run(tmp_path, save_strategy="steps", save_steps=8)
    with pytest.raises(SageError) as caught:
        run(tmp_path / "again", tmp_path / "checkpoint-8", **change)
    assert told in caught.value.what


def test_a_longer_training_and_another_scoring_batch_may_go_on(tmp_path):
    run(tmp_path, save_strategy="steps", save_steps=10)
    longer, _ = run(tmp_path / "b", tmp_path / "checkpoint-10", num_train_epochs=6, sage_batch_size=3)
    assert longer.state.global_step == 5 + 5 * 2


def test_the_same_rows_by_another_way_are_the_same_dataset(tmp_path):
    rows = image_rows(40)
    whole = train(vit(), sage_args(tmp_path, save_strategy="steps", save_steps=7), rows)
    other = rows.select(range(40)).add_column("spare", [0] * 40).remove_columns("spare")
    assert other._fingerprint != rows._fingerprint
    again = train(vit(), sage_args(tmp_path / "again"), other, resume=tmp_path / "checkpoint-7")
    assert difference(again.model, whole.model) == 0


def test_a_checkpoint_of_the_warm_up_needs_no_subset(tmp_path):
    whole, _ = run(tmp_path, save_strategy="steps", save_steps=2)
    again, _ = run(tmp_path / "again", tmp_path / "checkpoint-2")
    assert difference(again.model, whole.model) == 0
    assert losses(again) == losses(whole)


def test_a_model_that_is_saved_under_older_names_resumes_and_finds_its_best(tmp_path):
    """transformers writes ViT's weights under older names, and Trainer does not turn these back."""
    rows = image_rows(40)
    settings = {"save_strategy": "steps", "save_steps": 3}
    whole = train(vit(), sage_args(tmp_path, **settings), rows)
    again = train(vit(), sage_args(tmp_path / "again"), rows, resume=tmp_path / "checkpoint-6")
    assert difference(again.model, whole.model) == 0
    best = {**settings, "eval_strategy": "steps", "eval_steps": 3, "load_best_model_at_end": True}
    # The loss of the worst model is the best: the first checkpoint, not the last.
    trainer = train(
        vit(),
        sage_args(tmp_path / "best", metric_for_best_model="loss", greater_is_better=True, **best),
        rows,
        eval_dataset=rows,
    )
    saved = vit().from_pretrained(trainer.state.best_model_checkpoint)
    assert difference(trainer.model, saved) == 0
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-3")


def test_the_older_names_are_still_why_that_is_needed(tmp_path):
    """When this fails, transformers reads what it writes, and sage_hf.training.checkpoint can go."""
    rows = image_rows(24)
    whole = train(vit(), plain_args(tmp_path, save_strategy="steps", save_steps=3), rows, Trainer)
    if set(load_file(tmp_path / "checkpoint-3" / "model.safetensors")) == set(whole.model.state_dict()):
        pytest.skip("This version of transformers has no other names on disk.")
    again = train(vit(), plain_args(tmp_path / "again"), rows, Trainer, resume=tmp_path / "checkpoint-3")
    assert difference(again.model, whole.model) > 0
