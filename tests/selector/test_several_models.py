from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import AutoModelForImageClassification, Trainer

from sage_hf import SageConfig, SageSelector, select_over_checkpoints
from sage_hf.errors import ConfigError
from sage_hf.selector.checkpoints import learning_rates

from ..cases import image_rows, vit
from ..training.runs import plain_args, train

SMALL = {"sketch_size": 16, "batch_size": 8, "shard_size": 16, "fraction": 0.3, "projection": 4}


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """Checkpoints of Trainer's after 2 and 4 steps."""
    folder = tmp_path_factory.mktemp("trainings")
    args = plain_args(folder, save_strategy="steps", save_steps=2, max_steps=4)
    train(vit(), args, image_rows(16), Trainer)
    return folder


def checkpoint(number):
    """A model whose head differs from that of the other numbers."""
    model = vit()
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        model.classifier.weight += 0.3 * torch.randn(model.classifier.weight.shape, generator=generator)
    return model


@pytest.mark.parametrize("weights", [None, (1.0, 3.0)])
def test_scores_are_the_weighted_mean_of_those_of_every_model(weights):
    rows, config = image_rows(40), SageConfig(**SMALL, strategy="agreement")
    models = [checkpoint(1), checkpoint(2)]
    alone = [SageSelector(model, config=config, progress=False).select(rows) for model in models]
    share = np.array(weights or (1.0, 1.0)) / sum(weights or (1.0, 1.0))
    selection = select_over_checkpoints(models, rows, weights=weights, config=config, progress=False)
    assert np.allclose(selection.scores, share[0] * alone[0].scores + share[1] * alone[1].scores, atol=1e-6)
    assert np.allclose(selection.losses, share[0] * alone[0].losses + share[1] * alone[1].losses, atol=1e-6)
    assert selection.stats.checkpoints == 2
    assert len(selection) == 12


def test_one_model_gives_what_the_selector_gives():
    rows, config = image_rows(40), SageConfig(**SMALL)
    one = select_over_checkpoints([lambda: checkpoint(1)], rows, config=config, progress=False)
    other = SageSelector(checkpoint(1), config=config, progress=False).select(rows)
    assert np.array_equal(one.indices, other.indices)
    assert np.array_equal(one.scores, other.scores)


def test_models_are_loaded_one_after_the_other_and_averaged_towards_a_target():
    loaded = []

    def load(number):
        loaded.append(number)
        return checkpoint(number)

    rows, target = image_rows(40), image_rows(9, seed=3)
    models = [lambda: load(1), lambda: load(2), lambda: load(3)]
    selection = select_over_checkpoints(models, rows, target=target, config=SageConfig(**SMALL), progress=False)
    assert loaded == [1, 2, 3]
    assert selection.stats.strategy == "agreement"
    assert set(selection.indices) == set(
        np.concatenate(
            [
                np.flatnonzero(selection.groups == group)[
                    np.argsort(-selection.scores[selection.groups == group])[:kept]
                ]
                for group, kept in enumerate(entry.kept for entry in selection.group_table)
            ]
        )
    )


def test_targets_that_share_the_budget_and_several_models_do_not_go_together():
    parts = {"one": image_rows(5), "other": image_rows(5, seed=2)}
    with pytest.raises(ConfigError, match="differ from model to model"):
        select_over_checkpoints([vit, vit], image_rows(10), target=parts, config=SageConfig(**SMALL))
    single = select_over_checkpoints([vit], image_rows(20), target=parts, config=SageConfig(**SMALL))
    assert single.group_names == ["one", "other"]


def test_the_largest_agreement_is_that_of_the_sums_over_models():
    rows, parts = image_rows(40), {"one": image_rows(5, seed=1), "other": image_rows(5, seed=2)}
    config = SageConfig(**SMALL, target_reduction="max", group_by=None)
    models = [checkpoint(1), checkpoint(2)]
    both = select_over_checkpoints(models, rows, weights=(1, 3), target=parts, config=config, progress=False)
    alone = [
        SageSelector(model, config=config, progress=False).gather(rows, (), target=part)
        for model in models
        for part in parts.values()
    ]
    one, other = (0.25 * first.scores + 0.75 * second.scores for first, second in (alone[::2], alone[1::2]))
    assert np.allclose(both.scores, np.maximum(one, other), atol=1e-6)
    mean = select_over_checkpoints(
        models, rows, weights=(1, 3), target=parts, config=replace(config, target_reduction="mean"), progress=False
    )
    assert np.allclose(mean.scores, (one + other) / 2, atol=1e-6)
    assert both.stats.checkpoint_weights == [0.25, 0.75]


def test_folders_are_loaded_and_count_by_their_learning_rates(trainings):
    folders = [trainings / "checkpoint-2", trainings / "checkpoint-4"]
    loaded = []

    def load(folder):
        loaded.append(folder)
        return AutoModelForImageClassification.from_pretrained(folder)

    rows, config = image_rows(20), SageConfig(**SMALL, strategy="agreement")
    selection = select_over_checkpoints(folders, rows, load_model=load, config=config, progress=False)
    assert loaded == [str(folder) for folder in folders]
    rates = learning_rates(folders)
    assert np.allclose(selection.stats.checkpoint_weights, np.array(rates) / sum(rates))
    told = select_over_checkpoints(folders, rows, load_model=load, weights=rates, config=config, progress=False)
    assert np.array_equal(told.scores, selection.scores)
    mixed = select_over_checkpoints([*folders, vit], rows, load_model=load, config=config, progress=False)
    assert np.allclose(mixed.stats.checkpoint_weights, 1 / 3)


def test_each_folder_brings_the_state_of_its_own_optimizer(trainings):
    folders = [trainings / "checkpoint-2", trainings / "checkpoint-4"]
    rows, target, config = image_rows(30), image_rows(9, seed=3), SageConfig(**SMALL, group_by=None)
    load = AutoModelForImageClassification.from_pretrained
    settings = {"target": target, "config": config, "progress": False}
    selection = select_over_checkpoints(folders, rows, load_model=load, adam=True, weights=(1, 3), **settings)
    alone = [
        SageSelector(load(folder), config=config, optimizer_state=folder, progress=False).select(rows, target=target)
        for folder in folders
    ]
    assert np.allclose(selection.scores, 0.25 * alone[0].scores + 0.75 * alone[1].scores, atol=1e-6)
    assert selection.stats.adam
    plain = select_over_checkpoints(folders, rows, load_model=load, weights=(1, 3), **settings)
    assert not np.allclose(selection.scores, plain.scores, atol=1e-2)
    with pytest.raises(ConfigError, match="without its optimizer's state"):
        select_over_checkpoints([*folders, vit], rows, load_model=load, adam=True, **settings)


def test_folders_that_are_not_there_or_that_nothing_loads_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="nothing that loads"):
        select_over_checkpoints([tmp_path], image_rows(10), config=SageConfig(**SMALL))
    with pytest.raises(ConfigError, match=r"no folder .*gone"):
        select_over_checkpoints([tmp_path / "gone"], image_rows(10), load_model=vit, config=SageConfig(**SMALL))


@pytest.mark.parametrize(
    ("models", "weights", "settings", "words"),
    [
        ([], None, {}, "no model"),
        ([vit], (1.0, 2.0), {}, "for 1 models"),
        ([vit], (0.0,), {}, "positive number"),
        ([vit, vit], None, {"group_by": "cluster"}, "differ from model to model"),
    ],
)
def test_what_cannot_be_averaged_is_refused(models, weights, settings, words):
    with pytest.raises(ConfigError) as caught:
        select_over_checkpoints(models, image_rows(10), weights=weights, config=SageConfig(**{**SMALL, **settings}))
    assert words in str(caught.value)


class Dead(nn.Module):
    """A classifier that gives rows of one class no gradient, and rows of another one that is not finite."""

    def __init__(self, zero, infinite):
        super().__init__()
        self.layer, self.zero, self.infinite = nn.Linear(4, 3), zero, infinite

    def forward(self, x, labels=None):
        logits = self.layer(x)
        loss = nn.functional.cross_entropy(logits, labels, reduction="none")
        scale = torch.where(labels == self.infinite, torch.inf, torch.where(labels == self.zero, 0.0, 1.0))
        return {"loss": (loss * scale).mean(), "logits": logits}


def test_a_row_is_set_aside_for_the_reason_that_the_first_model_has():
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    rows = Dataset.from_dict({"x": x, "label": [0, 1, 2] * 4})
    config = SageConfig(**SMALL, strategy="agreement", group_by=None)
    models = [Dead(zero=0, infinite=-1), Dead(zero=-1, infinite=0), Dead(zero=-1, infinite=1)]
    selection = select_over_checkpoints(models, rows, config=config, progress=False)
    reasons = {selection.set_aside.get(row) for row in range(0, 12, 3)}
    assert reasons == {"gradient exactly zero"}
    assert {selection.set_aside.get(row) for row in range(1, 12, 3)} == {"gradient or loss not finite"}
    assert set(selection.indices) <= set(range(2, 12, 3))
