"""Models of images and text together."""

from functools import partial

import torch
import transformers

from . import batches
from .batches import CLASSES, LENGTH, ROWS
from .family import VOCABULARY, Family, tiny

IMAGE = VOCABULARY - 1  # the token that stands for a patch of an image
EYES = {"image_size": 8, "patch_size": 4}


def _read(side="right", patches=4):
    """Tokens with the places of an image's patches in front, and labels on the text alone."""
    batch = batches.causal()
    front = torch.full((ROWS, patches), IMAGE)
    ids = batch["input_ids"].masked_fill(batch["input_ids"] == IMAGE, 5)
    labels = batch["labels"].masked_fill(batch["labels"] == IMAGE, 5)
    joined = {
        "input_ids": torch.cat([front, ids], 1),
        "attention_mask": torch.cat([torch.ones_like(front), batch["attention_mask"]], 1),
        "labels": torch.cat([torch.full_like(front, -100), labels], 1),
    }
    if side == "left":
        turn = [torch.cat([torch.nonzero(m == 0)[:, 0], torch.nonzero(m)[:, 0]]) for m in joined["attention_mask"]]
        joined = {
            key: torch.stack([row[order] for row, order in zip(value, turn, strict=True)])
            for key, value in joined.items()
        }
    return joined


def captioned(patches=4, size=8):
    return lambda side="right": {**_read(side, patches), "pixel_values": batches.pixels(size)}


def typed(side="right"):
    batch = captioned()(side)
    return {**batch, "token_type_ids": (batch["labels"] != -100).long()}


def beside(side="right"):
    return {**batches.causal(side), "pixel_values": batches.pixels(8)}


def masked_beside(side="right"):
    return {**batches.masked(side), "pixel_values": batches.pixels(8)}


def answered(side="right"):
    return {
        **batches.tokens(side),
        "pixel_values": batches.pixels(8),
        "labels": batches.seq2seq()["labels"].clamp(min=0),
    }


def graded(side="right"):
    return {**batches.tokens(side), "pixel_values": batches.pixels(8), "labels": torch.rand(ROWS, CLASSES)}


def drawn(side="right"):
    return {"pixel_values": batches.pixels(8), "labels": batches.seq2seq()["labels"]}


def several_images(side="right"):
    """Idefics3 kinds: [B, images, C, H, W]."""
    return {
        **_read(side, 4),
        "pixel_values": torch.randn(ROWS, 1, 3, 16, 16),
        "pixel_attention_mask": torch.ones(ROWS, 1, 16, 16, dtype=torch.long),
    }


def contrasted(side="right"):
    return {**batches.tokens(side), "pixel_values": batches.pixels(8), "return_loss": True}


def flat_patches(side="right", patch=3 * 2 * 4 * 4):
    """Qwen2-VL kinds: patches of all images one after the other, as many a row as its grid says; four make a token."""
    grids = torch.tensor([[1, 2, 2], [1, 2, 4], [1, 2, 2], [1, 4, 2]])
    counts = (grids.prod(1) // 4).tolist()
    batch = batches.causal(side)
    ids, labels = batch["input_ids"].clamp(max=IMAGE - 3), batch["labels"].clamp(max=IMAGE - 3)
    for row, count in enumerate(counts):
        start = int(batch["attention_mask"][row].argmax())
        ids[row, start : start + count] = IMAGE
        labels[row, start : start + count] = -100
    return {
        **batch,
        "input_ids": ids,
        "labels": labels,
        "mm_token_type_ids": (ids == IMAGE).long(),
        "pixel_values": torch.randn(int(grids.prod(1).sum()), patch),
        "image_grid_thw": grids,
    }


def cut_flat_patches(batch, row):
    counts = batch["image_grid_thw"].prod(1).tolist()
    start = sum(counts[:row])
    one = {key: value[row : row + 1] for key, value in batch.items()}
    return {**one, "pixel_values": batch["pixel_values"][start : start + counts[row]]}


def boxes(side="right"):
    corner = torch.randint(0, 16, (ROWS, LENGTH, 2))
    return {**batches.tokens(side), "bbox": torch.cat([corner, corner + torch.randint(1, 8, (ROWS, LENGTH, 2))], 2)}


def laid_out(labels, image=False):
    def batch(side="right"):
        more = {"pixel_values": batches.pixels(8)} if image else {}
        return {**boxes(side), **more, "labels": labels(side)["labels"]}

    return batch


def regions(side="right"):
    return {
        **batches.tokens(side),
        "visual_feats": torch.randn(ROWS, 3, 8),
        "visual_pos": torch.rand(ROWS, 3, 4),
        "labels": batches.classes(),
    }


def seen(side="right"):
    return {
        **batches.tokens(side),
        "visual_embeds": torch.randn(ROWS, 3, 8),
        "visual_attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]]),
        "labels": torch.softmax(torch.randn(ROWS, CLASSES), 1),
    }


def _two(name, text, vision, text_more=None, vision_more=None, **more):
    """A config of a text part and a vision part."""
    kind = getattr(transformers, name)
    return kind(
        text_config=tiny(text, **(text_more or {})),
        vision_config=tiny(vision, **{**EYES, **(vision_more or {})}),
        **more,
    )


def _llava(name, **more):
    return _two(name, "LlamaConfig", "CLIPVisionConfig", None, {"projection_dim": 8}, image_token_index=IMAGE, **more)


def _paligemma():
    return _two(
        "PaliGemmaConfig",
        "GemmaConfig",
        "SiglipVisionConfig",
        image_token_index=IMAGE,
        projection_dim=16,
        hidden_size=16,
    )


def _gemma3():
    return _two(
        "Gemma3Config",
        "Gemma3TextConfig",
        "SiglipVisionConfig",
        image_token_index=IMAGE,
        mm_tokens_per_image=4,
        boi_token_index=3,
        eoi_token_index=4,
    )


def _idefics3(name):
    vision = {"image_size": 16, "patch_size": 4}
    return _two(
        f"{name}Config", "LlamaConfig", f"{name}VisionConfig", None, vision, image_token_id=IMAGE, scale_factor=2
    )


def _idefics2():
    from transformers.models.idefics2.configuration_idefics2 import Idefics2PerceiverConfig

    perceiver = Idefics2PerceiverConfig(
        hidden_size=16,
        resampler_n_latents=4,
        resampler_depth=1,
        resampler_n_heads=2,
        resampler_head_dim=8,
        num_key_value_heads=1,
    )
    vision = {"image_size": 16, "patch_size": 4}
    return _two(
        "Idefics2Config",
        "MistralConfig",
        "Idefics2VisionConfig",
        None,
        vision,
        perceiver_config=perceiver,
        image_token_id=IMAGE,
    )


def _internvl():
    vision = {"image_size": [16, 16], "patch_size": [4, 4]}
    return _two(
        "InternVLConfig", "Qwen2Config", "InternVLVisionConfig", None, vision, image_token_id=IMAGE, image_seq_length=4
    )


def _qwen_vl(kind):
    text = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}
    vision = {
        "2": {"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2},
        "2_5_": {
            "depth": 2,
            "hidden_size": 16,
            "out_hidden_size": 16,
            "num_heads": 2,
            "fullatt_block_indexes": [1],
            "window_size": 8,
        },
        "3": {
            "depth": 2,
            "hidden_size": 16,
            "out_hidden_size": 16,
            "num_heads": 2,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 16,
        },
    }[kind]
    name = f"Qwen{kind}VL"
    return getattr(transformers, f"{name}Config")(
        text_config=tiny(f"{name}TextConfig", **text).to_dict(),
        vision_config=tiny(
            f"{name}VisionConfig", patch_size=4, temporal_patch_size=2, spatial_merge_size=2, **vision
        ).to_dict(),
        image_token_id=IMAGE,
        video_token_id=IMAGE - 1,
        vision_start_token_id=IMAGE - 2,
        vision_end_token_id=3,
    )


def _blip():
    text = {"encoder_hidden_size": 16, "projection_dim": 8, "sep_token_id": 3}
    return _two(
        "BlipConfig",
        "BlipTextConfig",
        "BlipVisionConfig",
        text,
        {"projection_dim": 8},
        projection_dim=8,
        image_text_hidden_size=8,
    )


def _blip2():
    return transformers.Blip2Config(
        vision_config=tiny("Blip2VisionConfig", **EYES).to_dict(),
        qformer_config=tiny("Blip2QFormerConfig", encoder_hidden_size=16).to_dict(),
        text_config=tiny("OPTConfig", word_embed_proj_dim=16).to_dict(),
        num_query_tokens=4,
        image_token_index=IMAGE,
        image_text_hidden_size=8,
    )


def _git():
    return tiny("GitConfig", vision_config=tiny("GitVisionConfig", **EYES).to_dict())


def _florence2():
    eyes = {
        "depths": [1, 1],
        "patch_size": [7, 3],
        "patch_stride": [4, 2],
        "patch_padding": [3, 1],
        "patch_prenorm": [False, True],
        "embed_dim": [8, 16],
        "num_heads": [1, 2],
        "num_groups": [1, 2],
        "window_size": 2,
        "projection_dim": 16,
    }
    return transformers.Florence2Config(
        text_config=tiny("BartConfig").to_dict(),
        vision_config=tiny("Florence2VisionConfig", **eyes).to_dict(),
        image_token_id=IMAGE,
    )


def florence(side="right"):
    batch = _read(side, 5)
    return {key: batch[key] for key in ("input_ids", "attention_mask")} | {
        "pixel_values": batches.pixels(16),
        "labels": batches.seq2seq()["labels"],
    }


def _vision_encoder_decoder():
    decoder = tiny("GPT2Config", is_decoder=True, add_cross_attention=True)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(tiny("ViTConfig", **EYES), decoder)
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    return config


def _encoder_decoder():
    decoder = tiny("BertConfig", is_decoder=True, add_cross_attention=True)
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(tiny("BertConfig"), decoder)
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    return config


def families():
    clip = partial(
        _two,
        "CLIPConfig",
        "CLIPTextConfig",
        "CLIPVisionConfig",
        {"projection_dim": 8},
        {"projection_dim": 8},
        projection_dim=8,
    )
    layout = {"max_2d_position_embeddings": 32, "num_labels": CLASSES}
    layout3 = {
        **layout,
        "coordinate_size": 3,
        "shape_size": 2,
        "input_size": 8,
        "patch_size": 4,
        "rel_pos_bins": 8,
        "rel_2d_pos_bins": 8,
    }
    vilt = {**EYES, "num_labels": CLASSES, "max_image_length": 8}

    def see(model, config, batch, **more):
        return Family(model, "vision-language", config, batch, **more)

    return [
        see("LlavaForConditionalGeneration", partial(_llava, "LlavaConfig"), captioned()),
        see(
            "VipLlavaForConditionalGeneration",
            partial(_llava, "VipLlavaConfig", vision_feature_layers=[-1, -2]),
            captioned(),
        ),
        see("PaliGemmaForConditionalGeneration", _paligemma, typed),
        see("Gemma3ForConditionalGeneration", _gemma3, typed),
        see("Idefics2ForConditionalGeneration", _idefics2, several_images),
        see("Idefics3ForConditionalGeneration", partial(_idefics3, "Idefics3"), several_images),
        see("SmolVLMForConditionalGeneration", partial(_idefics3, "SmolVLM"), several_images),
        see("InternVLForConditionalGeneration", _internvl, captioned(4, 16)),
        see("Qwen2VLForConditionalGeneration", partial(_qwen_vl, "2"), flat_patches, cut=cut_flat_patches),
        see("Qwen2_5_VLForConditionalGeneration", partial(_qwen_vl, "2_5_"), flat_patches, cut=cut_flat_patches),
        see("Qwen3VLForConditionalGeneration", partial(_qwen_vl, "3"), flat_patches, cut=cut_flat_patches),
        see("BlipForConditionalGeneration", _blip, beside),
        see("BlipForQuestionAnswering", _blip, answered),
        see("Blip2ForConditionalGeneration", _blip2, captioned()),
        see("GitForCausalLM", _git, beside),
        see("Florence2ForConditionalGeneration", _florence2, florence),
        see("VisionEncoderDecoderModel", _vision_encoder_decoder, drawn),
        Family("EncoderDecoderModel", "seq2seq", _encoder_decoder, batches.seq2seq, is_tokens=True),
        see("ViltForQuestionAnswering", partial(tiny, "ViltConfig", **vilt), graded),
        see("ViltForMaskedLM", partial(tiny, "ViltConfig", **vilt), masked_beside),
        see(
            "LxmertForQuestionAnswering",
            partial(
                tiny, "LxmertConfig", l_layers=1, x_layers=1, r_layers=1, visual_feat_dim=8, num_qa_labels=CLASSES
            ),
            regions,
        ),
        see(
            "VisualBertForQuestionAnswering",
            partial(tiny, "VisualBertConfig", visual_embedding_dim=8, num_labels=CLASSES),
            seen,
        ),
        see("LayoutLMForTokenClassification", partial(tiny, "LayoutLMConfig", **layout), laid_out(batches.token)),
        see(
            "LayoutLMForSequenceClassification", partial(tiny, "LayoutLMConfig", **layout), laid_out(batches.sequence)
        ),
        see(
            "LayoutLMv3ForTokenClassification",
            partial(tiny, "LayoutLMv3Config", **layout3),
            laid_out(batches.token, image=True),
        ),
        see(
            "LiltForTokenClassification",
            partial(tiny, "LiltConfig", channel_shrink_ratio=2, hidden_size=24, **layout),
            laid_out(batches.token),
        ),
        see("CLIPModel", clip, contrasted),
    ]
