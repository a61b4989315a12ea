import copy
from collections import deque

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from transformers import BertConfig, LlavaConfig

from sage_hf import GradientCollector
from sage_hf.errors import GradientError
from sage_hf.gradients.model.state import as_scored, unchanged_config

from ...cases import llama, lm_batch

ROPE = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}


class Writer(nn.Module):
    """A model that notes things in itself in every forward pass."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("in_place", torch.arange(4.0))
        self.register_buffer("replaced", torch.arange(4.0))
        self.register_buffer("kept", None)
        self.table = torch.zeros(2)
        self.calls = 0
        self.seen = {"first": 1}
        self.order = deque([1, 2])
        self.names = {"one"}
        self.lengths = [4]
        self.train()

    def forward(self, inputs, labels):
        with torch.no_grad():
            self.in_place.mul_(2)
            self.replaced = self.replaced + 1
            self.kept = inputs.sum(0)
            self.table[0] = 5
        self.register_buffer("new", torch.ones(1))
        self.calls += 1
        self.last = inputs
        self.seen["second"] = 2
        self.order.append(3)
        self.names.add("two")
        self.lengths[0] = 9
        return {"loss": nn.functional.cross_entropy(self.layer(inputs), labels)}


def holdings(model):
    """All that a module holds, tensors by their content."""
    own = {**vars(model), **model._buffers}
    return {
        name: value.tolist() if isinstance(value, torch.Tensor) else copy.copy(value)
        for name, value in own.items()
        if not name.startswith("_")
    }


def test_what_a_forward_pass_writes_is_put_back():
    model = Writer()
    replaced, before = model.replaced, holdings(model)
    for _ in range(2):  # the second time from the kept copies
        with as_scored(model):
            model(torch.ones(2, 4), torch.tensor([0, 1]))
            assert holdings(model) != before
        assert holdings(model) == before
    assert model.replaced is replaced
    assert model.training


def test_it_is_put_back_after_an_exception():
    model = Writer()
    before = holdings(model)
    with pytest.raises(RuntimeError), as_scored(model):
        model(torch.ones(2, 5), torch.tensor([0, 1]))
    assert holdings(model) == before


def test_what_was_written_between_two_batches_stays():
    model = Writer()
    with as_scored(model):
        model(torch.ones(2, 4), torch.tensor([0, 1]))
    model(torch.ones(2, 4), torch.tensor([0, 1]))
    with as_scored(model):
        model(torch.ones(2, 4), torch.tensor([0, 1]))
    assert model.calls == 1
    assert model.in_place.tolist() == [0, 2, 4, 6]
    assert model.replaced.tolist() == [1, 2, 3, 4]


def test_a_buffer_that_is_given_other_storage_is_put_back():
    model = Writer()
    for content in (torch.zeros(4), torch.zeros(7)):
        with as_scored(model):
            model.in_place.data = content
        assert model.in_place.tolist() == [0, 1, 2, 3]


def test_a_written_buffer_too_large_to_copy_is_an_error():
    model = Writer()
    model.register_buffer("packed", torch.zeros(2**18 + 1, dtype=torch.int32))
    with as_scored(model):
        pass
    with pytest.raises(GradientError, match="too large to copy"), as_scored(model):
        model.packed.add_(1)


def test_dynamic_rope_is_as_before_scoring():
    model = llama(rope_parameters=ROPE, max_position_embeddings=4)
    rotary = model.model.rotary_emb
    frequencies, longest = rotary.inv_freq.clone(), rotary.max_seq_len_cached
    GradientCollector(model)(lm_batch(length=12))
    torch.testing.assert_close(rotary.inv_freq, frequencies, rtol=0, atol=0)
    assert rotary.max_seq_len_cached == longest
    model(**lm_batch(length=12))
    assert rotary.max_seq_len_cached == 12  # the forward does write


def test_configs_inside_the_config_are_put_back():
    model = nn.Linear(1, 1)
    model.config = LlavaConfig()
    inner = BertConfig()
    model.add_module("inner", nn.Linear(1, 1))
    model.inner.config = inner
    with unchanged_config(model):
        model.config.text_config.use_cache = False
        model.config.text_config.rope_parameters["factor"] = 8.0
        model.config.new = 1
        inner.problem_type = "regression"
    assert model.config.text_config.use_cache
    assert "factor" not in model.config.text_config.rope_parameters
    assert not hasattr(model.config, "new")
    assert inner.problem_type is None


def test_hooks_that_the_first_forward_pass_adds_are_gone_so_that_the_next_does_not_add_them_twice():
    model, batch = llama(), lm_batch()
    before = [len(module._forward_hooks) for module in model.modules()]
    with as_scored(model):
        states = len(model(**batch, output_hidden_states=True).hidden_states)
        assert [len(module._forward_hooks) for module in model.modules()] != before
    assert [len(module._forward_hooks) for module in model.modules()] == before
    with as_scored(model):
        assert len(model(**batch, output_hidden_states=True).hidden_states) == states
    assert len(model(**batch, output_hidden_states=True).hidden_states) == states


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_an_embedding_that_shortens_its_vectors_while_they_are_looked_up_has_them_back(kind):
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = kind(9, 4, max_norm=0.1), nn.Linear(4, 3)

        def forward(self, ids):
            vectors = self.words(ids)
            return self.head(vectors if vectors.ndim == 2 else vectors.sum(1))

    model = Words()
    before = model.words.weight.detach().clone()
    batch = {"ids": torch.randint(0, 9, (4, 5)), "labels": torch.tensor([0, 1, 2, 0])}
    for targets in ("auto", "all"):
        collector = GradientCollector(model, target_modules=targets, projection=None)
        assert collector.check(batch)
        collector(batch)
        assert torch.equal(model.words.weight, before)


class InPlace(nn.Linear):
    def forward(self, x):
        with torch.no_grad():
            self.weight.copy_(torch.renorm(self.weight, 2, 0, 0.2))
        return super().forward(x)


class ThroughData(nn.Linear):
    def forward(self, x):
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.2)
        return super().forward(x)


@pytest.mark.parametrize("kind", [InPlace, ThroughData])
def test_a_layer_that_keeps_its_weights_short_has_those_that_it_had(kind):
    torch.manual_seed(0)
    layer = kind(4, 3)
    model = nn.Sequential(nn.Linear(4, 4), layer)
    model.forward = lambda inputs: model[1](model[0](inputs))
    before, parameter = layer.weight.detach().clone(), layer.weight
    batch = {"inputs": torch.randn(4, 4), "labels": torch.tensor([0, 1, 2, 0])}
    collector = GradientCollector(model, target_modules="all", projection=None)
    assert collector.check(batch)
    collector(batch)
    assert layer.weight is parameter and torch.equal(layer.weight, before)


def test_a_spectral_norm_in_training_goes_no_step_on_when_gradients_are_laid_out():
    model = nn.Sequential(parametrizations.spectral_norm(nn.Conv1d(2, 3, 1)), nn.Linear(3, 2)).train()
    before = copy.deepcopy(dict(model.named_buffers()))
    collector = GradientCollector(model, target_modules="all")
    collector.exact()
    assert before and all(torch.equal(each, before[name]) for name, each in model.named_buffers())
    assert all(module.training for module in model.modules())
