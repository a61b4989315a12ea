"""`target_modules="last"`: which blocks of which models, and that blocks below them cost no backward pass."""

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BartConfig,
    BartForConditionalGeneration,
    BeitConfig,
    BeitForSemanticSegmentation,
    CLIPConfig,
    CLIPModel,
    DetrConfig,
    DetrForObjectDetection,
    LlavaConfig,
    LlavaForConditionalGeneration,
    ResNetConfig,
    SwinConfig,
    SwinForImageClassification,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from sage_hf.gradients import GradientCollector
from sage_hf.gradients.layers.targets import resolve_targets

from ...cases import VIT, VOCABULARY, bert, gpt2, head, llama, lm_batch, mixtral, token_batch, vit
from ...reference import per_example_gradients, relative_error

SMALL = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 6, "num_attention_heads": 2}
IMAGES = {"image_size": 8, "patch_size": 4}


def last_of(model):
    return list(resolve_targets(model, "last"))


def places(model, prefix):
    """Numbers of the blocks under a prefix that "last" takes something of."""
    starts = [name.removeprefix(prefix + ".") for name in last_of(model) if name.startswith(prefix + ".")]
    return sorted({int(each.split(".")[0]) for each in starts})


def others(model, prefix):
    """What "last" takes besides, without the ending that all names have."""
    return [name.removesuffix(".weight") for name in last_of(model) if not name.startswith(prefix + ".")]


def t5(**changes):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 6, "num_heads": 2, "decoder_start_token_id": 0}
    return T5ForConditionalGeneration(T5Config(**{**SMALL, **sizes, **changes}))


def bart():
    sizes = {"d_model": 16, "encoder_layers": 6, "decoder_layers": 6}
    sizes |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    sizes |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 32)
    return sizes


def whisper():
    audio = {"num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 16, "decoder_start_token_id": 1}
    return WhisperForConditionalGeneration(WhisperConfig(**{**SMALL, **bart(), **audio}))


def detr(backbone):
    return DetrForObjectDetection(
        DetrConfig(**bart(), backbone=None, use_timm_backbone=False, backbone_config=backbone, num_queries=4)
    )


def llava():
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config={"model_type": "clip_vision_model", **TOWER, **IMAGES},
            text_config={"model_type": "llama", **SMALL, **TOWER},
            image_token_index=3,
        )
    )


def lora(model, **settings):
    return peft.get_peft_model(model, peft.LoraConfig(r=2, **settings))


def test_a_sixth_of_the_blocks_and_at_least_one():
    for layers, first in ((1, 0), (2, 1), (6, 5), (11, 10), (12, 10), (24, 20)):
        assert places(llama(num_hidden_layers=layers), "model.layers") == list(range(first, layers))


def test_of_a_block_the_weights_that_auto_takes():
    wanted = [name for name in resolve_targets(llama(), "auto") if ".layers.1." in name]
    assert last_of(llama()) == wanted
    assert places(gpt2(), "transformer.h") == [1]


def test_what_is_behind_the_blocks_but_for_a_vocabulary():
    assert others(bert(num_hidden_layers=6), "bert.encoder.layer") == ["bert.pooler.dense", "classifier"]
    assert places(bert(num_hidden_layers=6), "bert.encoder.layer") == [5]
    deep = ViTForImageClassification(ViTConfig(**{**VIT, "num_hidden_layers": 6}, num_labels=3))
    assert others(deep, "vit.layers") == ["classifier"]
    assert others(llama(num_hidden_layers=6), "model.layers") == []


def test_experts_are_of_their_block():
    found = last_of(mixtral(num_hidden_layers=6))
    assert found and all(".layers.5." in name for name in found)
    assert any(".experts." in name for name in found)


def test_stages_of_convolutions_are_blocks():
    resnet = head("resnet")[0]
    assert places(resnet, "resnet.encoder.stages") == [1]
    assert others(resnet, "resnet.encoder.stages") == ["classifier.1"]
    swin = SwinForImageClassification(SwinConfig(image_size=32, embed_dim=8, depths=[1, 2, 1], num_heads=[1, 2, 2]))
    assert places(swin, "swin.encoder.layers") == [2]


@pytest.mark.parametrize(
    ("model", "prefix"),
    [
        (lambda: t5(), "decoder.block"),
        (lambda: t5(num_decoder_layers=2), "decoder.block"),
        (lambda: BartForConditionalGeneration(BartConfig(**{**SMALL, **bart()})), "model.decoder.layers"),
        (whisper, "model.decoder.layers"),
    ],
    ids=["t5", "t5 with a short decoder", "bart", "whisper"],
)
def test_of_an_encoder_and_a_decoder_the_decoders_last(model, prefix):
    model = model()
    assert len(places(model, prefix)) == 1
    assert others(model, prefix) == []


def test_of_a_vision_language_model_the_language_models_last():
    model = llava()
    assert places(model, "model.language_model.layers") == [5]
    assert others(model, "model.language_model.layers") == []


def test_of_two_towers_one_and_the_projections():
    model = CLIPModel(CLIPConfig(text_config={**SMALL, **TOWER}, vision_config={**TOWER, **IMAGES}, projection_dim=8))
    assert places(model, "text_model.encoder.layers") == [5]
    assert others(model, "text_model.encoder.layers") == ["visual_projection", "text_projection"]


def test_a_small_list_in_a_head_is_no_body():
    model = detr(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"]))
    assert places(model, "model.decoder.layers") == [5]
    assert others(model, "model.decoder.layers") == [
        "class_labels_classifier",
        *(f"bbox_predictor.layers.{number}" for number in range(3)),
    ]


def test_a_large_list_in_a_head_is_behind_the_body_and_all_of_it_counts():
    config = BeitConfig(**{**TOWER, **IMAGES}, num_channels=1, out_indices=[1, 2, 3, 4], num_labels=2)
    model = BeitForSemanticSegmentation(config)
    assert places(model, "beit.layers") == [5]
    everything = [name for name in resolve_targets(model, "auto") if not name.startswith("beit.")]
    assert [name for name in last_of(model) if not name.startswith("beit.")] == everything


@pytest.mark.parametrize("settings", [{}, {"layers_to_transform": [1, 2]}])
def test_of_adapters_those_in_the_last_block_that_has_any(settings):
    model = lora(llama(num_hidden_layers=6), target_modules=["q_proj"], **settings)
    last = settings.get("layers_to_transform", [5])[-1]
    assert [name.split("layers.")[1] for name in last_of(model)] == [
        f"{last}.self_attn.q_proj.lora_{side}.default.weight" for side in "AB"
    ]


def test_a_classifier_that_is_trained_beside_adapters_is_behind_the_blocks():
    model = lora(bert(num_hidden_layers=6), target_modules=["query"], modules_to_save=["classifier"])
    assert {name.split(".default")[0].split("base_model.model.")[1] for name in last_of(model)} == {
        "bert.encoder.layer.5.attention.self.query.lora_A",
        "bert.encoder.layer.5.attention.self.query.lora_B",
        "classifier.modules_to_save",
    }


def test_frozen_blocks_do_not_count():
    model = llama(num_hidden_layers=6)
    model.model.layers[3:].requires_grad_(False)
    assert places(model, "model.layers") == [2]
    model = bert(num_hidden_layers=6)
    model.bert.requires_grad_(False)
    assert last_of(model) == ["classifier.weight"]


def test_a_perceptron_gives_its_last_layer_and_what_comes_behind():
    layers = [layer for size in range(3, 6) for layer in (nn.Linear(size, size + 1), nn.GELU())]
    assert last_of(nn.Sequential(*layers)) == ["4.weight"]
    model = nn.ModuleDict({"body": nn.Sequential(*layers), "head": nn.Linear(6, 2)})
    assert last_of(model) == ["body.4.weight", "head.weight"]


def test_a_body_with_something_behind_it_in_one_sequence_is_still_told_by_its_blocks():
    body = llama(num_hidden_layers=6).model
    model = nn.Sequential(body, nn.Linear(16, 3))
    assert places(model, "0.layers") == [5]
    assert others(model, "0.layers") == ["1"]


def test_without_a_list_of_blocks_the_last_layers_by_order_count():
    config = AlbertConfig(vocab_size=VOCABULARY, embedding_size=8, num_labels=3, **TOWER)
    assert last_of(AlbertForSequenceClassification(config)) == ["classifier.weight"]
    model = nn.Module()
    for number in range(12):
        model.add_module(f"layer{number}", nn.Linear(2, 2))
    assert last_of(model) == ["layer10.weight", "layer11.weight"]
    bare = nn.Module()
    bare.slope = nn.Parameter(torch.ones(2))
    assert last_of(bare) == ["slope"]


def test_a_weight_that_a_lower_block_has_too_is_left_out():
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(6)))
    model[5].weight = model[0].weight
    assert last_of(model) == ["0.weight"]  # nothing else is there
    model.add_module("head", nn.Linear(3, 2))
    assert last_of(model) == ["head.weight"]


@given(st.lists(st.booleans(), min_size=1, max_size=14))
def test_last_is_a_part_of_auto_and_never_empty(trained):
    model = nn.Module()
    model.stem = nn.Linear(2, 2)
    model.blocks = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)) for _ in trained)
    for block, trains in zip(model.blocks, trained, strict=True):
        block.requires_grad_(trains)
    auto, last = set(resolve_targets(model, "auto")), set(last_of(model))
    assert last and last <= auto
    assert sum(trained) < 2 or len(last) == 2 * max(1, sum(trained) // 6)


def deep(kind):
    """(model, batch, a block below the last one's) of a family, four blocks deep or more."""
    if kind == "llama":
        model = llama(num_hidden_layers=4)
        return model, lm_batch(), model.model.layers[2]
    if kind == "bert":
        model = bert(num_hidden_layers=4)
        return model, {**token_batch(), "labels": torch.tensor([0, 1, 2, 1])}, model.bert.encoder.layer[2]
    if kind == "mixtral":
        model = mixtral(num_hidden_layers=3)
        return model, lm_batch(), model.model.layers[1]
    if kind == "lora":
        model = lora(llama(num_hidden_layers=4), target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        return model, lm_batch(), model.get_base_model().model.layers[2]
    if kind == "resnet":
        model, batch = head("resnet")
        return model, batch, model.resnet.encoder.stages[0]
    if kind == "t5":
        model = t5(num_layers=2, num_decoder_layers=3)
        return model, {**token_batch(), "labels": torch.randint(3, VOCABULARY, (4, 6))}, model.decoder.block[1]
    assert kind == "vit"
    return vit(), head("image")[1], None


KINDS = ("llama", "bert", "mixtral", "lora", "resnet", "t5", "vit")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_gradients_of_each_row_alone(kind):
    model, batch, _ = deep(kind)
    collector = GradientCollector(model, target_modules="last", projection=None)
    assert collector.check(batch)
    rows = collector(batch)
    assert not collector.one_at_a_time
    wanted = per_example_gradients(collector.model, batch, [block.name for block in collector.blocks])
    assert wanted.norm(dim=1).min() > 0
    assert relative_error(rows, wanted) < 1e-4


class Watch:
    """Counts what a layer's forward pass keeps for a backward pass, and tells whether its output has a graph."""

    def __init__(self, layer):
        self.is_inside, self.kept, self.has_graph = False, 0, []
        layer.register_forward_pre_hook(self.enter)
        layer.register_forward_hook(self.leave)

    def enter(self, *_):
        self.is_inside = True

    def leave(self, layer, inputs, output):
        self.is_inside = False
        self.has_graph.append((output if isinstance(output, torch.Tensor) else output[0]).requires_grad)

    def keep(self, tensor):
        self.kept += self.is_inside
        return tensor

    def during(self, collector, batch):
        """(number of tensors kept, whether there was a graph) while a collector takes a batch."""
        self.kept, self.has_graph = 0, []
        with torch.autograd.graph.saved_tensors_hooks(self.keep, lambda tensor: tensor):
            collector(batch)
        assert self.has_graph
        return self.kept, any(self.has_graph)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "vit"])
def test_blocks_below_the_last_keep_no_graph(kind):
    model, batch, lower = deep(kind)
    watch = Watch(lower)
    assert watch.during(GradientCollector(model, target_modules="last"), batch) == (0, False)
    kept, has_graph = watch.during(GradientCollector(model, target_modules="auto"), batch)
    assert kept and has_graph
