import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache

from sage_hf.errors import BatchAxisError
from sage_hf.gradients.batch_axis import batch_rows, is_uneven_run, rows_of


def boxes(count):
    return {"class_labels": torch.zeros(count, dtype=torch.long), "boxes": torch.rand(count, 4)}


def test_lists_and_tuples_have_one_entry_a_row():
    batch = {
        "pixel_values": torch.rand(3, 2, 2),
        "labels": [boxes(1), boxes(5), boxes(0)],
        "mask_labels": tuple(torch.rand(count, 2, 2) for count in (1, 5, 0)),
        "interpolate": True,
        "names": None,
    }
    assert batch_rows(batch) == 3
    cut = rows_of(batch, slice(1, 2))
    assert cut["labels"] == [batch["labels"][1]]
    assert cut["mask_labels"] == (batch["mask_labels"][1],)
    assert cut["pixel_values"].shape == (1, 2, 2)
    assert (cut["interpolate"], cut["names"]) == (True, None)
    assert rows_of(batch, [2, 0, 2])["labels"] == [batch["labels"][index] for index in (2, 0, 2)]


@pytest.mark.parametrize(
    "value", [{"boxes": torch.rand(3, 4)}, DynamicCache(), {1, 2, 3}], ids=["dict", "cache", "set"]
)
def test_other_containers_are_refused_by_name(value):
    with pytest.raises(BatchAxisError, match=f"entry 'odd' of the batch is a {type(value).__name__}"):
        batch_rows({"x": torch.rand(3, 4), "odd": value})


def test_a_list_of_another_length_is_refused():
    with pytest.raises(BatchAxisError, match=r"do not share a first axis: \{'x': 3, 'labels': 2\}"):
        batch_rows({"x": torch.rand(3, 4), "labels": [boxes(1), boxes(2)]})


# ------------------------------------------------------------------ runs of patches
IMAGE = 9


def run_of_images(sizes, merge=2):
    """A batch whose row i has images of these (height, width) in patches, as the processor of Qwen2-VL writes it."""
    grids = [torch.tensor([1, *size]) for row in sizes for size in row]
    counts = [int(grid.prod()) for grid in grids]
    texts = [
        [3, *(word for height, width in row for word in (*[IMAGE] * (height * width // merge**2), 3))] for row in sizes
    ]
    ids = torch.tensor([[*text, *[0] * (max(map(len, texts)) - len(text))] for text in texts])
    return {
        "input_ids": ids,
        "labels": ids,
        "pixel_values": torch.arange(sum(counts))[:, None].float(),
        "image_grid_thw": torch.stack(grids),
    }


side = st.sampled_from([2, 4, 6])


@given(st.lists(st.lists(st.tuples(side, side), max_size=3), min_size=2, max_size=4).filter(any), st.randoms())
def test_images_in_one_run_go_with_the_row_that_has_their_tokens_or_are_refused(sizes, random):
    batch = run_of_images(sizes)
    assert batch_rows(batch) == len(sizes)
    images = [(row, size) for row, own in enumerate(sizes) for size in own]
    ends = torch.tensor([height * width for _, (height, width) in images]).cumsum(0).tolist()
    row = random.randrange(len(sizes))
    try:
        cut = rows_of(batch, slice(row, row + 1))
    except BatchAxisError:
        assert len(images) < len(sizes) or len(sizes) < 4  # other words of a few short rows may fit as well
        return
    own = [number for number, (other, _) in enumerate(images) if other == row]
    if not own:
        assert cut["pixel_values"] is cut["image_grid_thw"] is None
        return
    start = ends[own[0]] - images[own[0]][1][0] * images[own[0]][1][1]
    assert cut["pixel_values"].flatten().tolist() == list(range(start, ends[own[-1]]))
    assert cut["image_grid_thw"].tolist() == [[1, *images[number][1]] for number in own]


def test_rows_with_as_many_patches_may_share_a_batch_and_others_not():
    assert not is_uneven_run(run_of_images([[(2, 2)], [(2, 2)]]))
    assert is_uneven_run(run_of_images([[(2, 2)], [(2, 4)]]))
    assert is_uneven_run(run_of_images([[(2, 2)], []]))
    assert not is_uneven_run({"x": torch.rand(3, 2)})


def test_images_that_belong_to_no_row_for_sure_are_refused():
    batch = run_of_images([[(2, 2), (2, 2)], [(4, 2)]])
    batch["input_ids"] = torch.full((2, 5), 3)
    with pytest.raises(BatchAxisError, match=r"3 images share one sequence .*which of the 2 rows"):
        rows_of(batch, slice(0, 1))
