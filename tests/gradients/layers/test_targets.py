import peft
import pytest
import torch
from torch import nn

from sage_hf.errors import TargetError
from sage_hf.gradients.layers.targets import resolve_targets

from ...cases import bert, gpt2, llama, mixtral, vit


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


def test_all_is_every_parameter():
    model = vit()
    assert names(model, "all") == [name for name, _ in model.named_parameters()]


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


def test_auto_takes_fused_experts_and_layers_with_a_forward_of_their_own():
    class Scaled(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs) * 2

    assert names(nn.Sequential(Scaled(2, 3), nn.BatchNorm1d(3)), "auto") == ["0.weight"]
    experts = [name for name in names(mixtral(), "auto") if ".experts." in name]
    assert len(experts) == 2 * 2
    assert set(experts) <= set(names(mixtral(), "all-linear"))


def test_of_a_model_without_layers_auto_takes_what_there_is():
    assert names(nn.Sequential(nn.BatchNorm1d(3)), "auto") == ["0.weight", "0.bias"]
    model = nn.Module()
    model.slope = nn.Parameter(torch.ones(2))
    assert names(model, "auto") == names(model, "all") == ["slope"]


def lora(**settings):
    return peft.get_peft_model(llama(), peft.LoraConfig(r=2, target_modules=["q_proj"], **settings))


@pytest.mark.parametrize("targets", ["auto", "all"])
def test_an_adapter_that_was_loaded_for_inference_is_targeted_like_one_in_training(tmp_path, targets):
    lora(modules_to_save=["lm_head"]).save_pretrained(tmp_path)
    frozen, trained = (
        peft.PeftModel.from_pretrained(llama(), tmp_path, is_trainable=is_trainable).get_base_model()
        for is_trainable in (False, True)
    )
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    found = names(frozen, targets)
    assert found == names(trained, targets)
    assert all("lora_" in name or "modules_to_save" in name for name in found)


def test_only_the_active_adapter_is_targeted(tmp_path):
    model = lora()
    model.add_adapter("second", peft.LoraConfig(r=2, target_modules=["k_proj"]))
    model.set_adapter("second")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert all(".second." in name for name in names(model.get_base_model(), "auto"))


def test_what_matches_nothing_is_an_error_that_names_the_modules():
    with pytest.raises(TargetError, match=r"'key_proj' matches no layer.*model\.embed_tokens \(Embedding\)"):
        names(llama(), ["q_proj", "key_proj"])
    with pytest.raises(TargetError, match="not a valid regular expression"):
        names(llama(), "*proj(")
    with pytest.raises(TargetError, match=r"targets no trainable weight.*the modules are 0 \(BatchNorm1d\)"):
        names(nn.Sequential(nn.BatchNorm1d(3)), "all-linear")
    with pytest.raises(TargetError, match="no parameters"):
        names(nn.ReLU(), "auto")


@pytest.mark.parametrize("targets", ["auto", "all", ["0"]])
def test_complex_weights_are_refused_by_name_and_not_left_out_in_silence(targets):
    model = nn.Sequential(nn.Linear(2, 3, dtype=torch.complex64), nn.Linear(3, 2))
    with pytest.raises(TargetError, match=r"'0\.weight'.*complex"):
        resolve_targets(model, targets)
    assert names(model, ["1"]) == ["1.weight", "1.bias"]
