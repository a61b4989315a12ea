"""The check before a pass: what it finds, what it makes of it, and that it cannot be fooled by a small block."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    BartConfig,
    BartForCausalLM,
    ReformerConfig,
    ReformerForSequenceClassification,
    YolosConfig,
    YolosForObjectDetection,
)

from sage_hf.errors import BatchAxisError, GradientError
from sage_hf.gradients import GradientCollector, per_example_loss
from sage_hf.gradients.batch_axis import batch_rows, rows_of
from sage_hf.gradients.check import _uneven

from ..cases import bert, gpt2, lm_batch, mixtral, token_batch, vit
from ..reference import per_example_gradients, relative_error, row
from .test_collector import assert_same, state_of

LABELS = torch.tensor([0, 1, 2, 0])


class Tiny(nn.Module):
    """A large block whose rows are right, and a small one (1e-3 of the row) whose rows are not, in batches."""

    def __init__(self, small=1e-3):
        super().__init__()
        self.large, self.small, self.size = nn.Linear(6, 3), nn.Linear(6, 3), small

    def forward(self, inputs):
        # The layer's output is the same with other rows; what becomes of it is not.
        return self.large(inputs) + self.size * self.small(inputs) * (1.5 if len(inputs) > 1 else 1.0)


def test_a_block_that_is_a_thousandth_of_the_row_is_compared_by_itself(caplog):
    batch = {"inputs": torch.randn(4, 6) + 1, "labels": LABELS}
    collector = GradientCollector(Tiny(), projection=None)
    assert not collector.check(batch)
    assert "small.weight" in caplog.text


class OtherLoss(nn.Module):
    """Gradients of rows are right in a batch, and losses are not: a part of the batch that no weight has a part in."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, inputs, labels):
        return {"loss": F.cross_entropy(self.layer(inputs), labels) + inputs.detach().std().nan_to_num()}


def test_losses_are_compared_too():
    model, batch = OtherLoss(), {"inputs": torch.randn(4, 6), "labels": LABELS}
    collector = GradientCollector(model, projection=None)
    assert not collector.check(batch)
    _, losses = collector.collect(batch)
    assert torch.allclose(losses, torch.stack([model(**row(batch, i))["loss"] for i in range(4)]), atol=1e-6)


class Tied(nn.Module):
    """A small layer whose weight is used without a call, beside a large one."""

    def __init__(self):
        super().__init__()
        self.large, self.hidden = nn.Linear(6, 30), nn.Linear(30, 3)

    def forward(self, inputs):
        return F.linear(torch.tanh(self.large(inputs)), self.hidden.weight, self.hidden.bias)


@pytest.mark.parametrize("targets", ["auto", "all", ["hidden"]])
def test_weights_that_are_used_without_their_layer_are_left_out_of_keywords_and_had_where_named(targets, caplog):
    model, batch = Tied(), {"inputs": torch.randn(4, 6), "labels": LABELS}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    collector = GradientCollector(model, target_modules=targets, projection=None)
    trusted = collector.check(batch)
    rows = collector(batch)
    wanted = per_example_gradients(model, batch, [block.name for block in collector.blocks])
    if targets == ["hidden"]:
        assert not trusted
        assert relative_error(rows, wanted) < 1e-5
        assert "so autograd takes them" in caplog.text
    else:
        assert trusted
        assert collector.left_out == {name for name in before if name.startswith("hidden")} & {
            block.name for block in collector.blocks
        }
        assert "left out of the gradients (" in caplog.text
        for block in collector.blocks:
            left = block.name in collector.left_out
            right = torch.allclose(rows[:, block.columns], wanted[:, block.columns], atol=1e-6)
            assert (not rows[:, block.columns].any()) if left else right
        assert collector.num_target_weights == sum(
            before[b.name].numel() for b in collector.blocks if b.name not in collector.left_out
        )


class Line(nn.Module):
    """Two weights and no layer, as Trainer's own tests have it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.config = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor([0.3])), None

    def forward(self, input_x, labels):
        predicted = input_x * self.a + self.b
        return F.mse_loss(predicted, labels), predicted


@pytest.mark.parametrize("targets", ["auto", "all", ["a"]])
def test_bare_parameters_are_taken_by_autograd_of_rows_alone(targets):
    model, batch = Line(), {"input_x": torch.randn(5), "labels": torch.randn(5)}
    model.a.grad = torch.tensor(7.0)
    collector = GradientCollector(model, target_modules=targets, projection=None)
    assert not collector.check(batch)
    rows, losses = collector.collect(batch)
    error = batch["input_x"] * 0.5 + 0.3 - batch["labels"]
    wanted = torch.stack([2 * error * batch["input_x"], 2 * error], 1)
    assert torch.allclose(rows, wanted[:, : rows.shape[1]], atol=1e-6)
    assert torch.allclose(losses, error**2, atol=1e-6)
    assert model.a.grad == 7.0
    assert model.a.requires_grad


def test_half_of_the_weights_is_the_border_of_a_warning(caplog):
    GradientCollector(bert(vocab_size=5000, hidden_size=8))
    assert 'target_modules="auto" covers' in caplog.text
    caplog.clear()
    GradientCollector(bert(vocab_size=10, hidden_size=32, intermediate_size=128))
    assert "covers" not in caplog.text


# ----------------------------------------------------------- models that need a look
def test_a_decoder_that_does_not_shift_its_labels_has_its_own_loss():
    torch.manual_seed(0)
    settings = {
        "vocab_size": 64,
        "d_model": 16,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 20,
    }
    model = BartForCausalLM(BartConfig(**settings, is_decoder=True, max_position_embeddings=32)).eval()
    batch = lm_batch()
    losses = per_example_loss(model, batch)
    assert torch.allclose(losses, torch.stack([model(**row(batch, i)).loss for i in range(4)]), atol=1e-5)
    assert GradientCollector(model, projection=None).check(batch)


@pytest.mark.parametrize("model", [gpt2, mixtral], ids=["gpt2", "mixtral"])
def test_the_fast_way_of_plain_causal_losses_is_the_models_own_loss(model):
    model, batch = model().eval(), lm_batch()
    own = torch.stack([model(**row(batch, i)).loss for i in range(4)])
    assert torch.allclose(per_example_loss(model, batch), own, atol=1e-5)


def test_boxes_in_lists_are_cut_and_their_rows_taken_alone():
    torch.manual_seed(0)
    config = YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=20,
        image_size=[16, 16],
        patch_size=8,
        num_detection_tokens=6,
        num_labels=3,
    )
    model = YolosForObjectDetection(config).eval()
    labels = [{"class_labels": torch.randint(0, 3, (n,)), "boxes": torch.rand(n, 4) * 0.4 + 0.3} for n in (1, 5, 2)]
    batch = {"pixel_values": torch.randn(3, 3, 16, 16), "labels": labels}
    collector = GradientCollector(model, projection=None)
    assert not collector.check(batch)
    weights = [weight for _, weight in collector.layout.held]
    for index, found in enumerate(collector(batch)):
        loss = model(pixel_values=batch["pixel_values"][index : index + 1], labels=[labels[index]]).loss
        wanted = torch.cat([each.flatten() for each in torch.autograd.grad(loss, weights)])
        assert (found - wanted).norm() <= 1e-4 * wanted.norm()


def test_a_model_that_cannot_be_differentiated_as_it_is_evaluated_is_refused_clearly():
    config = ReformerConfig(
        vocab_size=64,
        hidden_size=16,
        attention_head_size=8,
        num_attention_heads=2,
        feed_forward_size=20,
        attn_layers=["local"],
        axial_pos_shape=[4, 4],
        axial_pos_embds_dim=[8, 8],
        local_attn_chunk_length=4,
        max_position_embeddings=16,
        is_decoder=False,
        num_labels=3,
    )
    model, batch = (
        ReformerForSequenceClassification(config),
        {"input_ids": torch.randint(3, 64, (4, 16)), "labels": LABELS},
    )
    with pytest.raises(GradientError, match="ReformerForSequenceClassification fails on one row in eval mode"):
        GradientCollector(model).check(batch)


class Drawing(nn.Module):
    """Masks inputs at random, in eval mode, too."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, inputs):
        return self.layer(inputs * (torch.rand_like(inputs) > 0.5))


def test_a_model_that_draws_at_random_is_not_called_contrastive(caplog):
    collector = GradientCollector(Drawing(), projection=None)
    assert not collector.check({"inputs": torch.randn(4, 6), "labels": LABELS})
    assert "draws at random" in caplog.text


class Negatives(nn.Module):
    """Rows are each other's negatives."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, inputs, labels=None):
        z = self.layer(inputs)
        return {"loss": F.cross_entropy(z @ z.T, torch.arange(len(z)))}


def test_a_contrastive_loss_is_refused():
    with pytest.raises(BatchAxisError, match="the loss compares the rows of a batch"):
        GradientCollector(Negatives(), projection=None).check({"inputs": torch.randn(4, 6), "labels": LABELS})


# ------------------------------------------------------------------------- its batch
@pytest.mark.parametrize(("rows", "length"), itertools.product((2, 3, 4), (4, 5, 8, 12, 20, 30)))
def test_the_number_of_rows_shares_no_factor_with_an_axis_where_that_is_possible(rows, length):
    batch = {"input_ids": torch.arange(rows * length).reshape(rows, length), "labels": torch.arange(rows)}
    made = _uneven(batch)
    assert all(length % divisor or batch_rows(made) % divisor for divisor in range(2, 31))
    assert torch.equal(rows_of(made, slice(0, rows))["input_ids"], batch["input_ids"])


def test_it_reports_its_time_and_leaves_the_model_as_it_was():
    model, batch = bert(), {**token_batch(), "labels": LABELS}
    model.train()
    before = state_of(model)
    collector = GradientCollector(model)
    assert collector.check_seconds == 0.0
    assert collector.check(batch)
    assert collector.check_seconds > 0.0
    assert_same(before, state_of(model))


def test_a_row_can_be_compared_after_it_was_taken():
    model, batch = vit(), {"pixel_values": torch.randn(3, 1, 8, 8), "labels": torch.tensor([0, 1, 2])}
    collector = GradientCollector(model)
    rows, losses = collector.collect(batch)
    assert collector.compare(row(batch, 1), rows[1], losses[1]) == ""
    assert "are not those of the row alone" in collector.compare(row(batch, 1), rows[2], losses[1])
    assert "its loss is" in collector.compare(row(batch, 1), rows[1], losses[1] * 1.1)


def test_of_a_float64_model_a_thousandth_that_is_off_is_found(caplog):
    class Slightly(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, inputs):
            return self.layer(inputs) * (1.001 if len(inputs) > 1 else 1.0)

    batch = {"inputs": torch.randn(4, 6).double() + 1, "labels": LABELS}
    assert not GradientCollector(Slightly().double(), projection=None).check(batch)
    assert "layer.weight" in caplog.text or "losses differ" in caplog.text


class Beside(nn.Module):
    """Layers of which some are used without a call, beside one that no forward pass uses."""

    def __init__(self, used_without_call, unused):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.unused = nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(unused, unused)
        self.used_without_call = used_without_call

    def forward(self, inputs):
        for name in ("first", "second"):
            layer = getattr(self, name)
            inputs = F.linear(inputs, layer.weight) if name in self.used_without_call else layer(inputs)
        return inputs


@pytest.mark.parametrize("unused", [1, 40])
@pytest.mark.parametrize("hidden", [("first",), ("first", "second")])
def test_a_layer_that_nothing_uses_does_not_make_the_used_ones_the_smaller_part(unused, hidden):
    model, batch = Beside(hidden, unused), {"inputs": torch.randn(4, 6), "labels": LABELS}
    collector = GradientCollector(model, projection=None)
    collector.check(batch)
    assert collector.one_at_a_time and not collector.left_out
    assert collector.silent <= {"unused.weight"}  # in the first batch the others counted as zero
    rows, _ = collector.collect({key: value[:1] for key, value in batch.items()})
    for block in collector.blocks:
        assert bool(rows[:, block.columns].any()) == (not block.name.startswith("unused"))
