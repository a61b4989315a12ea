"""What a model does to the output of a layer, and on which axis the rows are, against rows alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    LongformerConfig,
    LongformerForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
)

from sage_hf.gradients import GradientCollector

from ...cases import BERT, lm_batch, mixtral, token_batch
from ...reference import per_example_gradients, relative_error, row


class Between(nn.Module):
    """Three layers; what happens to the second one's output [B, T, 8] is the argument's."""

    def __init__(self, change):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.change = change

    def forward(self, inputs):
        return self.third(self.change(self.second(torch.tanh(self.first(inputs)))).mean(1))


def some_zeroed(hidden):
    hidden[:, 2:] = 0.0
    return hidden


def masked(hidden):
    hidden[hidden[..., 0] > 0] *= 0.5
    return hidden


def part_scaled(hidden):
    hidden[..., :4].mul_(3.0)
    return hidden


def divided(hidden):
    hidden /= 2.0
    return hidden.transpose(1, 2).reshape(len(hidden), 5, 8)


IN_PLACE = [
    lambda hidden: F.relu_(hidden),
    lambda hidden: hidden.add_(hidden),
    some_zeroed,
    masked,
    part_scaled,
    divided,
]


@pytest.mark.parametrize("targets", ["auto", ["second"]])
@pytest.mark.parametrize("change", IN_PLACE)
def test_an_output_that_is_changed_in_place_has_its_gradient(change, targets):
    model, batch = Between(change), {"inputs": torch.randn(4, 5, 6), "labels": torch.tensor([0, 1, 2, 0])}
    collector = GradientCollector(model, target_modules=targets, projection=None)
    rows = collector(batch)
    wanted = per_example_gradients(model, batch, [block.name for block in collector.blocks])
    assert wanted.norm(dim=1).min() > 0
    assert relative_error(rows, wanted) < 1e-5


WAVES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "conv_dim": (8, 8),
    "conv_stride": (4, 4),
    "conv_kernel": (8, 8),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
    "num_labels": 3,
}


def test_speech_and_long_text_that_zero_their_padding_in_place_have_the_rows_that_they_have_alone():
    torch.manual_seed(0)
    waves = {"input_values": torch.randn(3, 512), "attention_mask": torch.ones(3, 512, dtype=torch.long)}
    waves["attention_mask"][1, 300:] = 0
    speech = Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**WAVES)), waves
    config = LongformerConfig(**{**BERT, "max_position_embeddings": 64}, attention_window=4, num_labels=3)
    is_global = (torch.arange(9) == 0).long().expand(4, 9)
    text = LongformerForSequenceClassification(config), {**token_batch(), "global_attention_mask": is_global}
    for model, batch in (speech, text):
        batch["labels"] = torch.arange(len(next(iter(batch.values())))) % 3
        collector = GradientCollector(model.eval(), projection=None)
        assert collector.check(batch)
        wanted = torch.stack([collector.truth(row(batch, index))[0] for index in range(len(batch["labels"]))])
        assert relative_error(collector(batch), wanted.float()) < 1e-5


class PositionsFirst(nn.Module):
    """Layers that see [T, B, .], as many as there are rows."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, inputs):
        return self.second(self.norm(torch.tanh(self.first(inputs.transpose(0, 1))))).sum(0)


@pytest.mark.parametrize("length", [4, 5, 8])
def test_rows_on_the_second_axis_are_found_there(length):
    model, batch = PositionsFirst(), {"inputs": torch.randn(4, length, 6), "labels": torch.tensor([0, 1, 2, 0])}
    collector = GradientCollector(model, target_modules="all", projection=None)
    rows = collector(batch)
    assert not collector.one_at_a_time
    assert relative_error(rows, per_example_gradients(model, batch, [block.name for block in collector.blocks])) < 1e-5


class WithTable(nn.Module):
    """A table [T, T, 2] of relative positions, looked up once for all rows."""

    def __init__(self):
        super().__init__()
        self.table, self.layer, self.head = nn.Embedding(20, 2), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, inputs):
        places = torch.arange(inputs.shape[1])
        bias = self.table((places[:, None] - places).abs()).mean(-1)
        return self.head(bias.softmax(-1) @ self.layer(inputs)).mean(1)


@pytest.mark.parametrize("length", [4, 8, 5])
def test_a_table_for_all_rows_is_never_taken_for_rows(length):
    model, batch = WithTable(), {"inputs": torch.randn(4, length, 6), "labels": torch.tensor([0, 1, 2, 0])}
    collector = GradientCollector(model, target_modules="all", projection=None)
    rows = collector(batch)
    assert collector.one_at_a_time
    assert "table" in collector.why_one_at_a_time
    assert relative_error(rows, per_example_gradients(model, batch, [block.name for block in collector.blocks])) < 1e-5
    others = GradientCollector(model, projection=None)
    others(batch)
    assert not others.one_at_a_time


def test_relative_positions_of_a_model_of_transformers_are_right_where_the_rows_divide_the_length():
    torch.manual_seed(0)
    model = MPNetForSequenceClassification(MPNetConfig(**BERT, num_labels=3)).eval()
    batch = {**token_batch(length=8), "labels": torch.tensor([0, 1, 2, 1])}
    collector = GradientCollector(model, target_modules="all", projection=None)
    wanted = per_example_gradients(model, batch, [block.name for block in collector.blocks])
    assert relative_error(collector(batch), wanted) < 1e-5


class OneExpertARow(nn.Module):
    """Layers that are called with as many tokens as chose them."""

    def __init__(self):
        super().__init__()
        self.experts, self.head = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)]), nn.Linear(6, 3)

    def forward(self, inputs):
        chosen, out = inputs[..., 0] > 0, torch.zeros_like(inputs)
        for expert, seen in zip(self.experts, (chosen, ~chosen), strict=True):
            out[seen] = expert(inputs[seen])
        return self.head(out.tanh()).mean(1)


def test_layers_that_see_some_tokens_of_all_rows_have_rows_taken_alone():
    inputs = torch.randn(4, 2, 6)
    inputs[..., 0] = torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, -1.0], [-1.0, -1.0]])  # 4 and 4 of 8 tokens
    model, batch = OneExpertARow(), {"inputs": inputs, "labels": torch.tensor([0, 1, 2, 0])}
    collector = GradientCollector(model, projection=None)
    rows = collector(batch)
    assert collector.one_at_a_time
    assert relative_error(rows, per_example_gradients(model, batch, [block.name for block in collector.blocks])) < 1e-5


class Unpadded(nn.Module):
    """Its layers see the tokens of all rows in one run."""

    def __init__(self):
        super().__init__()
        self.embed, self.layer, self.head = nn.Embedding(20, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, input_ids, attention_mask):
        seen = attention_mask.bool()
        hidden = torch.zeros(*input_ids.shape, 6)
        hidden[seen] = torch.tanh(self.layer(self.embed(input_ids)[seen]))
        return self.head(hidden.sum(1) / attention_mask.sum(1, keepdim=True))


def test_tokens_in_one_run_without_padding_are_never_taken_for_rows():
    lengths = torch.tensor([8, 5, 3, 4])  # 20 tokens, which four rows divide
    model, ids = Unpadded(), torch.randint(0, 20, (4, 8))
    labels = torch.tensor([0, 1, 2, 0])
    collector = GradientCollector(model, projection=None)
    collector({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    batch = {"input_ids": ids, "attention_mask": (torch.arange(8) < lengths[:, None]).long(), "labels": labels}
    wanted = per_example_gradients(model, batch, [block.name for block in collector.blocks])
    assert relative_error(collector(batch), wanted) < 1e-5
    assert collector.one_at_a_time


def sorted_by_length(layer, inputs, lengths):
    order = lengths.argsort(descending=True, stable=True)
    return layer(inputs[order])[order.argsort()]


def negatives_behind(layer, inputs, lengths):
    both = layer(torch.cat([inputs, -inputs]))
    return both[: len(inputs)] - both[len(inputs) :]


def folded_in_front(layer, inputs, lengths):
    folded = inputs.transpose(0, 1).reshape(-1, inputs.shape[-1])
    return layer(folded).reshape(inputs.shape[1], len(inputs), -1).transpose(0, 1)


class InOrder(nn.Module):
    """A layer that sees its rows in an order of the argument's."""

    def __init__(self, order):
        super().__init__()
        self.layer, self.head, self.order = nn.Linear(6, 6), nn.Linear(6, 3), order

    def forward(self, inputs, lengths):
        hidden = torch.tanh(self.order(self.layer, inputs, lengths))
        return self.head((hidden * (torch.arange(8) < lengths[:, None])[..., None]).sum(1))


@pytest.mark.parametrize("order", [sorted_by_length, negatives_behind, folded_in_front], ids=lambda f: f.__name__)
def test_rows_in_another_order_than_the_batchs_are_never_given_to_others(order):
    lengths = torch.tensor([3, 8, 5, 4])
    model, batch = InOrder(order), {"inputs": torch.randn(4, 8, 6), "lengths": lengths}
    batch["labels"] = torch.tensor([0, 1, 2, 0])
    collector = GradientCollector(model, projection=None)
    wanted = per_example_gradients(model, batch, [block.name for block in collector.blocks])
    assert relative_error(collector(batch), wanted) < 1e-5
    assert collector.one_at_a_time


@pytest.mark.parametrize("kind", ["config", "inner config"])
def test_a_loss_for_the_routing_of_experts_is_left_out_and_that_is_said(kind, caplog):
    plain, batch = mixtral().eval(), lm_batch()
    routed = mixtral(output_router_logits=True, router_aux_loss_coef=0.5).eval()
    model = routed
    if kind == "inner config":  # as a vision-language model holds its language model's

        class Outer(nn.Module):
            def __init__(self):
                super().__init__()
                self.language_model = routed

            def forward(self, **inputs):
                return self.language_model(**inputs)

            def get_output_embeddings(self):
                return self.language_model.lm_head

        model = Outer()
    collector = GradientCollector(model, projection=None)
    assert collector.check(batch)
    rows, losses = collector.collect(batch)
    wanted, own = GradientCollector(plain, projection=None).collect(batch)
    assert torch.allclose(rows, wanted, atol=1e-6)
    assert torch.allclose(losses, own, atol=1e-6)
    assert caplog.text.count("routing of experts") == 1
    assert routed.config.output_router_logits
