"""Models of images: classification, segmentation, detection, depth and masked reconstruction."""

from functools import partial

import torch
import transformers

from . import batches
from .batches import CLASSES, ROWS
from .family import Family, tiny

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
STAGES = ["stage1", "stage2", "stage3", "stage4"]
DETR = {"d_model": 16, "num_queries": 5, "encoder_layers": 1, "decoder_layers": 1}


def _resnet():
    return tiny("ResNetConfig", **FOUR, embedding_size=8, out_features=STAGES)


def _swin():
    return tiny("SwinConfig", **SWIN, out_features=STAGES)


def _config(name, **changes):
    return tiny(getattr(transformers, name).config_class, **changes)


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
    return _config(name, num_labels=CLASSES, **changes)


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


def segmentation_families():
    upernet = partial(
        _config, "UperNetForSemanticSegmentation", hidden_size=16, auxiliary_channels=8, num_labels=CLASSES
    )
    beit = {
        "image_size": 32,
        "patch_size": 8,
        "num_hidden_layers": 4,
        "out_indices": [1, 2, 3, 4],
        "num_labels": CLASSES,
    }
    dpt = {
        "image_size": 32,
        "patch_size": 8,
        "num_hidden_layers": 4,
        "backbone_out_indices": [0, 1, 2, 3],
        "neck_hidden_sizes": [8, 8, 8, 8],
        "fusion_hidden_size": 8,
        "num_labels": CLASSES,
    }
    mobile = dict(IMAGE["MobileViTForImageClassification"][1], aspp_out_channels=8)
    segmenters = {
        "SegformerForSemanticSegmentation": partial(
            _config, "SegformerForSemanticSegmentation", **PYRAMID, decoder_hidden_size=16, num_labels=CLASSES
        ),
        "BeitForSemanticSegmentation": partial(_config, "BeitForSemanticSegmentation", **beit),
        "Data2VecVisionForSemanticSegmentation": partial(_config, "Data2VecVisionForSemanticSegmentation", **beit),
        "DPTForSemanticSegmentation": partial(_config, "DPTForSemanticSegmentation", **dpt),
        "MobileViTForSemanticSegmentation": partial(
            _config, "MobileViTForSemanticSegmentation", **mobile, num_labels=CLASSES
        ),
        "MobileNetV2ForSemanticSegmentation": partial(
            _config, "MobileNetV2ForSemanticSegmentation", depth_multiplier=0.25, num_labels=CLASSES
        ),
        "UperNetForSemanticSegmentation": lambda: upernet(backbone_config=_swin(), auxiliary_in_channels=32),
    }
    found = [Family(name, "segmentation", config, batches.segmentation(32)) for name, config in segmenters.items()]

    def maskformer():
        decoder = tiny("DetrConfig", **DETR, num_labels=CLASSES)
        return transformers.MaskFormerConfig(
            backbone_config=_swin(),
            decoder_config=decoder,
            fpn_feature_size=32,
            mask_feature_size=32,
            num_labels=CLASSES,
        )

    def mask2former():
        return transformers.Mask2FormerConfig(
            backbone_config=_swin(),
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_feedforward_dim=16,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
            dim_feedforward=16,
            num_queries=5,
            train_num_points=16,
            num_labels=CLASSES,
        )

    def eomt():
        return tiny(
            "EomtConfig",
            image_size=32,
            patch_size=8,
            num_queries=5,
            num_blocks=1,
            num_upscale_blocks=1,
            train_num_points=16,
            num_labels=CLASSES,
        )

    return found + [
        Family("MaskFormerForInstanceSegmentation", "segmentation", maskformer, batches.instances(32)),
        Family("Mask2FormerForUniversalSegmentation", "segmentation", mask2former, batches.instances(32)),
        Family("EomtForUniversalSegmentation", "segmentation", eomt, batches.instances(32)),
    ]


def detection_families():
    labels = {"num_labels": CLASSES}
    detectors = {
        "YolosForObjectDetection": lambda: tiny(
            "YolosConfig", image_size=[32, 32], patch_size=8, num_detection_tokens=5, **labels
        ),
        "DetrForObjectDetection": lambda: tiny("DetrConfig", backbone_config=_resnet(), **DETR, **labels),
        "ConditionalDetrForObjectDetection": lambda: tiny(
            "ConditionalDetrConfig", backbone_config=_resnet(), **DETR, **labels
        ),
        "DeformableDetrForObjectDetection": lambda: tiny(
            "DeformableDetrConfig",
            backbone_config=_resnet(),
            num_feature_levels=4,
            disable_custom_kernels=True,
            **{**DETR, "d_model": 32, "decoder_layers": 2},
            **labels,
        ),
        "DabDetrForObjectDetection": lambda: tiny(
            "DabDetrConfig",
            backbone_config=_resnet(),
            hidden_size=16,
            **{k: v for k, v in DETR.items() if k != "d_model"},
            **labels,
        ),
        "TableTransformerForObjectDetection": lambda: tiny(
            "TableTransformerConfig", backbone_config=_resnet(), **DETR, **labels
        ),
        "RTDetrForObjectDetection": lambda: tiny(
            "RTDetrConfig",
            backbone_config=tiny("RTDetrResNetConfig", **FOUR, embedding_size=8, out_features=STAGES[1:]),
            encoder_hidden_dim=16,
            encoder_in_channels=[16, 16, 16],
            encode_proj_layers=[2],
            d_model=16,
            num_queries=5,
            decoder_in_channels=[16, 16, 16],
            encoder_layers=1,
            decoder_layers=1,
            anchor_image_size=None,
            num_denoising=0,
            **labels,
        ),
    }
    found = [
        Family(name, "detection", config, batches.detection(64 if "Deformable" in name else 32))
        for name, config in detectors.items()
    ]
    masks = batches.detection(32, masks=lambda count: (torch.rand(count, 32, 32) > 0.5).float())
    panoptic = lambda: tiny(
        "DetrConfig",
        backbone_config=_resnet(),
        **{**DETR, "d_model": 32},
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        **labels,
    )  # noqa: E731
    return [*found, Family("DetrForSegmentation", "segmentation", panoptic, masks)]


def depth_families():
    def depth(side="right"):
        return {"pixel_values": batches.pixels(32), "labels": torch.rand(ROWS, 32, 32) + 0.1}

    return [
        Family(
            "GLPNForDepthEstimation",
            "depth",
            partial(_config, "GLPNForDepthEstimation", **PYRAMID, decoder_hidden_size=8),
            depth,
        )
    ]


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
        _config,
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
            partial(_config, "ViTForMaskedImageModeling", **PATCHES, encoder_stride=4),
            masked_patches(8, 4),
        ),
        Family(
            "SwinForMaskedImageModeling",
            "pretraining",
            partial(_config, "SwinForMaskedImageModeling", **SWIN, encoder_stride=16),
            masked_patches(32, 256),
        ),
        Family(
            "DeiTForMaskedImageModeling",
            "pretraining",
            partial(_config, "DeiTForMaskedImageModeling", **PATCHES, encoder_stride=4),
            masked_patches(8, 4),
        ),
        Family(
            "BeitForMaskedImageModeling",
            "pretraining",
            partial(_config, "BeitForMaskedImageModeling", **PATCHES, use_mask_token=True),
            beit,
            cut=cut_beit,
        ),
        Family(
            "VideoMAEForPreTraining",
            "pretraining",
            partial(
                _config,
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
                _config, "VideoMAEForVideoClassification", **PATCHES, num_frames=2, tubelet_size=1, num_labels=CLASSES
            ),
            _video,
        ),
        Family(
            "TimesformerForVideoClassification",
            "image",
            partial(_config, "TimesformerForVideoClassification", **PATCHES, num_frames=2, num_labels=CLASSES),
            _video,
        ),
        Family(
            "VivitForVideoClassification",
            "image",
            partial(
                _config,
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
    return [
        *image_families(),
        *segmentation_families(),
        *detection_families(),
        *depth_families(),
        *pretraining_families(),
    ]
