"""Warm-up, selection, passes over the subset: what is trained on, when, and what is said of it."""

import numpy as np
import pytest
from transformers import DefaultDataCollator

from sage_hf import SageConfig, SageSelector, SageTrainer

from ..cases import image_rows, vit
from .runs import Recorder, losses, sage_args, selection_logs, train


def numbered(count=48):
    rows = image_rows(count)
    return rows.add_column("row", list(range(count)))


def flat(batches):
    return [row for batch in batches for row in batch]


def recorded(folder, rows=None, **changes):
    """A training, and the row numbers that each of its batches held."""
    recorder = Recorder(DefaultDataCollator())
    passes = []

    class Watched(SageTrainer):
        def _select(self, dataloader):
            kept = list(recorder.batches)
            super()._select(dataloader)
            recorder.batches[:] = kept  # what was scored was not trained on

        def set_initial_training_values(self, *given):
            values = super().set_initial_training_values(*given)
            recorder.batches.clear()
            return values

        def _run_epoch(self, **given):
            start = len(recorder.batches)
            super()._run_epoch(**given)
            passes.append(recorder.batches[start:])

    args = sage_args(folder, remove_unused_columns=False, **changes)
    trainer = train(vit(), args, rows if rows is not None else numbered(), Watched, data_collator=recorder)
    return trainer, passes


def test_passes_over_the_subset_hold_exactly_the_kept_rows(tmp_path):
    trainer, (warmup, *passes) = recorded(tmp_path, sage_refresh_epochs=1)
    assert sorted(flat(warmup)) == list(range(48))
    assert len(passes) == len(trainer.selections) == 3
    for batches, selection in zip(passes, trainer.selections, strict=True):
        seen = flat(batches)
        # accelerate's loader looks one batch ahead, and here that is the last thing it does.
        assert sorted(seen) == selection.indices.tolist()
        assert len(batches) == 3


def test_the_subset_is_what_a_selector_chooses_with_the_model_as_it_is_then(tmp_path):
    rows, chosen = image_rows(48), []

    class Watched(SageTrainer):
        def _select(self, dataloader):
            config = SageConfig(strategy="agreement", fraction=0.4, batch_size=8)
            chosen.append(SageSelector(self.model, config=config).select(self.train_dataset))
            super()._select(dataloader)

    trainer = train(vit(), sage_args(tmp_path, sage_refresh_epochs=1), rows, Watched)
    assert len(chosen) == 3
    for ours, theirs in zip(trainer.selections, chosen, strict=True):
        assert ours.indices.tolist() == theirs.indices.tolist()
        assert ours.scores.tolist() == theirs.scores.tolist()


@pytest.mark.parametrize("scheduler", ["linear", "cosine"])
@pytest.mark.parametrize(
    "change",
    [
        {"sage_warmup_epochs": 1.0},
        {"sage_warmup_epochs": 0.0},
        {"sage_warmup_epochs": 0.5, "num_train_epochs": 1},
        {"sage_warmup_epochs": 1.4, "num_train_epochs": 2.7},
        {"gradient_accumulation_steps": 3, "sage_refresh_epochs": 1},
        {"max_steps": 11},
    ],
    ids=str,
)
def test_the_schedule_ends_where_it_promises(tmp_path, change, scheduler):
    trainer = train(vit(), sage_args(tmp_path, lr_scheduler_type=scheduler, **change), image_rows(48))
    assert trainer.state.global_step == trainer.state.max_steps
    assert trainer.lr_scheduler.get_last_lr() == [0.0] * len(trainer.optimizer.param_groups)
    epochs = [entry["epoch"] for entry in trainer.state.log_history]
    assert epochs == sorted(epochs)
    if "max_steps" in change:
        assert trainer.state.max_steps == 11
    elif "gradient_accumulation_steps" not in change:
        wanted = trainer.args.num_train_epochs
        # Whole optimizer steps: at most one more than asked for.
        assert wanted - 1e-9 <= trainer.state.epoch <= wanted + 1 / 3


def test_epochs_count_on_after_a_warm_up_inside_an_epoch(tmp_path):
    trainer, (warmup, *_) = recorded(tmp_path, sage_warmup_epochs=0.5, num_train_epochs=2.5)
    assert len(warmup) == 4  # three that are trained on, and one that accelerate's loader looked ahead at
    entries = [(entry["step"], entry["epoch"]) for entry in trainer.state.log_history if "loss" in entry]
    assert entries[2] == (3, 0.5)
    assert entries[5] == (6, 1.5)
    assert entries[-1] == (9, 2.5)


def test_every_passes_rows_are_shuffled_anew(tmp_path):
    _, (_, first, second, _) = recorded(tmp_path)
    assert flat(first) != flat(second)
    assert sorted(flat(first)) == sorted(flat(second))


def test_samples_are_counted_by_what_is_seen(tmp_path):
    trainer = train(vit(), sage_args(tmp_path), image_rows(48))
    done = trainer.state.log_history[-1]
    seconds = done["train_runtime"]
    assert done["train_samples_per_second"] * seconds == pytest.approx(48 + 3 * 19, rel=0.02)
    assert done["train_steps_per_second"] * seconds == pytest.approx(6 + 3 * 3, rel=0.02)


def test_each_selection_is_logged(tmp_path):
    trainer = train(vit(), sage_args(tmp_path, sage_refresh_epochs=1), image_rows(48))
    logs = selection_logs(trainer)
    assert [entry["step"] for entry in logs] == [6, 9, 12]
    assert [entry["epoch"] for entry in logs] == [1.0, 2.0, 3.0]
    assert "sage_overlap" not in logs[0]
    before = None
    for entry, selection in zip(logs, trainer.selections, strict=True):
        assert entry["sage_rows_kept"] == len(selection) == 19
        assert entry["sage_rows_set_aside"] == 0
        assert not any("seconds" in name for name in entry)  # two runs have the same history
        assert selection.stats.fit_seconds > 0
        assert entry["sage_energy"] == selection.stats.energy
        assert entry["sage_agreement"] == pytest.approx(selection.scores[selection.indices].mean(), abs=1e-6)
        if before is not None:
            shared = set(before.indices.tolist()) & set(selection.indices.tolist())
            assert entry["sage_overlap"] == len(shared) / 19
        before = selection
    assert trainer.selection is trainer.selections[-1]


def test_the_selection_gives_the_kept_rows_as_a_dataset(tmp_path):
    rows = image_rows(48)
    trainer = train(vit(), sage_args(tmp_path), rows)
    kept = trainer.selection.dataset
    assert len(kept) == 19
    assert kept["label"] == rows.select(trainer.selection.indices)["label"]
    assert np.allclose(kept["sage_score"], trainer.selection.scores[trainer.selection.indices])
    assert trainer.train_dataset is rows


def test_rows_that_cannot_be_scored_do_not_shorten_the_schedule(tmp_path, caplog):
    rows = image_rows(24)
    pixels = np.array(rows["pixel_values"], dtype=np.float32)
    pixels[:12] = np.inf
    broken = rows.remove_columns("pixel_values").add_column("pixel_values", pixels.tolist())
    args = sage_args(tmp_path, sage_fraction=0.75, sage_warmup_epochs=0.0, num_train_epochs=2)
    trainer = train(vit(), args, broken)
    assert len(trainer.selection) == 12
    assert trainer.selection.set_aside.keys() == set(range(12))
    assert trainer.state.global_step == trainer.state.max_steps == 2 * 3  # of 18 rows, eight a step
    assert "the kept rows repeat up to 18" in caplog.text
    assert np.isfinite(losses(trainer)).all()


def test_a_second_call_of_train_starts_again(tmp_path):
    trainer = train(vit(), sage_args(tmp_path), image_rows(40))
    first = trainer.selection
    trainer.train()
    assert len(trainer.selections) == 1
    assert trainer.selection is not first


def test_a_number_of_rows_and_groups_of_another_column_work(tmp_path):
    rows = image_rows(40).add_column("source", ["a"] * 30 + ["b"] * 10)
    args = sage_args(tmp_path, sage_fraction=None, sage_num_examples=12, sage_group_by="source", sage_balance="equal")
    trainer = train(vit(), args, rows)
    assert [(group.name, group.kept) for group in trainer.selection.group_table] == [("a", 6), ("b", 6)]
