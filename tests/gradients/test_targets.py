import pytest
from torch import nn

from sage_hf.errors import TargetError
from sage_hf.gradients.targets import resolve_targets, uncovered

from ..cases import bert, gpt2, llama, vit


def names(model, targets):
    return list(resolve_targets(model, targets))


def test_auto_takes_layers_and_the_class_head_without_embeddings_norms_biases_and_the_vocabulary():
    found = names(llama(), "auto")
    assert len(found) == 2 * 7
    assert all(name.endswith("_proj.weight") for name in found)
    assert "classifier.weight" in names(bert(), "auto")
    assert not any("embed" in name or "LayerNorm" in name or "bias" in name for name in names(bert(), "auto"))
    assert any("patch_embeddings.projection.weight" in name for name in names(vit(), "auto"))
    assert all(".c_" in name for name in names(gpt2(), "auto"))


def test_all_linear_leaves_out_convolutions():
    assert set(names(vit(), "auto")) - set(names(vit(), "all-linear")) == {
        "vit.embeddings.patch_embeddings.projection.weight"
    }


def test_head_is_what_lies_outside_the_body():
    assert names(bert(), "head") == ["classifier.weight", "classifier.bias"]
    assert names(llama(), "head") == ["lm_head.weight"]
    assert names(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)), "head") == ["1.weight", "1.bias"]


def test_all_is_every_parameter_with_a_rule_and_the_rest_is_named():
    model = vit()
    every = {name for name, _ in model.named_parameters()}
    assert set(names(model, "all")) == every - set(uncovered(model))
    assert uncovered(model) == ["vit.embeddings.cls_token", "vit.embeddings.position_embeddings"]


def test_a_list_matches_the_endings_of_module_names_and_a_string_the_whole_name():
    assert names(llama(), ["q_proj"]) == [f"model.layers.{i}.self_attn.q_proj.weight" for i in range(2)]
    assert names(llama(), ["0.self_attn.q_proj"]) == ["model.layers.0.self_attn.q_proj.weight"]
    assert names(llama(), r".*layers\.1\..*_proj") == [name for name in names(llama(), "auto") if ".1." in name]
    assert names(bert(), ["classifier.bias"]) == ["classifier.bias"]


def test_frozen_weights_are_left_out_unless_all_are_frozen():
    model = bert()
    model.bert.requires_grad_(False)
    assert names(model, "auto") == ["classifier.weight"]
    model.requires_grad_(False)
    assert len(names(model, "auto")) > 10


def test_a_layer_with_a_forward_of_its_own_has_no_rule_and_takes_what_is_tied_to_it_out():
    class Scaled(nn.Embedding):
        def forward(self, inputs):
            return super().forward(inputs) * 2

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.layer, self.head = Scaled(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False)
            self.head.weight = self.embed.weight

    assert names(Net(), "all") == ["layer.weight", "layer.bias"]
    assert uncovered(Net()) == ["embed.weight"]


def test_what_matches_nothing_is_an_error_that_names_the_modules():
    with pytest.raises(TargetError, match=r"'key_proj' matches no layer.*model\.embed_tokens \(Embedding\)"):
        names(llama(), ["q_proj", "key_proj"])
    with pytest.raises(TargetError, match="no regular expression"):
        names(llama(), "*proj(")
    with pytest.raises(TargetError, match=r"targets no trainable weight.*the modules are 0 \(BatchNorm1d\)"):
        names(nn.Sequential(nn.BatchNorm1d(3)), "auto")
    with pytest.raises(TargetError, match=r"No rule gives per-example gradients of \['0 \(BatchNorm1d\)'\]"):
        names(nn.Sequential(nn.BatchNorm1d(3)), ["0"])
    with pytest.raises(TargetError, match="no parameters"):
        names(nn.ReLU(), "auto")
