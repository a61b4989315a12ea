"""Rows are shown as they are: text cut short, images small and within the page, sound by its length."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sage_hf.report.contents import show


def opened(picture):
    head, data = picture.uri.split(",", 1)
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f"data:image/{image.format.lower()};base64"
    return image


def test_text_is_shown_whole_or_cut_with_its_length():
    shown = show({"text": "one\ntwo", "long": "word " * 1000, "n": 3, "x": 0.123456, "none": None}, False)
    assert [(each.name, each.cut_from) for each in shown.passages] == [("text", None), ("long", 5000)]
    assert shown.passages[0].text == "one\ntwo"
    assert len(shown.passages[1].text) <= 320 and shown.passages[1].text.endswith("…")
    assert list(shown.details) == [("n", "3"), ("x", "0.1235")]


def test_labels_and_own_columns_are_not_told_twice():
    content = {"label": 3, "sage_row": 1, "sage_score": 0.5, "text": "a"}
    assert list(show(content, True).details) == []
    assert list(show(content, False).details) == [("label", "3")]


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "CMYK", "I;16", "LA"])
def test_images_of_every_mode_are_small_and_within_the_page(mode):
    (picture,) = show({"image": Image.new(mode, (900, 300))}, False).pictures
    assert opened(picture).size == (picture.width, picture.height) == (160, 53)
    assert picture.words == "image, 900 × 300 pixels"  # noqa: RUF001
    assert len(picture.uri) < 20_000


def test_few_pixels_are_enlarged_and_seen():
    (picture,) = show({"image": Image.new("L", (8, 8))}, False).pictures
    assert picture.is_coarse and (picture.width, picture.height) == (96, 96)
    assert opened(picture).size == (8, 8)


def test_what_a_file_says_of_its_place_does_not_go_along():
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    file = io.BytesIO()
    Image.new("RGB", (300, 300)).save(file, "jpeg", exif=exif)
    for value in (Image.open(io.BytesIO(file.getvalue())), {"bytes": file.getvalue(), "path": None}):
        (picture,) = show({"image": value}, False).pictures
        assert b"taken at home" not in base64.b64decode(picture.uri.split(",")[1])


def test_images_lie_as_they_were_taken():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    file = io.BytesIO()
    Image.new("RGB", (300, 100)).save(file, "jpeg", exif=exif)
    (picture,) = show({"image": Image.open(io.BytesIO(file.getvalue()))}, False).pictures
    assert picture.height > picture.width


def test_pixels_of_a_model_become_an_image():
    pixels = np.linspace(-1, 1, 3 * 4 * 6).reshape(3, 4, 6).tolist()
    (picture,) = show({"pixel_values": pixels}, False).pictures
    assert opened(picture).size == (6, 4) and opened(picture).mode == "RGB"
    (flat,) = show({"pixel_values": np.zeros((1, 8, 8))}, False).pictures
    assert opened(flat).mode == "L"
    assert list(show({"pixel_values": np.zeros((2, 3, 8, 8))}, False).details) == [
        ("pixel_values", "2 × 3 × 8 × 8 numbers")  # noqa: RUF001
    ]


def test_an_image_that_cannot_be_read_is_told():
    file = io.BytesIO()
    Image.effect_noise((300, 300), 99).save(file, "png")
    broken = Image.open(io.BytesIO(file.getvalue()[:2000]))
    shown = show({"image": broken, "other": {"bytes": b"no image", "path": None}}, False)
    assert shown.pictures == []
    assert ("image", "an image that cannot be read") in shown.details


def test_sound_is_told_by_its_length():
    decoder = SimpleNamespace(metadata=SimpleNamespace(duration_seconds=2.5))
    array = {"array": np.zeros(8000), "sampling_rate": 16000, "path": None}
    assert list(show({"audio": array, "speech": decoder}, False).details) == [
        ("audio", "0.5 s of sound"),
        ("speech", "2.5 s of sound"),
    ]


def test_dialogues_are_told_by_turns():
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [{"type": "text", "text": "Yes"}]}]
    shown = show({"messages": turns, "chat": [{"from": "human", "value": "Hm"}] * 9}, False)
    told = [(each.name, each.text) for each in shown.passages]
    assert told[:2] == [("messages: user", "Hi"), ("messages: assistant", "Yes")]
    assert ("chat", "3 more turns") in shown.details


def test_numbers_and_lists_are_told_shortly():
    content = {"input_ids": list(range(900)), "few": [1, 2], "raw": b"12345", "nested": {"a": 1, "b": [0] * 99}}
    assert dict(show(content, False).details) == {
        "input_ids": "900 values",
        "few": "1, 2",
        "raw": "5 bytes",
        "nested": "a: 1, b: 99 values",
    }
