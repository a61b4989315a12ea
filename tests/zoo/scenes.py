"""Models of what is where in an image: segmentation, detection, depth."""

from functools import partial

import torch
import transformers

from . import batches
from .batches import CLASSES, ROWS
from .family import Family, config_of, tiny
from .vision import FOUR, IMAGE, PYRAMID, SWIN

STAGES = ["stage1", "stage2", "stage3", "stage4"]
DETR = {"d_model": 16, "num_queries": 5, "encoder_layers": 1, "decoder_layers": 1}


def _resnet():
    return tiny("ResNetConfig", **FOUR, embedding_size=8, out_features=STAGES)


def _swin():
    return tiny("SwinConfig", **SWIN, out_features=STAGES)


def segmentation_families():
    upernet = partial(
        config_of, "UperNetForSemanticSegmentation", hidden_size=16, auxiliary_channels=8, num_labels=CLASSES
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
            config_of, "SegformerForSemanticSegmentation", **PYRAMID, decoder_hidden_size=16, num_labels=CLASSES
        ),
        "BeitForSemanticSegmentation": partial(config_of, "BeitForSemanticSegmentation", **beit),
        "Data2VecVisionForSemanticSegmentation": partial(config_of, "Data2VecVisionForSemanticSegmentation", **beit),
        "DPTForSemanticSegmentation": partial(config_of, "DPTForSemanticSegmentation", **dpt),
        "MobileViTForSemanticSegmentation": partial(
            config_of, "MobileViTForSemanticSegmentation", **mobile, num_labels=CLASSES
        ),
        "MobileNetV2ForSemanticSegmentation": partial(
            config_of, "MobileNetV2ForSemanticSegmentation", depth_multiplier=0.25, num_labels=CLASSES
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

    return [
        *found,
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

    def panoptic():
        return tiny(
            "DetrConfig",
            backbone_config=_resnet(),
            **{**DETR, "d_model": 32},
            encoder_attention_heads=8,
            decoder_attention_heads=8,
            **labels,
        )

    return [*found, Family("DetrForSegmentation", "segmentation", panoptic, masks)]


def depth_families():
    def depth(side="right"):
        return {"pixel_values": batches.pixels(32), "labels": torch.rand(ROWS, 32, 32) + 0.1}

    return [
        Family(
            "GLPNForDepthEstimation",
            "depth",
            partial(config_of, "GLPNForDepthEstimation", **PYRAMID, decoder_hidden_size=8),
            depth,
        )
    ]


def families():
    return [*segmentation_families(), *detection_families(), *depth_families()]
