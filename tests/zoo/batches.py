"""Batches of four rows of uneven length."""

from typing import Any

import torch
from torch import Tensor

from .family import ROWS, VOCABULARY

LENGTH = 8  # a multiple of the rows: an axis of positions passes for one of rows
LENGTHS = (8, 5, 6, 3)
CLASSES = 3

Batch = dict[str, Any]


def tokens(side: str = "right", length: int = LENGTH) -> Batch:
    """Token ids and the mask of what is no padding."""
    ids = torch.randint(5, VOCABULARY, (ROWS, length))
    filled = torch.tensor(LENGTHS).unsqueeze(1) * length // LENGTH
    places = torch.arange(length)
    mask = (places < filled if side == "right" else places >= length - filled).long()
    return {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}


def causal(side: str = "right") -> Batch:
    """The tokens as labels; the first two of the third row are a prompt."""
    batch = tokens(side)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    start = int((batch["attention_mask"][2] == 0).sum()) if side == "left" else 0
    labels[2, start : start + 2] = -100
    return {**batch, "labels": labels}


def masked(side: str = "right") -> Batch:
    """Some tokens as labels, another number in every row."""
    batch = tokens(side)
    chosen = (torch.rand(ROWS, LENGTH) < 0.5) & (batch["attention_mask"] == 1)
    chosen |= (torch.arange(LENGTH) == (0 if side == "right" else LENGTH - 1)).expand(ROWS, -1)
    return {**batch, "labels": batch["input_ids"].masked_fill(~chosen, -100)}


def classes() -> Tensor:
    return torch.tensor([0, 1, 2, 1])


def sequence(side: str = "right") -> Batch:
    return {**tokens(side), "labels": classes()}


def multi_label(side: str = "right") -> Batch:
    return {**tokens(side), "labels": torch.randint(0, 2, (ROWS, CLASSES)).float()}


def regression(side: str = "right") -> Batch:
    return {**tokens(side), "labels": torch.randn(ROWS)}


def token(side: str = "right") -> Batch:
    batch = tokens(side)
    return {
        **batch,
        "labels": torch.randint(0, CLASSES, (ROWS, LENGTH)).masked_fill(batch["attention_mask"] == 0, -100),
    }


def question(side: str = "right") -> Batch:
    batch = tokens(side)
    start = (batch["attention_mask"] == 0).sum(1) if side == "left" else torch.zeros(ROWS, dtype=torch.long)
    spans = {
        "start_positions": torch.tensor([0, 1, 2, 0]) + start,
        "end_positions": torch.tensor([3, 1, 4, 2]) + start,
    }
    return {**batch, **spans}


def choice(side: str = "right") -> Batch:
    """Three continuations a row."""
    batch = {key: torch.stack([tokens(side)[key] for _ in range(3)], 1) for key in ("input_ids", "attention_mask")}
    return {**batch, "labels": classes()}


def seq2seq(side: str = "right") -> Batch:
    labels = torch.randint(5, VOCABULARY, (ROWS, 6))
    labels = labels.masked_fill(torch.arange(6) >= torch.tensor([[6], [4], [3], [5]]), -100)
    return {**tokens(side), "labels": labels}


def pixels(size: int = 8, channels: int = 3) -> Tensor:
    return torch.randn(ROWS, channels, size, size)


def image(size: int = 8, channels: int = 3):
    return lambda side="right": {"pixel_values": pixels(size, channels), "labels": classes()}


def segmentation(size: int = 32, labels: int = CLASSES):
    """A class for each pixel, 255 where none is."""

    def batch(side: str = "right") -> Batch:
        target = torch.randint(0, labels, (ROWS, size, size))
        target[1, : size // 2] = 255
        target[2, :, : size // 4] = 255
        return {"pixel_values": pixels(size), "labels": target}

    return batch


def detection(size: int = 32, **more):
    """Another number of boxes in every row."""

    def batch(side: str = "right") -> Batch:
        labels = [
            {
                "class_labels": torch.randint(0, CLASSES, (count,)),
                "boxes": torch.rand(count, 4) * 0.3 + 0.3,
                **{key: make(count) for key, make in more.items()},
            }
            for count in (1, 3, 2, 2)
        ]
        return {"pixel_values": pixels(size), "labels": labels}

    return batch


def instances(size: int = 32):
    """Another number of masks in every row."""

    def batch(side: str = "right") -> Batch:
        counts = (1, 3, 2, 2)
        return {
            "pixel_values": pixels(size),
            "mask_labels": [(torch.rand(count, size, size) > 0.5).float() for count in counts],
            "class_labels": [torch.randint(0, CLASSES, (count,)) for count in counts],
        }

    return batch


def waves(length: int = 400, masked_by: str = "attention_mask") -> Batch:
    filled = torch.tensor(LENGTHS).unsqueeze(1) * length // LENGTH
    mask = (torch.arange(length) < filled).long()
    return {"input_values": torch.randn(ROWS, length) * mask, masked_by: mask}
