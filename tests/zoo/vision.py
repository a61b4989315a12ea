"""Models of images and videos: classification and masked reconstruction."""

from functools import partial

import torch
import transformers

from . import batches
from .batches import CLASSES, ROWS
from .family import Family, config_of, tiny

PATCHES = {"image_size": 8, "patch_size": 4}
FOUR = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]}
SWIN = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "num_layers": 4,
    "window_size": 2,
}
PYRAMID = {**FOUR, "num_attention_heads": [1, 1, 2, 2]}

# Model class: (size of the images, what the config needs).
IMAGE = {
    "ViTForImageClassification": (8, PATCHES),
    "DeiTForImageClassification": (8, PATCHES),
    "SwinForImageClassification": (32, SWIN),
    "Swinv2ForImageClassification": (32, SWIN),
    "ConvNextForImageClassification": (32, FOUR),
    "ConvNextV2ForImageClassification": (32, FOUR),
    "ResNetForImageClassification": (32, {**FOUR, "embedding_size": 8}),
    "BeitForImageClassification": (
        8,
        {**PATCHES, "use_relative_position_bias": True, "use_absolute_position_embeddings": True},
    ),
    "Data2VecVisionForImageClassification": (8, {**PATCHES, "use_shared_relative_position_bias": True}),
    "Dinov2ForImageClassification": (8, PATCHES),
    "Dinov2WithRegistersForImageClassification": (8, PATCHES),
    "IJepaForImageClassification": (8, PATCHES),
    "ViTMSNForImageClassification": (8, PATCHES),
    "MobileNetV1ForImageClassification": (32, {"depth_multiplier": 0.25}),
    "MobileNetV2ForImageClassification": (32, {"depth_multiplier": 0.25}),
    "EfficientNetForImageClassification": (
        32,
        {
            "width_coefficient": 0.25,
            "depth_coefficient": 0.5,
            "hidden_dim": 320,
            "in_channels": [16, 16],
            "out_channels": [16, 16],
            "kernel_sizes": [3, 5],
            "strides": [1, 2],
            "num_block_repeats": [1, 2],
            "expand_ratios": [1, 2],
        },
    ),
    "LevitForImageClassification": (
        32,
        {
            "image_size": 32,
            "patch_size": 16,
            "hidden_sizes": [16, 16, 16],
            "num_attention_heads": [1, 2, 2],
            "depths": [1, 1, 1],
            "key_dim": [4, 4, 4],
        },
    ),
    "BitForImageClassification": (32, {**FOUR, "embedding_size": 8, "num_groups": 2}),
    "SegformerForImageClassification": (32, PYRAMID),
    "MobileViTForImageClassification": (
        32,
        {
            "image_size": 32,
            "hidden_sizes": [8, 8, 8],
            "neck_hidden_sizes": [4, 8, 8, 8, 8, 8, 8],
            "num_attention_heads": 2,
        },
    ),
    "MobileViTV2ForImageClassification": (64, {"image_size": 64, "width_multiplier": 0.25}),
    "PoolFormerForImageClassification": (32, FOUR),
    "PvtForImageClassification": (32, {**PYRAMID, "image_size": 32}),
    "PvtV2ForImageClassification": (32, {**PYRAMID, "image_size": 32}),
    "RegNetForImageClassification": (32, {**FOUR, "embedding_size": 8, "groups_width": 8}),
    "CvtForImageClassification": (32, {"embed_dim": [8, 8, 16], "num_heads": [1, 1, 2], "depth": [1, 2, 3]}),
    "SwiftFormerForImageClassification": (
        32,
        {"image_size": 32, "embed_dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    ),
    "HieraForImageClassification": (
        32,
        {
            "image_size": [32, 32],
            "embed_dim": 8,
            "depths": [1, 1, 1],
            "num_heads": [1, 1, 2],
            "num_query_pool": 2,
            "masked_unit_size": [4, 4],
            "masked_unit_attention": [True, False, False],
        },
    ),
    "FocalNetForImageClassification": (32, {"image_size": 32, "embed_dim": 8, **FOUR}),
    "HGNetV2ForImageClassification": (
        32,
        {
            "embedding_size": 8,
            "stem_channels": [3, 8, 8],
            "hidden_sizes": [8, 8, 16, 16],
            "depths": [1, 1, 1, 1],
            "stage_in_channels": [8, 8, 8, 16],
            "stage_mid_channels": [8, 8, 8, 8],
            "stage_out_channels": [8, 8, 16, 16],
            "stage_num_blocks": [1, 1, 1, 1],
            "stage_numb_of_layers": [2, 2, 2, 2],
        },
    ),
    "TextNetForImageClassification": (32, {"hidden_sizes": [8, 8, 16, 16, 16], "stem_out_channels": 8}),
    "ImageGPTForImageClassification": (8, {}),
    "Siglip2ForImageClassification": (8, {}),
    "SiglipForImageClassification": (8, {}),
    "CLIPForImageClassification": (8, {}),
    "DonutSwinForImageClassification": (32, SWIN),
}


def _image_config(name, changes):
    if name == "ImageGPTForImageClassification":
        return tiny("ImageGPTConfig", vocab_size=17, n_positions=64, num_labels=CLASSES)
    if name.startswith(("Siglip", "CLIP")):
        kind = name.removesuffix("ForImageClassification")
        vision = {"num_patches": 4} if kind == "Siglip2" else {"image_size": 8}
        config = getattr(transformers, f"{kind}Config")
        return config(
            vision_config=tiny(f"{kind}VisionConfig", patch_size=4, **vision).to_dict(),
            text_config=tiny(f"{kind}TextConfig").to_dict(),
            num_labels=CLASSES,
        )
    return config_of(name, num_labels=CLASSES, **changes)


def image_families():
    found = []
    for name, (size, changes) in IMAGE.items():
        batch = batches.image(size)
        if name == "ImageGPTForImageClassification":
            batch = _clusters
        if name == "Siglip2ForImageClassification":
            batch = _flat_patches
        config = partial(_image_config, name, changes)
        odd = {"has_twins": name.startswith("Cvt"), "remembers": name.startswith("Levit")}
        found.append(Family(name, "image", config, batch, **odd))
    return found


def _clusters(side="right"):
    return {"input_ids": torch.randint(0, 16, (ROWS, 16)), "labels": batches.classes()}


def _flat_patches(side="right"):
    mask = torch.ones(ROWS, 4, dtype=torch.long)
    mask[1, 2:] = 0
    shapes = torch.tensor([[2, 2], [2, 1], [2, 2], [2, 2]])
    return {
        "pixel_values": torch.randn(ROWS, 4, 48),
        "pixel_attention_mask": mask,
        "spatial_shapes": shapes,
        "labels": batches.classes(),
    }


def pretraining_families():
    def reconstruct(side="right"):
        return {"pixel_values": batches.pixels(16), "noise": torch.rand(ROWS, 16)}

    def masked_patches(size, patches):
        def batch(side="right"):
            chosen = torch.zeros(ROWS, patches, dtype=torch.bool)
            for row, count in enumerate((1, 2, 3, 1)):
                chosen[row, torch.randperm(patches)[:count]] = True
            return {"pixel_values": batches.pixels(size), "bool_masked_pos": chosen}

        return batch

    def beit(side="right"):
        batch = masked_patches(8, 4)()
        return {**batch, "labels": torch.randint(0, 64, (int(batch["bool_masked_pos"].sum()),))}

    def cut_beit(batch, row):
        counts = batch["bool_masked_pos"].sum(1)
        start = int(counts[:row].sum())
        return {
            "pixel_values": batch["pixel_values"][row : row + 1],
            "bool_masked_pos": batch["bool_masked_pos"][row : row + 1],
            "labels": batch["labels"][start : start + int(counts[row])],
        }

    mae = partial(
        config_of,
        "ViTMAEForPreTraining",
        image_size=16,
        patch_size=4,
        decoder_num_attention_heads=2,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_intermediate_size=16,
    )
    return [
        Family("ViTMAEForPreTraining", "pretraining", mae, reconstruct),
        Family(
            "ViTForMaskedImageModeling",
            "pretraining",
            partial(config_of, "ViTForMaskedImageModeling", **PATCHES, encoder_stride=4),
            masked_patches(8, 4),
        ),
        Family(
            "SwinForMaskedImageModeling",
            "pretraining",
            partial(config_of, "SwinForMaskedImageModeling", **SWIN, encoder_stride=16),
            masked_patches(32, 256),
        ),
        Family(
            "DeiTForMaskedImageModeling",
            "pretraining",
            partial(config_of, "DeiTForMaskedImageModeling", **PATCHES, encoder_stride=4),
            masked_patches(8, 4),
        ),
        Family(
            "BeitForMaskedImageModeling",
            "pretraining",
            partial(config_of, "BeitForMaskedImageModeling", **PATCHES, use_mask_token=True),
            beit,
            cut=cut_beit,
        ),
        Family(
            "VideoMAEForPreTraining",
            "pretraining",
            partial(
                config_of,
                "VideoMAEForPreTraining",
                **PATCHES,
                num_frames=2,
                tubelet_size=1,
                decoder_num_attention_heads=2,
                decoder_hidden_size=16,
                decoder_num_hidden_layers=1,
                decoder_intermediate_size=16,
                norm_pix_loss=False,
            ),
            _video_mask,
        ),
        Family(
            "VideoMAEForVideoClassification",
            "image",
            partial(
                config_of,
                "VideoMAEForVideoClassification",
                **PATCHES,
                num_frames=2,
                tubelet_size=1,
                num_labels=CLASSES,
            ),
            _video,
        ),
        Family(
            "TimesformerForVideoClassification",
            "image",
            partial(config_of, "TimesformerForVideoClassification", **PATCHES, num_frames=2, num_labels=CLASSES),
            _video,
        ),
        Family(
            "VivitForVideoClassification",
            "image",
            partial(
                config_of,
                "VivitForVideoClassification",
                image_size=8,
                num_frames=2,
                tubelet_size=[1, 4, 4],
                num_labels=CLASSES,
            ),
            _video,
        ),
    ]


def _video(side="right"):
    return {"pixel_values": torch.randn(ROWS, 2, 3, 8, 8), "labels": batches.classes()}


def _video_mask(side="right"):
    chosen = torch.zeros(ROWS, 8, dtype=torch.bool)
    chosen[:, ::2] = True
    return {"pixel_values": torch.randn(ROWS, 2, 3, 8, 8), "bool_masked_pos": chosen}


def families():
    return [*image_families(), *pretraining_families()]
