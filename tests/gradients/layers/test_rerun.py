"""Layers without a rule, fused experts and parametrised weights, against rows alone."""

import pytest
import torch
from torch import nn
from transformers import (
    BitConfig,
    BitForImageClassification,
    FalconConfig,
    FalconForSequenceClassification,
    GptOssConfig,
    GptOssForCausalLM,
    JetMoeConfig,
    JetMoeForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
)

from sage_hf.gradients import GradientCollector, register_rule
from sage_hf.gradients.layers.rerun import LayerCall
from sage_hf.gradients.layers.rules import RULES, Vector

from ...cases import VOCABULARY, lm_batch, mixtral, token_batch
from ...reference import per_example_gradients, relative_error, row


def stirred(model):
    """Weights of which none is zero, so that no wrong gradient hides."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


TEXT = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
MIXTURES = {
    "mixtral": lambda: mixtral(),
    "gpt_oss": lambda: GptOssForCausalLM(
        GptOssConfig(**TEXT, intermediate_size=12, num_key_value_heads=2, num_local_experts=4, head_dim=8)
    ),
    "llama4": lambda: Llama4ForCausalLM(
        Llama4TextConfig(
            **TEXT,
            intermediate_size=12,
            intermediate_size_mlp=12,
            num_key_value_heads=2,
            num_local_experts=4,
            head_dim=8,
            pad_token_id=0,
        )
    ),
}


def differing(collector, batch):
    """The largest error of a block in any row, as a share of the block."""
    wanted = torch.stack([collector.truth(row(batch, index))[0] for index in range(len(batch["input_ids"]))])
    rows = collector(batch)
    return max(
        float(
            ((rows[:, b.columns] - wanted[:, b.columns]).norm(dim=1) / wanted[:, b.columns].norm(dim=1))
            .nan_to_num()
            .max()
        )
        for b in collector.blocks
    )


@pytest.mark.parametrize("projection", [None, 3])
@pytest.mark.parametrize("kind", MIXTURES)
def test_fused_experts_have_the_rows_that_they_have_alone(kind, projection):
    model, batch = stirred(MIXTURES[kind]()), lm_batch()
    collector = GradientCollector(model, projection=projection)
    experts = [block.name for block in collector.blocks if ".experts." in block.name]
    assert len(experts) >= 2
    assert collector.check(batch)
    assert not collector.left_out
    assert differing(collector, batch) < 1e-4


def test_no_gradient_of_all_experts_is_ever_made(monkeypatch):
    """Projected experts cost what their tokens cost: autograd is never asked for a gradient [E, O, I]."""
    model, batch = stirred(mixtral()), lm_batch()
    asked, grad = [], torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd,
        "grad",
        lambda out, inputs, *given, **more: (
            asked.extend(each.shape for each in inputs),
            grad(out, inputs, *given, **more),
        )[1],
    )
    GradientCollector(model, projection=3)(batch)
    assert asked
    assert all(len(shape) < 3 for shape in asked)


def test_experts_that_see_sorted_tokens_have_rows_taken_alone():
    config = JetMoeConfig(
        **{**TEXT, "num_attention_heads": 4},
        intermediate_size=12,
        num_key_value_heads=2,
        kv_channels=8,
        num_local_experts=4,
    )
    model, batch = stirred(JetMoeForCausalLM(config)), lm_batch()
    collector = GradientCollector(model, projection=None)
    assert not collector.check(batch)
    assert differing(collector, batch) < 1e-4


# ------------------------------------------------- layers with a forward of their own
def test_linear_layers_and_convolutions_with_a_forward_of_their_own_are_targeted_and_right():
    falcon = stirred(FalconForSequenceClassification(FalconConfig(**TEXT, num_labels=3, pad_token_id=0)))
    batch = {**token_batch(), "labels": torch.tensor([0, 1, 2, 1])}
    collector = GradientCollector(falcon, projection=None)
    assert collector.layout.share > 0.5
    assert collector.check(batch)
    wanted = per_example_gradients(falcon, batch, [block.name for block in collector.blocks])
    assert relative_error(collector(batch), wanted) < 1e-5

    bit = stirred(
        BitForImageClassification(
            BitConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_groups=4, num_labels=3)
        )
    )
    batch = {"pixel_values": torch.randn(3, 3, 32, 32), "labels": torch.tensor([0, 2, 1])}
    collector = GradientCollector(bit, projection=None)
    assert collector.layout.share > 0.9
    assert collector.check(batch)
    wanted = per_example_gradients(bit, batch, [block.name for block in collector.blocks])
    assert relative_error(collector(batch), wanted) < 1e-4


class Scale(nn.Module):
    """A layer that nobody knows: y = x * w."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size))

    def forward(self, x):
        return x * self.weight


class Table(nn.Module):
    """Parameters beside layers, and inputs with and without rows."""

    def __init__(self):
        super().__init__()
        self.token, self.places, self.inner = (
            nn.Parameter(torch.randn(1, 1, 4)),
            nn.Parameter(torch.randn(6, 4)),
            nn.Linear(4, 4),
        )

    def forward(self, x, *, scale, order="last"):
        token = self.token.expand(len(x), -1, -1)
        both = torch.cat([x, token] if order == "last" else [token, x], 1)
        return self.inner(both) + self.places[: both.shape[1]] * scale, None


class Net(nn.Module):
    """Layers of every odd kind, in front of three logits."""

    def __init__(self):
        super().__init__()
        self.scale, self.table = Scale(4), Table()
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.deep = nn.Conv3d(1, 2, (1, 2, 2))
        self.back = nn.ConvTranspose1d(4, 3, 2)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, inputs):
        mixed, _ = self.table(self.scale(inputs), scale=torch.arange(4.0), order="first")
        mixed = torch.tanh(self.normed(mixed))
        wide = self.deep(mixed[:, None, None]).flatten(1).mean(1)
        return self.norm(self.back(mixed.transpose(1, 2)).mean(2) + wide[:, None])


def test_layers_of_any_kind_are_run_again_for_all():
    model = Net().double().eval()
    batch = {"inputs": torch.randn(4, 5, 4).double(), "labels": torch.tensor([0, 1, 2, 1])}
    collector = GradientCollector(model, target_modules="all", projection=None)
    assert {block.name for block in collector.blocks} == {name for name, _ in model.named_parameters()}
    assert collector.check(batch)
    assert not collector.left_out
    wanted = per_example_gradients(model, batch, [block.name for block in collector.blocks])
    assert relative_error(collector(batch), wanted) < 1e-10


class ChannelRMSNorm(nn.Module):
    """A norm over the channels of an image, by the name of one over the last axis."""

    def __init__(self, size):
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.randn(size)), 0.1

    def forward(self, x):
        return x / (x.square().mean(1, keepdim=True) + self.epsilon).sqrt() * self.weight.exp()[:, None, None]


class OwnConvolution(nn.Conv2d):
    """A convolution that changes its weight on the way."""

    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, weight - weight.mean(), bias)


class Odd(nn.Module):
    """Layers that look like others, and a table with sparse gradients."""

    def __init__(self, is_sparse=False):
        super().__init__()
        self.table = nn.Embedding(9, 8, sparse=is_sparse, scale_grad_by_freq=not is_sparse)
        self.conv, self.norm, self.head = OwnConvolution(2, 4, 2), ChannelRMSNorm(4), nn.Linear(4, 3)
        self.patched = nn.Linear(3, 3)
        plain = self.patched.forward
        self.patched.forward = lambda x: plain(x) * 3

    def forward(self, ids):
        image = self.table(ids).unflatten(-1, (2, 4)).transpose(1, 2)
        return self.patched(self.head(self.norm(self.conv(image)).mean((2, 3))))


@pytest.mark.parametrize("is_sparse", [False, True])
def test_layers_that_only_look_like_others_are_right(is_sparse):
    torch.manual_seed(0)
    model = Odd(is_sparse).eval()
    batch = {"ids": torch.randint(0, 9, (4, 5)), "labels": torch.tensor([0, 1, 2, 1])}
    collector = GradientCollector(model, target_modules="all", projection=None)
    assert collector.check(batch)
    assert not collector.left_out
    names = [block.name for block in collector.blocks]
    rows = collector(batch)
    for index in range(4):
        model.zero_grad()
        nn.functional.cross_entropy(
            model(batch["ids"][index : index + 1]), batch["labels"][index : index + 1]
        ).backward()
        found = [dict(model.named_parameters())[name].grad for name in names]
        wanted = torch.cat([(each.to_dense() if each.is_sparse else each).flatten() for each in found])
        assert (rows[index] - wanted).norm() <= 1e-5 * wanted.norm()
    model.zero_grad()


def test_a_parametrised_weight_is_targeted_by_what_it_is_made_of():
    names = [block.name for block in GradientCollector(Net()).blocks]
    assert "normed.parametrizations.weight.original0" in names
    assert "deep.weight" in names


def test_a_registered_rule_is_used_and_one_that_is_wrong_is_found(monkeypatch, caplog):
    monkeypatch.setattr("sage_hf.gradients.layers.rules.RULES", RULES)
    before = dict(RULES)
    model = nn.Sequential(Scale(4), nn.Linear(4, 3)).eval()
    forward = model.forward

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = model

        def forward(self, inputs):
            return forward(inputs)

    net, batch = Named(), {"inputs": torch.randn(4, 4), "labels": torch.tensor([0, 1, 2, 1])}
    wanted = per_example_gradients(net, batch, ["body.0.weight", "body.1.weight", "body.1.bias"])
    runs = []
    monkeypatch.setattr(
        LayerCall, "add", lambda self, *given, add=LayerCall.add: (runs.append(1), add(self, *given))[1]
    )
    try:
        assert relative_error(GradientCollector(net, target_modules="all", projection=None)(batch), wanted) < 1e-5
        assert runs
        runs.clear()
        register_rule(Scale, lambda module: {"weight": Vector(module.weight.numel(), lambda x: x)})
        collector = GradientCollector(net, target_modules="all", projection=None)
        assert collector.check(batch)
        assert relative_error(collector(batch), wanted) < 1e-5
        assert not runs
        register_rule(Scale, lambda module: {"weight": Vector(module.weight.numel(), lambda x: 2 * x)})
        collector = GradientCollector(net, target_modules="all", projection=None)
        assert collector.check(batch)
        assert collector.left_out == {"body.0.weight"}
        assert "left out" in caplog.text
    finally:
        RULES.clear()
        RULES.update(before)
