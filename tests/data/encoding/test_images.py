import io

import numpy as np
import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from sage_hf.data.encoding.images import as_images, brightest
from sage_hf.errors import DatasetError

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOUR = np.random.default_rng(0).integers(0, 256, (8, 6, 3)).astype(np.uint8)


def pixels(*values):
    """[images, H, W, 3] as the image processor gets them."""
    return np.stack([np.asarray(image) for image in as_images(values, "image", 0, brightest(values))])


def rgb(grey):
    return np.repeat(np.asarray(grey)[..., None], 3, axis=-1)


def of_mode(array, mode):
    image = Image.fromarray(array)
    assert image.mode == mode
    return image


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (of_mode(GREY.astype(np.uint16) * 257, "I;16"), GREY),
        (of_mode(GREY.astype(np.int32) * 257, "I"), GREY),
        (of_mode(GREY.astype(np.int32), "I"), GREY),
        (of_mode(GREY.astype(np.float32) / 255, "F"), GREY),
        (of_mode(GREY.astype(np.float32), "F"), GREY),
        (of_mode(GREY.astype(np.float32) * 257, "F"), GREY),
        (of_mode(GREY.astype(np.uint16) * 257 + 100, "I;16"), GREY),
        (Image.fromarray(GREY), GREY),
        (Image.fromarray(GREY > 99), np.where(GREY > 99, 255, 0)),
        (Image.merge("LA", [Image.fromarray(GREY)] * 2), GREY),
        (GREY > 99, np.where(GREY > 99, 255, 0)),
        (GREY.astype(np.uint16) * 257, GREY),
        (GREY.tolist(), GREY),
        ((GREY / 255).tolist(), GREY),
        (GREY[..., None].tolist(), GREY),
        (GREY[None].tolist(), GREY),
    ],
)
def test_grey_images_of_any_depth_are_8_bit(image, wanted):
    assert np.array_equal(pixels(image)[0], rgb(wanted))


def test_images_in_colour_are_the_same_however_they_are_held(tmp_path):
    image, buffer = Image.fromarray(COLOUR), io.BytesIO()
    image.save(buffer, "png")
    image.save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    held = [
        image,
        {"bytes": buffer.getvalue(), "path": None},
        {"bytes": None, "path": path},
        path,
        tmp_path / "a.png",
        COLOUR,
        COLOUR.tolist(),
        COLOUR.transpose(2, 0, 1).tolist(),
        image.convert("RGBA"),
    ]
    for value in held:
        assert np.array_equal(pixels(value)[0], COLOUR)
    assert np.abs(pixels(image.convert("CMYK"))[0].astype(int) - COLOUR).max() <= 1
    palette = Image.fromarray(COLOUR).quantize(256)
    shown = np.asarray(palette.convert("RGB"))
    palette.info["transparency"] = bytes(256)
    assert np.array_equal(pixels(palette)[0], shown)


def test_dark_images_are_rescaled_as_the_others_of_their_dataset():
    dark, bright = (of_mode(np.full((8, 8), value, dtype=np.int32), "I") for value in (200, 60000))
    assert pixels(dark, bright)[:, 0, 0, 0].tolist() == [1, 233]
    assert pixels(dark)[0, 0, 0, 0] == 200
    assert pixels(of_mode(np.zeros((8, 8), dtype=np.float32), "F"))[0, 0, 0, 0] == 0


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "The image is null"),
        ("gone.png", "FileNotFoundError.*gone.png"),
        ({"bytes": b"no image", "path": None}, "UnidentifiedImageError"),
        (7, "not an image: 7"),
        ([["a"]], r"not an image: \[\['a'\]\]"),
        ([[1, 2], [3]], "ValueError: .*"),
        (np.zeros((2, 8, 8, 3)), r"shape \[2, 8, 8, 3\]"),
        (np.zeros((3, 8, 3)), r"shape \[3, 8, 3\]"),
        (np.full((8, 8), -1.0), "numbers go from -1 to -1"),
        (np.full((8, 8), 1.2), "numbers go from 1.2 to 1.2"),
        (np.full((8, 8), 70000), "numbers go from 70000 to 70000"),
        (of_mode(np.full((8, 8), np.nan, dtype=np.float32), "F"), "numbers go from nan to nan"),
    ],
)
def test_what_is_no_sure_image_is_named_by_its_row(value, said):
    with pytest.raises(DatasetError, match=f"{said}.*column 'image', row 5"):
        as_images([Image.fromarray(GREY), value], "image", 4, brightest([value]))


def test_an_image_beyond_the_range_of_the_others_is_refused():
    with pytest.raises(DatasetError, match=r"from 9000 to 9000, and those of the dataset from 0 to 255.*row 1"):
        as_images([GREY.astype(int), np.full((8, 8), 9000)], "image", 0, brightest([GREY.astype(int)]))


def test_what_a_dataset_makes_of_wide_images_is_read_right():
    images = [Image.fromarray(GREY.astype(kind) * 257) for kind in (np.uint16, np.int32, np.float32)]
    for image in images:
        for feature in (ImageFeature(), ImageFeature(decode=False)):
            rows = Dataset.from_dict({"image": [image], "n": [1]}, Features(image=ImageFeature(), n=Value("int64")))
            (value,) = rows.cast_column("image", feature)["image"]
            assert np.array_equal(pixels(value)[0], rgb(GREY))


def test_images_of_a_grey_model_stay_grey_to_the_bit():
    (image,) = as_images([Image.fromarray(GREY.astype(np.uint8))], "image", 0, None, "L")
    assert image.mode == "L" and np.array_equal(np.asarray(image), GREY.astype(np.uint8))
