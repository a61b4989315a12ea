import copy
import random

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from sage_hf import GradientCollector
from sage_hf.errors import BatchAxisError, GradientError, LabelError

from ..cases import HEADS, bert, head, llama, lm_batch, token_batch, vit
from ..reference import per_example_gradients, relative_error, row


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("targets", ["auto", "all"])
def test_rows_of_every_head_equal_one_row_at_a_time(kind, targets):
    model, batch = head(kind)
    collector = GradientCollector(model, target_modules=targets, projection=None)
    rows = collector(batch)
    assert relative_error(rows, per_example_gradients(model, batch, [b.name for b in collector.blocks])) < 1e-4
    assert collector.check(batch) is not collector.one_at_a_time


def test_only_the_heads_that_must_are_taken_one_row_at_a_time():
    for kind in HEADS:
        model, batch = head(kind)
        collector = GradientCollector(model)
        assert collector.check(batch), kind


def test_rows_sum_to_the_gradient_of_the_summed_losses():
    model, batch = head("sequence")
    collector = GradientCollector(model, target_modules="all", projection=None)
    rows, losses = collector.collect(batch)
    model.eval()
    model(**batch).loss.backward()
    whole = torch.cat([dict(model.named_parameters())[block.name].grad.flatten() for block in collector.blocks])
    assert torch.allclose(rows.mean(0), whole, atol=1e-6)
    assert losses.mean().item() == pytest.approx(model(**batch).loss.item(), abs=1e-6)


def test_padding_and_batch_size_do_not_change_a_row():
    model, batch = llama(), lm_batch()
    collector = GradientCollector(model)
    wide = {
        key: nn.functional.pad(value, (0, 6), value=-100 if key == "labels" else 0) for key, value in batch.items()
    }
    rows = collector(batch)
    assert relative_error(collector(wide), rows) < 1e-5
    alone = torch.cat([collector(row(batch, index)) for index in range(4)])
    assert relative_error(alone, rows) < 1e-5


def test_a_row_with_all_labels_masked_is_exactly_zero():
    batch = lm_batch()
    batch["labels"][2] = -100
    rows, losses = GradientCollector(llama()).collect(batch)
    assert not rows[2].any()
    assert losses[2] == 0
    assert rows[[0, 1, 3]].any(1).all()


def test_a_nan_stays_in_its_own_row():
    model, batch = vit(), {"pixel_values": torch.randn(4, 1, 8, 8), "labels": torch.tensor([0, 1, 2, 1])}
    clean = GradientCollector(model)(batch)
    batch["pixel_values"][1] = float("nan")
    rows = GradientCollector(model)(batch)
    assert rows.isnan().any(1).tolist() == [False, True, False, False]
    assert torch.allclose(rows[[0, 2, 3]], clean[[0, 2, 3]])


def test_sum_and_mean_over_tokens_differ_by_the_number_of_tokens():
    model, batch = llama(), lm_batch()
    mean, mean_loss = GradientCollector(model).collect(batch)
    total, total_loss = GradientCollector(model, loss_reduction="sum").collect(batch)
    counts = (batch["labels"][:, 1:] != -100).sum(1, keepdim=True)
    assert torch.allclose(total, mean * counts, atol=1e-5)
    assert torch.allclose(total_loss, mean_loss * counts[:, 0], rtol=1e-5)


# ------------------------------------------------------------- nothing is disturbed
def state_of(model):
    return {
        "training": [module.training for module in model.modules()],
        "trainable": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "hooks": [len(module._forward_hooks) for module in model.modules()],
        "weights": copy.deepcopy(model.state_dict()),
        "config": model.config.to_dict(),
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].copy(),
        "python": random.getstate(),
    }


def assert_same(before, after):
    assert before["training"] == after["training"]
    assert before["trainable"] == after["trainable"]
    assert before["hooks"] == after["hooks"]
    assert before["config"] == after["config"]
    assert before["python"] == after["python"]
    assert (before["numpy"] == after["numpy"]).all()
    assert torch.equal(before["torch"], after["torch"])
    for one, other in zip(before["gradients"], after["gradients"], strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
    assert all(torch.equal(value, after["weights"][name]) for name, value in before["weights"].items())


def disturbed_model():
    """A model in a state that a careless visitor would not put back."""
    model, batch = bert(), {**token_batch(), "labels": torch.tensor([0, 1, 2, 1])}
    model.train()
    model.bert.encoder.eval()
    model.bert.pooler.dense.bias.requires_grad_(False)
    model(**batch).loss.backward()
    model.register_forward_hook(lambda module, args, output: None)
    return model, batch


@pytest.mark.parametrize("grad_enabled", [True, False])
def test_the_model_comes_back_as_it_was(grad_enabled):
    model, batch = disturbed_model()
    before = state_of(model)
    with torch.set_grad_enabled(grad_enabled):
        GradientCollector(model)(batch)
    assert_same(before, state_of(model))


def test_the_model_comes_back_as_it_was_after_an_exception():
    model, batch = disturbed_model()
    before = state_of(model)
    collector = GradientCollector(model)
    for column, added in (("input_ids", 10_000), ("labels", 10)):
        with pytest.raises(GradientError, match="fails on one row in eval mode") as caught:
            collector({**batch, column: batch[column] + added})
        assert isinstance(caught.value.__cause__, IndexError)
    assert_same(before, state_of(model))


def test_dropout_is_off_while_rows_are_taken():
    model, batch = disturbed_model()
    collector = GradientCollector(model.train())
    assert torch.equal(collector(batch), collector(batch))


# ------------------------------------------------------------- wrapped and unusual models
def test_of_a_lora_model_only_the_adapters_are_targeted():
    model = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    collector = GradientCollector(model, projection=None)
    trainable = [name for name, p in model.get_base_model().named_parameters() if p.requires_grad]
    assert [block.name for block in collector.blocks] == trainable
    batch = lm_batch()
    wanted = per_example_gradients(model.get_base_model(), batch, trainable)
    assert relative_error(collector(batch), wanted) < 1e-4


def test_a_compiled_model_gives_the_same_rows_before_and_after_its_first_call():
    model, batch = llama(), lm_batch()
    wanted = GradientCollector(model)(batch)
    compiled = torch.compile(model, backend="eager")
    compiled(**batch)
    assert torch.allclose(GradientCollector(compiled)(batch), wanted)
    model.compile(backend="eager")
    model(**batch)
    assert torch.allclose(GradientCollector(model)(batch), wanted)
    assert model._compiled_call_impl is not None


def test_gradient_checkpointing_changes_nothing():
    model, batch = llama(), lm_batch()
    wanted = GradientCollector(model)(batch)
    model.gradient_checkpointing_enable()
    model.train()
    assert torch.allclose(GradientCollector(model)(batch), wanted)


def test_a_bfloat16_model_gives_float32_rows_close_to_the_truth():
    model, batch = llama(), lm_batch()
    wanted = GradientCollector(model)(batch)
    rows = GradientCollector(model.to(torch.bfloat16))(batch)
    assert rows.dtype is torch.float32
    assert relative_error(rows, wanted) < 0.05


class InBatchNegatives(nn.Module):
    """A loss over the whole batch that no row has of its own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, inputs, labels):
        z = self.layer(inputs)
        return {"loss": (z @ z.T).logsumexp(1).mean()}


def test_a_loss_that_cannot_be_told_apart_is_taken_one_row_at_a_time_and_said_once(caplog):
    model = InBatchNegatives()
    batch = {"inputs": torch.randn(4, 4), "labels": torch.zeros(4)}
    collector = GradientCollector(model, projection=None, target_modules="all")
    rows = collector(batch)
    collector(batch)
    assert collector.one_at_a_time
    assert len([record for record in caplog.records if "one at a time" in record.message]) == 1
    alone = torch.cat([collector(row(batch, index)) for index in range(4)])
    assert torch.allclose(rows, alone)


class BatchStatistics(nn.Module):
    """Rows see each other through the mean of the batch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, inputs):
        return self.layer(inputs - inputs.mean(0, keepdim=True) * (len(inputs) > 1))


def test_the_check_finds_rows_that_see_each_other_and_names_the_layer(caplog):
    model = BatchStatistics()
    batch = {"inputs": torch.randn(6, 4) + 1, "labels": torch.tensor([0, 1, 2, 0, 1, 2])}
    collector = GradientCollector(model, projection=None, target_modules="all")
    assert not collector.check(batch)
    assert "layer does not see the rows in the order of the batch, or sees other rows with them" in caplog.text
    alone = torch.cat([collector(row(batch, index)) for index in range(6)])
    assert torch.allclose(collector(batch), alone)


class Borrowed(nn.Module):
    """Calls a layer, and uses its weight a second time behind its back."""

    def __init__(self):
        super().__init__()
        self.odd = nn.Linear(4, 3)

    def forward(self, inputs):
        return self.odd(inputs) + nn.functional.linear(inputs * 2, self.odd.weight)


def test_a_weight_that_is_used_behind_its_layers_back_is_taken_by_autograd_of_rows_alone(caplog):
    batch = {"inputs": torch.randn(6, 4) + 1, "labels": torch.tensor([0, 1, 2, 0, 1, 2])}
    collector = GradientCollector(Borrowed(), projection=None)
    assert not collector.check(batch)
    assert "odd.weight" in caplog.text
    wanted = per_example_gradients(collector.model, batch, ["odd.weight"])
    assert torch.allclose(collector(batch), wanted, atol=1e-6)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("projection", ["auto", 3])
def test_projected_rows_of_every_head_pass_the_check(kind, projection):
    model, batch = head(kind)
    before = state_of(model)
    assert GradientCollector(model, projection=projection).check(batch)
    assert_same(before, state_of(model))


def test_a_user_hook_that_changes_an_output_is_part_of_the_model():
    model, batch = head("sequence")
    model.classifier.register_forward_hook(lambda module, args, output: output * 3)
    collector = GradientCollector(model)
    assert collector.check(batch)
    wanted = per_example_gradients(model, batch, ["classifier.weight"])
    rows = GradientCollector(model, projection=None, target_modules=["classifier.weight"])(batch)
    assert relative_error(rows, wanted) < 1e-4


def test_tensors_of_inference_mode_can_be_scored():
    model = llama()
    with torch.inference_mode():
        batch = lm_batch()
        rows = GradientCollector(model)(batch)
    assert torch.equal(rows, GradientCollector(model)({key: value.clone() for key, value in batch.items()}))


class Changed(nn.Module):
    """Changes a layer's input in place after the layer has read it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, inputs):
        hidden = self.first(inputs) * 1.0
        out = self.second(hidden.clone() if self.training else hidden.detach())
        hidden.detach().mul_(2.0)
        return out + self.first(inputs)[:, :3]


def test_an_input_changed_in_place_is_an_error_not_a_wrong_row():
    batch = {"inputs": torch.randn(3, 4), "labels": torch.tensor([0, 1, 2])}
    with pytest.raises(GradientError, match="changed in place"):
        GradientCollector(Changed(), projection=None, target_modules=["second"])(batch)


def test_an_activation_changed_in_place_after_the_first_target_still_works():
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(1, 2, 3))
    model.add_module("relu", nn.ReLU(inplace=True))
    model.add_module("flat", nn.Flatten())

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = model

        def forward(self, inputs):
            return self.body(inputs)

    net, batch = Net(), {"inputs": torch.randn(3, 1, 5, 5), "labels": torch.tensor([0, 1, 2])}
    collector = GradientCollector(net, projection=None, target_modules="all")
    wanted = per_example_gradients(net, batch, [block.name for block in collector.blocks])
    assert relative_error(collector(batch), wanted) < 1e-5


# --------------------------------------------------------------------------- bad input
def test_a_batch_without_labels_says_so():
    with pytest.raises(LabelError, match="no labels"):
        GradientCollector(bert())(token_batch())


def test_a_packed_batch_names_the_options():
    batch = {**lm_batch(), "cu_seq_lens_q": torch.tensor([0, 4])}
    with pytest.raises(BatchAxisError, match="padding_free=False and packing=False"):
        GradientCollector(llama())(batch)


def test_tensors_without_a_common_first_axis_are_refused():
    with pytest.raises(BatchAxisError, match="do not share a first axis"):
        GradientCollector(llama())({**lm_batch(), "labels": torch.zeros(3, 9, dtype=torch.long)})


class HalfIdle(nn.Module):
    """Has a layer that its forward never calls."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, inputs):
        return self.used(inputs)


def test_targets_that_take_no_part_in_the_loss_are_an_error():
    batch = {"inputs": torch.randn(3, 4), "labels": torch.tensor([0, 1, 2])}
    with pytest.raises(GradientError, match="No targeted layer takes part in the loss"):
        GradientCollector(HalfIdle(), target_modules=["idle"])(batch)


def test_a_targeted_layer_that_is_not_called_counts_as_zero_and_is_named(caplog):
    batch = {"inputs": torch.randn(3, 4), "labels": torch.tensor([0, 1, 2])}
    rows = GradientCollector(HalfIdle(), projection=None)(batch)
    assert rows.shape == (3, 24)
    assert not rows[:, 12:].any()
    assert "idle.weight" in caplog.text


def test_a_custom_loss_is_used_and_must_be_one_number_a_row():
    def smoothed(outputs, batch):
        return nn.functional.cross_entropy(outputs.logits, batch["labels"], reduction="none", label_smoothing=0.2)

    model, batch = head("sequence")
    model.eval()
    collector = GradientCollector(model, loss_function=smoothed)
    rows, losses = collector.collect(batch)
    assert torch.allclose(losses, smoothed(model(**batch), batch), atol=1e-6)
    assert not torch.allclose(rows, GradientCollector(model)(batch))
    with pytest.raises(LabelError, match="one loss a row"):
        GradientCollector(model, loss_function=lambda outputs, batch: outputs.logits.sum())(batch)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rows_from_a_gpu_equal_those_from_the_cpu():
    model, batch = llama(), lm_batch()
    wanted = GradientCollector(model)(batch)
    rows = GradientCollector(model.cuda())(batch)
    assert rows.device.type == "cuda"
    assert relative_error(rows.cpu(), wanted) < 1e-3
