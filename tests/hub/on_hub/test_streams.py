"""A stream from the Hub gives the rows of the dataset, and what was kept of it goes to the Hub with its story."""

import numpy as np
import pytest
from datasets import DatasetDict, load_dataset
from huggingface_hub import DatasetCard

from sage_hf import Selection, StreamSelection
from sage_hf.errors import ConfigError, HubError, OutputError

from ...cases import image_rows
from .conftest import choose


@pytest.fixture
def stream(hub):
    splits = DatasetDict({"train": image_rows(70), "test": image_rows(9, seed=2)})
    splits.push_to_hub("me/rows", num_shards={"train": 3, "test": 1})
    held = DatasetCard(hub.files("me/rows")["README.md"].decode())
    held.data.license = "mit"
    held.push_to_hub("me/rows")
    return load_dataset("me/rows", split="train", streaming=True)


def test_a_stream_of_several_files_gives_the_rows_of_the_dataset(hub, stream):
    assert stream.num_shards == 3
    selection, whole = choose(stream), choose(image_rows(70))
    assert selection.indices.tolist() == whole.indices.tolist()
    assert selection.scores.tolist() == whole.scores[whole.indices].tolist()


def test_what_was_kept_of_a_stream_is_pushed_with_all_splits_and_a_card(hub, stream):
    selection, whole = choose(stream), choose(image_rows(70))
    selection.push_to_hub("me/kept")
    back = load_dataset("me/kept")
    assert set(back) == {"train", "test"}
    assert back["train"]["label"][:] == whole.dataset["label"][:]
    assert back["train"]["sage_score"][:] == whole.dataset["sage_score"][:]
    assert back["test"]["sage_score"][:] == [None] * 9
    text = hub.files("me/kept")["README.md"].decode()
    commit = hub.repos["dataset", "me/rows"].sha("main")
    for told in ("21 of the 70 rows of [me/rows]", f"commit `{commit}`", "source_datasets:\n- me/rows"):
        assert told in text, told
    # There are no scores of the other rows to choose from.
    assert "Selection.from_hub" not in text
    with pytest.raises(OutputError, match="stream"):
        Selection.from_hub("me/kept")


def test_a_saved_selection_of_a_stream_is_pushed_as_the_selection_itself(hub, stream, tmp_path):
    selection = choose(stream)
    selection.save_to_disk(tmp_path / "kept")
    StreamSelection.load_from_disk(tmp_path / "kept").push_to_hub("me/saved")
    selection.push_to_hub("me/kept")
    one, other = load_dataset("me/saved", split="train"), load_dataset("me/kept", split="train")
    assert one["sage_score"][:] == other["sage_score"][:]
    assert np.array_equal(one["pixel_values"], other["pixel_values"])


def test_scores_alone_of_a_stream_are_refused(hub, stream):
    with pytest.raises(ConfigError, match="no scores of the rows that were not kept"):
        choose(stream).push_to_hub("me/kept", scores_only=True)
    assert ("dataset", "me/kept") not in hub.repos


def test_a_stream_of_another_repository_is_other_data(hub, stream):
    choose(stream).push_to_hub("me/kept")
    choose(stream, fraction=0.5).push_to_hub("me/kept")
    assert len(load_dataset("me/kept", split="train")) == 35
    with pytest.raises(HubError, match="other data"):
        choose(image_rows(40).to_iterable_dataset()).push_to_hub("me/kept")
