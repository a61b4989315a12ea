"""Images of any kind as 8-bit RGB: what image processors take for granted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Image as ImageFeature
from PIL import Image

from ...errors import DatasetError
from .rows import Unfit, as_unfit, each, is_list, shown

IMAGE_COLUMNS = ("image", "img", "images")
# The brightest values that numbers of more than 8 bits are known to go up to.
_TOPS = (1, 255, 65535)
_CHANNELS = (1, 3, 4)
_TO_PIL = 'Store 8-bit images: dataset.map(lambda row: {"image": Image.fromarray(array.astype("uint8"))}).'
_REPLACE = "Filter or replace such rows."


def brightest(values: Iterable[Any]) -> int | None:
    """Up to which number the images of a dataset count, by a sample: 1, 255 or 65535.

    Args:
        values: As rows hold them; what cannot be read is passed over.

    Returns:
        None where no image holds numbers of more than 8 bits, or where they may mean several things.
    """
    most = None
    for value in values:
        try:
            numbers = _wide_numbers(opened(value))
        except Unfit:
            continue
        if numbers is not None and numbers.size:
            most = max(most or 0.0, float(numbers.max()))
    if most is None or 1 < most < 2:  # from 0 to 1 with an overshoot, or very dark ones of 8 bits
        return None
    return next((top for top in _TOPS if 0 < most <= top), 255 if most == 0 else None)


def as_images(values: Iterable[Any], column: str, first: int, top: int | None, mode: str = "RGB") -> list[Image.Image]:
    """Images of a column's values, of 8 bits a channel.

    Args:
        values: PIL images; undecoded ones (a dictionary of bytes and path, or a path); lists or arrays [H, W],
            [H, W, C] or [C, H, W].
        column: Where they come from.
        first: Number of the first row in the dataset.
        top: What `brightest` found.
        mode: As of PIL: "RGB", or "L" for a model of grey images.

    Raises:
        DatasetError: An image is null or cannot be read, or its numbers may mean several things.
    """
    return each(lambda value: _rgb(opened(value), top).convert(mode), values, DatasetError, column, first)


def opened(value: Any) -> Image.Image | npt.NDArray[Any]:
    """An image, or its numbers with the channels last.

    Raises:
        Unfit: It is null, or no image.
    """
    if value is None:
        raise Unfit("The image is null", _REPLACE)
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, (str, Path)):
        value = {"path": str(value), "bytes": None}
    if isinstance(value, Mapping) and {"bytes", "path"} & set(value):
        with as_unfit(f"{_REPLACE} A path counts from the folder in which Python was started."):
            return ImageFeature().decode_example({"path": value.get("path"), "bytes": value.get("bytes")})
    if is_list(value):
        with as_unfit(f"Give each row one image, or its numbers as [H, W, C]. {_TO_PIL}"):
            numbers = np.asarray(value)
            if numbers.dtype.kind in "biuf":
                return _channels_last(numbers)
    raise Unfit(f"The value is not an image: {shown(value)}", "Name another column image, or decode it.")


def _channels_last(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    shape = numbers.shape
    if numbers.ndim == 2:
        return numbers
    if numbers.ndim == 3 and (shape[0] in _CHANNELS) != (shape[2] in _CHANNELS):
        return numbers if shape[2] in _CHANNELS else numbers.transpose(1, 2, 0)
    raise Unfit(f"The image has the shape {list(shape)}, and it is not clear which axis holds the channels", _TO_PIL)


def _wide_numbers(image: Image.Image | npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """The numbers of an image whose type does not tell up to where they count."""
    if isinstance(image, Image.Image):
        return np.asarray(image) if image.mode in ("I", "F") else None
    return None if image.dtype in (np.uint8, np.uint16, np.bool_) else image


def _rgb(image: Image.Image | npt.NDArray[Any], top: int | None) -> Image.Image:
    numbers = _wide_numbers(image)
    if numbers is not None:
        return _from_numbers(_as_8_bit(numbers, top))
    if isinstance(image, Image.Image):
        if image.mode.startswith("I;16"):
            return _from_numbers(_as_8_bit(np.asarray(image), 65535))
        # A palette may hold what is transparent as bytes, which PIL converts by way of RGBA only.
        return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
    return _from_numbers(_as_8_bit(image, {"uint16": 65535, "bool": 1}.get(image.dtype.name, 255)))


def _as_8_bit(numbers: npt.NDArray[Any], top: int | None) -> npt.NDArray[np.uint8]:
    """Numbers in [0, top] as [0, 255]."""
    if top is None or not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.max() > top:
        raise Unfit(
            f"The image's numbers go from {numbers.min():g} to {numbers.max():g}"
            + ("" if top is None else f", and those of the dataset from 0 to {top}"),
            f"Scale all images in the same way. {_TO_PIL}",
        )
    return np.rint(numbers.astype(np.float64) * (255 / top)).astype(np.uint8)


def _from_numbers(numbers: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(numbers[..., 0] if numbers.ndim == 3 and numbers.shape[2] == 1 else numbers).convert("RGB")
