"""Rows are scored as a training reads them: those that are asked for, through its columns and its collator."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from sage_hf import SageConfig, SageSelector, SageTrainer
from sage_hf.errors import DatasetError
from sage_hf.training import selector as training_selector_module
from sage_hf.training.selector import TrainingSelector

from ..cases import image_rows, vit
from .runs import sage_args, train

SMALL = {"sketch_size": 16, "batch_size": 8, "shard_size": 16, "fraction": 0.3, "strategy": "agreement"}


def collate(rows):
    return {
        "pixel_values": torch.tensor(np.array([row["pixel_values"] for row in rows], dtype=np.float32)),
        "labels": torch.tensor([row["label"] for row in rows]),
    }


def training_selector(rows, read=None, **changes):
    loader = DataLoader(read or rows, collate_fn=collate)
    config = SageConfig(**{**SMALL, **changes})
    return TrainingSelector(vit(), loader, rows, loss_function=None, config=config, progress=False)


def test_a_target_is_scored_by_its_own_rows_and_not_by_those_of_the_training():
    rows, target = image_rows(40), image_rows(12, seed=7)
    wanted = SageSelector(vit(), config=SageConfig(**SMALL), progress=False).select(rows, target=target)
    found = training_selector(rows).select(rows, target=target)
    assert np.allclose(found.scores, wanted.scores, atol=1e-5)
    assert np.array_equal(found.indices, wanted.indices)


def test_a_target_is_read_with_the_columns_that_the_training_reads():
    rows, target = image_rows(40), image_rows(12, seed=7).add_column("note", ["x"] * 12)
    wide = rows.add_column("note", ["y"] * 40)
    found = training_selector(wide, wide.remove_columns("note")).select(wide, target=target)
    assert np.array_equal(found.scores, training_selector(rows).select(rows, target=target).scores)
    with pytest.raises(DatasetError, match=r"no columns \['pixel_values'\]"):
        training_selector(rows).select(rows, target=target.remove_columns("pixel_values"))


class Counted:
    """`collate` that counts its calls, outside of itself: its own state is no other after a call."""

    counts: ClassVar[list[int]] = []

    @property
    def calls(self):
        return len(self.counts)

    def __call__(self, rows):
        self.counts.append(1)
        return collate(rows)


def test_a_second_selection_makes_no_batch_again_and_keeps_what_a_new_selector_keeps():
    rows, collator = image_rows(40), Counted()
    selector = training_selector(rows)
    selector._collator = collator
    first = selector.select(rows)
    made = collator.calls
    with torch.no_grad():
        selector.model.classifier.weight.mul_(-1.5)
    second = selector.select(rows)
    assert collator.calls == made
    assert not np.array_equal(first.scores, second.scores)
    fresh = training_selector(rows)
    fresh.model.load_state_dict(selector.model.state_dict())
    assert np.array_equal(fresh.select(rows).scores, second.scores)


def test_batches_that_a_model_writes_into_are_whole_again_at_the_next_refresh():
    rows = image_rows(40)
    selector = training_selector(rows)
    wanted = selector.select(rows)

    def write(module, args, kwargs):
        kwargs["pixel_values"].zero_()

    hook = selector.model.register_forward_pre_hook(write, with_kwargs=True)
    assert not np.array_equal(selector.select(rows).scores, wanted.scores)
    hook.remove()
    assert np.array_equal(selector.select(rows).scores, wanted.scores)


def test_no_more_batches_are_kept_than_may_be(monkeypatch):
    monkeypatch.setattr(training_selector_module, "_KEPT_BYTES", 3000)
    rows = image_rows(40)
    selector, collator = training_selector(rows), Counted()
    selector._collator = collator
    wanted = selector.select(rows)
    made = collator.calls
    again = selector.select(rows)
    assert collator.calls > made + 2
    assert selector._source._bytes <= 3000
    assert np.array_equal(again.scores, wanted.scores)


@pytest.mark.parametrize("strategy", ["agreement", "auto"])
def test_a_training_keeps_what_it_would_keep_with_a_new_selector_for_every_refresh(tmp_path, monkeypatch, strategy):
    settings = {"num_train_epochs": 4, "sage_refresh_epochs": 1, "sage_strategy": strategy, "sage_sketch_size": 16}
    made = []
    build = TrainingSelector.__init__
    monkeypatch.setattr(TrainingSelector, "__init__", lambda self, *a, **k: made.append(1) or build(self, *a, **k))
    one = train(vit(), sage_args(tmp_path, **settings), image_rows(40))
    assert len(made) == 1 and len(one.selections) == 3
    monkeypatch.setattr(type(one), "_selector", fresh_selector)
    other = train(vit(), sage_args(tmp_path, **settings), image_rows(40))
    for mine, theirs in zip(one.selections, other.selections, strict=True):
        assert np.array_equal(mine.indices, theirs.indices)
        assert np.array_equal(mine.scores, theirs.scores)


def fresh_selector(trainer, dataloader):
    """A selector that knows nothing of those before it."""
    return TrainingSelector(
        trainer.model,
        dataloader,
        trainer.train_dataset,
        loss_function=trainer.get_sage_loss_function(),
        config=trainer.args.sage_config(),
        progress=False,
    )


def test_a_weight_that_a_callback_unfreezes_is_targeted_from_then_on(tmp_path):
    class Unfreeze(TrainerCallback):
        def on_epoch_begin(self, args, state, control, model=None, **kwargs):
            for parameter in model.parameters():
                parameter.requires_grad_(True)

    model = vit()
    for parameter in model.vit.parameters():
        parameter.requires_grad_(False)
    settings = {"num_train_epochs": 3, "sage_refresh_epochs": 1, "sage_warmup_epochs": 1}
    trainer = train(model, sage_args(tmp_path, **settings), image_rows(40), callbacks=[Unfreeze()])
    widths = [selection.stats.target_weights for selection in trainer.selections]
    assert widths[-1] > 1000 > model.classifier.weight.numel()


class Scaled:
    """A collator whose state a callback may change."""

    scale = 1.0

    def __call__(self, rows):
        batch = collate(rows)
        return {**batch, "pixel_values": self.scale * batch["pixel_values"]}


def test_a_collator_that_has_changed_makes_batches_anew():
    rows = image_rows(40)
    selector, fresh = training_selector(rows), training_selector(rows)
    selector._collator, fresh._collator = Scaled(), Scaled()
    first = selector.select(rows)
    selector._collator.scale = fresh._collator.scale = -3.0
    second = selector.select(rows)
    assert not np.array_equal(second.losses, first.losses)
    assert np.array_equal(second.losses, fresh.select(rows).losses)


def test_the_loss_is_asked_for_at_every_refresh(tmp_path):
    class Growing(SageTrainer):
        def get_sage_loss_function(self):
            scale = 100.0 if (self.state.epoch or 0) > 1.5 else 1.0
            return lambda outputs, batch: (
                scale * torch.nn.functional.cross_entropy(outputs["logits"], batch["labels"], reduction="none")
            )

    settings = {"num_train_epochs": 4, "sage_refresh_epochs": 1}
    trainer = train(vit(), sage_args(tmp_path, **settings), image_rows(40), Growing)
    losses = [selection.stats.mean_loss for selection in trainer.selections]
    assert losses[-1] > 20 * losses[0]
