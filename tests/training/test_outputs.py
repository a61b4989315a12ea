"""What models return and what they are made of, in a Trainer: tuples, bare parameters, adapters on fused experts."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM, Trainer

from ..cases import bert, vit
from .runs import difference, losses, plain_args, sage_args, train
from .test_compatibility import assert_scored_by_the_training_loss, image_rows, lm_rows


class Tupled(nn.Module):
    """(loss, logits), as a model of one's own returns."""

    def __init__(self):
        super().__init__()
        self.inner = vit()

    def forward(self, pixel_values, labels=None):
        return self.inner(pixel_values=pixel_values, labels=labels, return_dict=False)


class Line(nn.Module):
    """Two weights that belong to no layer."""

    def __init__(self, as_tuple):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor([1.0]))
        self.as_tuple = as_tuple

    def forward(self, input_x, labels=None):
        y = input_x * self.a + self.b
        if labels is None:
            return (y,) if self.as_tuple else {"logits": y}
        loss = nn.functional.mse_loss(y, labels)
        return (loss, y) if self.as_tuple else {"loss": loss, "logits": y}


def line_rows(count=40):
    x = np.random.default_rng(0).normal(size=count).astype(np.float32)
    noise = np.random.default_rng(1).normal(size=count).astype(np.float32)
    return Dataset.from_dict({"input_x": x, "labels": 2 * x + 3 + 0.1 * noise}).with_format("numpy")


def assert_trainers(tmp_path, build, rows):
    """With all rows kept it is Trainer."""
    ours = train(build(), sage_args(tmp_path, sage_fraction=1.0, sage_refresh_epochs=1), rows)
    theirs = train(build(), plain_args(tmp_path), rows, Trainer)
    assert losses(ours) == losses(theirs)
    assert difference(ours.model, theirs.model) == 0


SETTINGS = {"sage_projection": "none", "sage_group_by": "none"}


@pytest.mark.parametrize("check", [True, False])
def test_rows_are_scored_by_the_loss_in_a_tuple(tmp_path, check):
    trainer = train(Tupled(), sage_args(tmp_path, sage_check_gradients=check, **SETTINGS), image_rows(24))
    assert_scored_by_the_training_loss(trainer)
    assert_trainers(tmp_path, Tupled, image_rows(24))


def test_a_head_of_transformers_without_a_dict_is_scored_by_its_loss(tmp_path):
    def build():
        model = bert()
        model.config.return_dict = False
        return model

    torch.manual_seed(1)
    ids = torch.randint(3, 64, (24, 9)).tolist()
    rows = Dataset.from_dict({"input_ids": ids, "labels": [row % 3 for row in range(24)]})
    trainer = train(build(), sage_args(tmp_path, **SETTINGS), rows)
    assert_scored_by_the_training_loss(trainer)
    assert_trainers(tmp_path, build, rows)


@pytest.mark.parametrize("as_tuple", [True, False], ids=["tuple", "dict"])
def test_bare_parameters_are_scored(tmp_path, as_tuple):
    trainer = train(Line(as_tuple), sage_args(tmp_path, **SETTINGS), line_rows())
    assert len(trainer.selection) == 16
    assert trainer.selection.stats.target_weights == 2
    row = trainer.train_dataset[0]
    x, y = float(row["input_x"]), float(row["labels"])
    a, b = float(trainer.model.a.detach()), float(trainer.model.b.detach())
    selector = trainer._selector(trainer.get_train_dataloader())
    gradient = selector.collector({"input_x": torch.tensor([x, 1.0]), "labels": torch.tensor([y, 0.0])})[0]
    wrong = 2 * (a * x + b - y)
    torch.testing.assert_close(gradient, torch.tensor([wrong * x, wrong]), rtol=1e-4, atol=1e-5)
    assert_trainers(tmp_path, lambda: Line(as_tuple), line_rows())


def fused_experts():
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
        head_dim=8,
    )
    lora = LoraConfig(
        r=2,
        target_modules=["q_proj"],
        target_parameters=["mlp.experts.gate_up_proj"],
        init_lora_weights=False,
    )
    return get_peft_model(MixtralForCausalLM(config), lora)


def test_adapters_on_fused_experts_train_on_a_subset(tmp_path):
    torch.manual_seed(0)
    trainer = train(fused_experts(), sage_args(tmp_path, **SETTINGS), lm_rows(24))
    trainable = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    assert trainer.selection.stats.target_weights == trainable
    assert_scored_by_the_training_loss(trainer)
