"""Small patches of photographs and textures that scikit-image ships: which picture is a patch of?

Every picture is cut into blocks, of which patches are taken: all patches of a block are rows to train on, or all are
rows to judge by, so that no pixel is in both. A patch has mean 0 and standard deviation 1: brightness and contrast
tell nothing. Nothing is downloaded: all files lie in the package.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

# The pictures, each a class.
PICTURES = (
    *("brick.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png"),
    *("hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "page.png", "retina.jpg"),
)
# Pixels along an edge of a patch and of a block, and from a patch to the next one of its block.
EDGE, BLOCK, STEP = 24, 48, 12
TRAIN_PATCHES, TEST_PATCHES = 250, 80
TEST_SHARE = 0.25
# A patch whose grey values, of 256, deviate by less shows nothing.
FLATTEST = 4.0


@dataclass(frozen=True)
class Patches:
    """Patches [N, 1, 24, 24] float32 and which picture each is of, [N], to train on and to judge by."""

    train: npt.NDArray[np.float32]
    train_labels: npt.NDArray[np.int64]
    test: npt.NDArray[np.float32]
    test_labels: npt.NDArray[np.int64]


def names() -> list[str]:
    """Names of the classes."""
    return [Path(picture).stem for picture in PICTURES]


@functools.cache
def blocks(picture: str) -> list[npt.NDArray[np.float32]]:
    """Patches [P, 24, 24] of every block of a picture that has any which shows something, row by row of the picture.

    Raises:
        FileNotFoundError: The installed scikit-image does not ship the picture.
    """
    folder = Path(str(importlib.util.find_spec("skimage").origin)).parent / "data"
    grey = np.asarray(Image.open(folder / picture).convert("L"), dtype=np.float32)
    found = []
    for top in range(0, len(grey) - BLOCK + 1, BLOCK):
        for left in range(0, grey.shape[1] - BLOCK + 1, BLOCK):
            block = grey[top : top + BLOCK, left : left + BLOCK]
            cut = np.lib.stride_tricks.sliding_window_view(block, (EDGE, EDGE))[::STEP, ::STEP].reshape(-1, EDGE, EDGE)
            deviation = cut.std((1, 2), keepdims=True)
            shows = deviation[:, 0, 0] >= FLATTEST
            if shows.any():
                found.append(((cut - cut.mean((1, 2), keepdims=True)) / np.maximum(deviation, 1e-6))[shows])
    return found


def load_patches(seed: int) -> Patches:
    """2,800 patches to train on and 900 to judge by, at most so many of a picture; the seed draws the blocks."""
    rng = np.random.default_rng(seed)
    train, test = [], []
    for picture in PICTURES:
        cut = blocks(picture)
        order, tests = rng.permutation(len(cut)), round(TEST_SHARE * len(cut))
        for part, places, count in ((test, order[:tests], TEST_PATCHES), (train, order[tests:], TRAIN_PATCHES)):
            patches = np.concatenate([cut[place] for place in places])
            part.append(patches[rng.permutation(len(patches))[:count]])
    labels = [np.repeat(np.arange(len(PICTURES)), [len(each) for each in part]) for part in (train, test)]
    return Patches(np.concatenate(train)[:, None], labels[0], np.concatenate(test)[:, None], labels[1])


class ConvNet(nn.Module):
    """Three convolutions with batch normalisation and pooling over patches [B, 1, 24, 24], and a linear head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        widths = (1, 16, 32, 64)
        layers = [
            layer
            for before, after in pairwise(widths)
            for layer in (nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2))
        ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], len(PICTURES))

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.head(self.body(pixel_values).mean((2, 3)))
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}
