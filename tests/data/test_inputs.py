import pytest
import torch

from sage_hf.data.inputs import INPUT_WIDTH
from sage_hf.data.inputs import input_vectors as vectors_of

LENGTHS = (3, 7, 5)


def input_vectors(batch):
    return vectors_of(batch, len(next(iter(batch.values()))))


def tokens(ids, mask):
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 0])}


def text_batch(filler=0):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 30000, (3, 7), generator=generator)
    mask = torch.zeros(3, 7, dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        mask[row, :length] = 1
    return tokens(ids.masked_fill(mask == 0, filler), mask)


BATCHES = {
    "text": text_batch,
    "choices": lambda: {"input_ids": torch.arange(42).reshape(3, 2, 7), "attention_mask": torch.ones(3, 2, 7)},
    "images": lambda: {"pixel_values": torch.randn(3, 3, 224, 224)},
    "small images": lambda: {"pixel_values": torch.randn(3, 1, 8, 8)},
    "videos": lambda: {"pixel_values": torch.randn(3, 4, 3, 32, 32)},
    "spectra": lambda: {"input_features": torch.randn(3, 80, 300)},
    "sound": lambda: {"input_values": torch.randn(3, 4000), "attention_mask": torch.ones(3, 4000, dtype=torch.long)},
    "sequences": lambda: {"hidden": torch.randn(3, 7, 384), "attention_mask": text_batch()["attention_mask"]},
    "numbers": lambda: {"numbers": torch.randn(3, 30)},
    "many numbers": lambda: {"numbers": torch.randn(3, 5000)},
    "half": lambda: {"numbers": torch.randn(3, 30).half()},
    "text and images": lambda: {**text_batch(), "pixel_values": torch.randn(3, 3, 64, 64)},
    "labels alone": lambda: {"labels": torch.tensor([0, 1, 0])},
}


@pytest.mark.parametrize("kind", BATCHES)
def test_a_rows_vector_is_short_finite_and_the_same_alone(kind):
    batch = BATCHES[kind]()
    found = input_vectors(batch)
    assert found.shape[0] == 3 and 1 <= found.shape[1] <= INPUT_WIDTH
    assert found.dtype == torch.float32 and found.isfinite().all()
    for row in range(3):
        alone = input_vectors({name: value[row : row + 1] for name, value in batch.items()})
        assert torch.allclose(alone[0], found[row], atol=1e-6)


@pytest.mark.parametrize("kind", ["text", "sound", "sequences"])
def test_padding_changes_nothing(kind):
    batch = BATCHES[kind]()
    if kind == "text":
        padded = tokens(
            *(torch.cat([batch[name], torch.zeros(3, 4, dtype=torch.long)], 1) for name in list(batch)[:2])
        )
    else:
        name = next(iter(batch))
        extra = torch.full((3, 6, *batch[name].shape[2:]), 9.0)
        padded = {
            name: torch.cat([batch[name], extra], 1),
            "attention_mask": torch.cat([batch["attention_mask"], torch.zeros(3, 6, dtype=torch.long)], 1),
        }
    assert torch.allclose(input_vectors(padded), input_vectors(batch), atol=1e-6)
    assert torch.equal(input_vectors(text_batch(filler=77)), input_vectors(text_batch()))


def test_rows_of_other_words_are_other_vectors_and_labels_do_not_count():
    batch = text_batch()
    found = input_vectors(batch)
    assert not torch.allclose(found[0], found[1])
    assert torch.equal(input_vectors({**batch, "labels": torch.tensor([5, 5, 5])}), found)
    assert torch.equal(input_vectors({**batch, "token_type_ids": torch.ones(3, 7, dtype=torch.long)}), found)


def test_numbers_that_are_not_finite_become_zeros():
    assert input_vectors({"numbers": torch.tensor([[1.0, torch.nan, torch.inf]])}).tolist() == [[1.0, 0.0, 0.0]]


def test_tokens_spread_over_all_buckets():
    ids = torch.arange(1, 20001).reshape(1, -1)
    counts = input_vectors({"input_ids": ids})
    assert (counts != 0).float().mean() > 0.9
    one_each = input_vectors({"input_ids": torch.arange(1, 2001)[:, None]})
    assert (one_each.abs() > 0).any(0).float().mean() > 0.9
    assert abs(one_each.sign().sum().item()) < 300


def test_what_has_no_row_axis_is_no_input():
    numbers = torch.randn(3, 30)
    found = vectors_of({"numbers": numbers, "patches": torch.randn(40, 30), "grid": torch.ones(3)}, 3)
    assert torch.equal(found, numbers)
    assert vectors_of({"patches": torch.randn(40, 30)}, 3).tolist() == [[0.0]] * 3


def test_boxes_of_padding_do_not_count_and_what_is_to_be_written_is_no_input():
    batch = text_batch()
    boxes = torch.randint(0, 1000, (3, 7, 4), generator=torch.Generator().manual_seed(1))
    found = input_vectors({**batch, "bbox": boxes})
    other = boxes.masked_fill(batch["attention_mask"][..., None] == 0, 999)
    assert torch.equal(input_vectors({**batch, "bbox": other}), found)
    assert torch.equal(
        input_vectors({**batch, "decoder_input_ids": torch.ones(3, 9, dtype=torch.long)}), input_vectors(batch)
    )
