"""A row's columns as a page can show them: text cut short, small images within the page, the length of sound."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.status import LOSS_COLUMN, ROW_COLUMN, SCORE_COLUMN
from .words import count, shortened

# Columns that are told elsewhere.
_TOLD = {ROW_COLUMN, SCORE_COLUMN, LOSS_COLUMN}
_LABELS = {"label", "labels"}
# Longest side of an image, in pixels, and the length of a text, in characters.
_SIDE, _LENGTH = 160, 320
# Smaller images are enlarged with their pixels seen.
_COARSE = 64
# Columns of numbers and short words that are shown, turns of a dialogue, and images of a row.
_COLUMNS, _TURNS, _IMAGES = 6, 6, 4
# Text that a row shows in all.
_TEXTS = 4


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, its size as it is shown, and whether its pixels are to be seen."""

    uri: str
    width: int
    height: int
    is_coarse: bool
    words: str


@dataclass(frozen=True)
class Passage:
    """A text under its column's name; how long it is in all, where it was cut."""

    name: str
    text: str
    cut_from: int | None = None


@dataclass(frozen=True)
class Shown:
    """What a page shows of a row's columns; numbers and short words in `details`, a name and a value each."""

    pictures: Sequence[Picture] = ()
    passages: Sequence[Passage] = ()
    details: Sequence[tuple[str, str]] = ()


def show(content: Mapping[str, Any], has_label: bool) -> Shown:
    """A row's columns as they can be shown.

    Args:
        content: The columns; images, sound and dialogues as `datasets` gives them, or as arrays.
        has_label: Whether the label is told elsewhere, and need not be told again.
    """
    pictures: list[Picture] = []
    passages: list[Passage] = []
    details: list[tuple[str, str]] = []
    for name, value in content.items():
        if value is None or name in _TOLD or (has_label and name in _LABELS):
            continue
        if (length := _seconds(value)) is not None:
            details.append((name, f"{length:.1f} s of sound"))
        elif (picture := _picture(name, value)) is not None:
            pictures.append(picture)
        elif _is_image(value):
            details.append((name, "an image that cannot be read"))
        elif isinstance(value, str):
            passages.append(_passage(name, value))
        elif (turns := _turns(value)) is not None:
            passages += [_passage(f"{name}: {role}", text) for role, text in turns[:_TURNS]]
            if len(turns) > _TURNS:
                details.append((name, f"{len(turns) - _TURNS} more turns"))
        else:
            details.append((name, _in_words(value)))
    return Shown(pictures[:_IMAGES], passages[: max(_TEXTS, _TURNS)], details[:_COLUMNS])


def _passage(name: str, text: str) -> Passage:
    cut = shortened(text, _LENGTH)
    return Passage(name, cut, len(text) if len(cut) < len(text) else None)


def _in_words(value: Any) -> str:
    """A number, a truth, a short list; of a long one, its length or shape."""
    if isinstance(value, Mapping):
        return shortened(", ".join(f"{key}: {_in_words(each)}" for key, each in value.items()), 80)
    if isinstance(value, bytes):
        return f"{count(len(value))} bytes"
    if isinstance(value, float):
        return f"{value:.4g}"
    if hasattr(value, "shape") and len(value.shape) > 0:
        return " × ".join(map(str, value.shape)) + " numbers"  # noqa: RUF001  # a sign of times
    if isinstance(value, list | tuple):
        if len(value) <= 4 and all(isinstance(each, str | int | float) for each in value):
            return shortened(", ".join(map(_in_words, value)), 80)
        return f"{count(len(value))} values"
    return shortened(str(value), 80)


def _turns(value: Any) -> list[tuple[str, str]] | None:
    """Who says what in a dialogue; None where it is none."""
    if not isinstance(value, list) or not value or not all(isinstance(turn, Mapping) for turn in value):
        return None
    turns = []
    for turn in value:
        role, said = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if role is None:
            return None
        if isinstance(said, list):
            said = " ".join(_part(part) for part in said)
        turns.append((str(role), "" if said is None else str(said)))
    return turns


def _part(part: Any) -> str:
    if not isinstance(part, Mapping):
        return str(part)
    return str(part.get("text") or f"[{part.get('type', 'something else')}]")


def _seconds(value: Any) -> float | None:
    """The length of sound, in seconds; None where it is none, or cannot be told."""
    decoded = getattr(value, "metadata", None)
    for name in ("duration_seconds", "duration_seconds_from_header"):
        length = getattr(decoded, name, None)
        if isinstance(length, int | float):
            return float(length)
    if isinstance(value, Mapping) and value.get("sampling_rate") and value.get("array") is not None:
        return float(np.asarray(value["array"]).shape[-1] / value["sampling_rate"])
    return None


def _is_image(value: Any) -> bool:
    return hasattr(value, "convert") and hasattr(value, "thumbnail")


def _picture(name: str, value: Any) -> Picture | None:
    """A small image of what is one: of Pillow's, as undecoded bytes, or as pixels of a model."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        return None
    try:
        if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
            value = Image.open(io.BytesIO(value["bytes"]))
        elif name == "pixel_values":
            pixels = _pixels(value)
            value = None if pixels is None else Image.fromarray(pixels)
        if not isinstance(value, Image.Image):
            return None
        image = ImageOps.exif_transpose(value)
        full = image.size
        if image.mode in ("I", "F") or image.mode.startswith("I;"):  # 16 or 32 bits, as of scans
            image = Image.fromarray(_scaled(np.asarray(image, dtype=np.float32)))
        image.thumbnail((_SIDE, _SIDE))
        has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        image = image.convert("RGBA" if has_alpha else "L" if image.mode in ("1", "L") else "RGB")
        is_coarse = max(image.size) <= _COARSE
        data = io.BytesIO()
        # Few pixels, or some that are clear: without loss. No name or place that the file may hold goes along.
        kind = "png" if has_alpha or is_coarse else "jpeg"
        image.save(data, format=kind, **({} if kind == "png" else {"quality": 80}))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    grown = max(1, 96 // max(1, *image.size)) if is_coarse else 1
    uri = f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
    words = f"{name}, {full[0]} × {full[1]} pixels"  # noqa: RUF001  # a sign of times
    return Picture(uri, image.width * grown, image.height * grown, is_coarse, words)


def _pixels(value: Any) -> Any:
    """A model's pixels [channels, height, width] as bytes, darkest to brightest; None where it is none."""
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        return None
    if array.ndim != 3 or array.shape[0] not in (1, 3) or 0 in array.shape or not np.isfinite(array).all():
        return None
    scaled = _scaled(array)
    return scaled[0] if len(scaled) == 1 else np.moveaxis(scaled, 0, -1)


def _scaled(array: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    low, high = float(array.min()), float(array.max())
    return ((array - low) / ((high - low) or 1.0) * 255).round().astype(np.uint8)
