"""A stream gives the rows that a dataset of the same rows gives, as a stream, and says when it cannot."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset, load_dataset, load_from_disk
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from sage_hf import SageConfig, SageError, SageSelector, Selection, StreamSelection

from ..cases import image_rows, llama, pad_tokens, token_rows, vit

SMALL = {"strategy": "agreement", "sketch_size": 8, "batch_size": 5, "shard_size": 8}
BUDGETS = {
    "fraction": {"fraction": 0.3},
    "number": {"num_examples": 9},
    "by lot": {"fraction": 0.3, "strategy": "random"},
    "a number by lot": {"num_examples": 12, "strategy": "random"},
    "equal": {"num_examples": 11, "balance": "equal"},
    "no balance": {"fraction": 0.2, "balance": "none"},
    "one group": {"fraction": 0.2, "group_by": None},
    "the default": {"fraction": 0.3, "strategy": "auto"},
    "a number by default": {"num_examples": 9, "strategy": "auto"},
    "the default in one group": {"fraction": 0.2, "strategy": "auto", "group_by": None},
    "coverage": {"fraction": 0.3, "strategy": "coverage"},
    "no gate": {"fraction": 0.3, "strategy": "coverage", "gate": None},
    "a gate": {"fraction": 0.3, "gate": 0.2},
    "loss": {"fraction": 0.3, "strategy": "small_loss"},
    "error": {"num_examples": 11, "strategy": "el2n", "balance": "equal"},
    "length": {"fraction": 0.2, "strategy": "gradient_norm", "balance": "none"},
    "centres": {"fraction": 0.3, "strategy": "k_center"},
    "without a file": {"fraction": 0.3, "strategy": "auto", "cache_gradients": None},
}


def select(rows, model=None, **settings):
    collator = pad_tokens if "input_ids" in (rows.column_names or ()) else None
    budget = {} if "num_examples" in settings else {"fraction": 0.3}
    config = SageConfig(**{**budget, **SMALL, **settings})
    selector = SageSelector(model or vit(), data_collator=collator, config=config, progress=False)
    return selector, selector.select(rows)


@pytest.fixture
def parquet(tmp_path):
    """Five files of 14 rows each."""
    rows = image_rows(70)
    for number in range(5):
        rows.shard(5, number, contiguous=True).to_parquet(tmp_path / f"{number}.parquet")
    return rows, load_dataset("parquet", data_files=str(tmp_path / "*.parquet"), split="train", streaming=True)


@pytest.mark.parametrize("settings", BUDGETS.values(), ids=BUDGETS.keys())
def test_files_of_unknown_length_give_what_the_dataset_gives_to_the_bit(parquet, settings):
    rows, stream = parquet
    one, whole = select(rows, **settings)
    other, streamed = select(stream, **settings)
    assert isinstance(streamed, StreamSelection)
    assert torch.equal(other.sketch.sketch, one.sketch.sketch)
    assert torch.equal(other.directions, one.directions)
    assert streamed.indices.tolist() == whole.indices.tolist()
    assert np.array_equal(streamed.kept_scores, whole.kept_scores)
    assert streamed.group_names == whole.group_names
    times = {
        "source",
        "fit_seconds",
        "check_seconds",
        "score_seconds",
        "choose_seconds",
        "source_digest",
        "groups",
        "mean_score",
        "mean_score_kept",
        "mean_loss",
        "meaning",
    }
    mine, theirs = streamed.stats.to_dict(), whole.stats.to_dict()
    assert {k: v for k, v in mine.items() if k not in times} == {k: v for k, v in theirs.items() if k not in times}
    for name in ("mean_score", "mean_score_kept", "mean_loss"):
        assert mine[name] == pytest.approx(theirs[name], abs=1e-6)
    # Classes that rows are not grouped by are read of a dataset alone.
    known = {name: value for name, value in mine["meaning"].items() if value is not None}
    assert known == pytest.approx({name: theirs["meaning"][name] for name in known}, abs=1e-6)
    for one, other in zip(mine["groups"], theirs["groups"], strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_the_kept_rows_are_a_stream_with_their_scores(parquet):
    rows, stream = parquet
    selection = select(stream)[1]
    kept = list(selection.dataset)
    assert isinstance(selection.dataset, IterableDataset)
    assert len(kept) == len(selection) == 21
    for row, number, score in zip(kept, selection.indices.tolist(), selection.kept_scores, strict=True):
        assert row["pixel_values"] == rows[number]["pixel_values"]
        assert row["sage_score"] == pytest.approx(float(score))
    assert selection.dataset.features["sage_score"].dtype == "float32"
    assert selection.dataset.features["label"] == stream.features["label"]
    assert list(selection.dataset) == kept  # it can be read again
    assert [row["label"] for row in selection.dataset.map(lambda row: row).take(3)] == [
        row["label"] for row in kept[:3]
    ]


def test_nodes_and_one_worker_share_the_kept_rows_without_doubles(parquet):
    selection = select(parquet[1])[1]
    halves = [list(split_dataset_by_node(selection.dataset, rank=rank, world_size=2)) for rank in range(2)]
    scores = sorted(row["sage_score"] for half in halves for row in half)
    assert scores == sorted(row["sage_score"] for row in selection.dataset)
    loaded = DataLoader(selection.dataset.select_columns("sage_score"), batch_size=None, num_workers=1)
    assert sorted(float(row["sage_score"]) for row in loaded) == pytest.approx(scores)


def test_several_workers_that_would_mix_up_the_rows_are_refused(parquet):
    loader = DataLoader(select(parquet[1])[1].dataset, batch_size=None, num_workers=2)
    with pytest.raises(Exception, match="2 workers would each read a part"):
        list(loader)


def test_tokens_and_a_map_whose_features_nobody_knows():
    rows = token_rows(61)
    whole = select(rows, llama(), group_by=None)[1]
    stream = rows.to_iterable_dataset(num_shards=4).map(lambda row: row)
    assert stream.features is None
    collator = {"data_collator": pad_tokens, "config": SageConfig(fraction=0.3, group_by=None, **SMALL)}
    streamed = SageSelector(llama(), **collator).select(stream)
    assert streamed.indices.tolist() == whole.indices.tolist()
    assert len(list(streamed.dataset)) == len(whole)


def test_groups_of_a_stream_without_features_are_found():
    rows = image_rows(40)
    whole = select(rows)[1]
    stream = IterableDataset.from_generator(lambda: iter(rows.with_format(None)))
    streamed = select(stream)[1]
    assert streamed.indices.tolist() == whole.indices.tolist()
    assert streamed.stats.group_by == "label"


def test_a_fitted_stream_scores_by_map():
    rows = image_rows(40)
    selector, selection = select(rows.to_iterable_dataset(num_shards=2))
    scored = list(rows.to_iterable_dataset().map(selector.score, batched=True, batch_size=7))
    assert [scored[number]["sage_score"] for number in selection.indices] == pytest.approx(
        selection.kept_scores.tolist(), abs=1e-5
    )


def test_rows_without_a_score_are_counted_and_named():
    def broken(row, number):
        return {"pixel_values": torch.full((1, 8, 8), float("nan")).tolist()} if number in (3, 33) else {}

    stream = image_rows(40).map(broken, with_indices=True).to_iterable_dataset()
    selection = select(stream, num_examples=40)[1]
    assert selection.set_aside == {3: "gradient or loss not finite", 33: "gradient or loss not finite"}
    assert selection.stats.set_aside == 2
    assert len(selection) == 38


def test_the_folder_opens_with_load_from_disk(parquet, tmp_path):
    selection = select(parquet[1])[1]
    folder = selection.save_to_disk(tmp_path / "out")
    saved = load_from_disk(folder)
    assert isinstance(saved, Dataset)
    assert [row["sage_score"] for row in saved] == [row["sage_score"] for row in selection.dataset]
    about = json.loads((folder / "selection.json").read_text())
    assert about["stats"]["rows"] == 70
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    with pytest.raises(SageError, match="selection from a stream"):
        Selection.load_from_disk(folder)
    with pytest.raises(SageError, match="another selection"):
        selection.save_to_disk(folder)
    selection.save_to_disk(folder, overwrite=True)


def test_what_was_saved_comes_back_and_streams_its_rows(parquet, tmp_path):
    selection = select(parquet[1])[1]
    back = StreamSelection.load_from_disk(selection.save_to_disk(tmp_path / "out"))
    for name in ("indices", "kept_scores", "kept_groups"):
        assert np.array_equal(getattr(back, name), getattr(selection, name)), name
    for name in ("group_names", "stats", "config", "set_aside", "group_table"):
        assert getattr(back, name) == getattr(selection, name), name
    assert list(back.dataset) == list(selection.dataset)
    again = StreamSelection.load_from_disk(back.save_to_disk(tmp_path / "again"))
    assert list(again.dataset) == list(selection.dataset)
    SageSelector(vit(), config=SageConfig(fraction=0.5, **SMALL)).select(image_rows(20)).save_to_disk(
        tmp_path / "rows"
    )
    with pytest.raises(SageError, match="from a dataset"):
        StreamSelection.load_from_disk(tmp_path / "rows")
    (tmp_path / "out" / "state.json").unlink()
    with pytest.raises(SageError, match="cannot be read"):
        StreamSelection.load_from_disk(tmp_path / "out")


# ---------------------------------------------------------------------- what cannot be
def exhausted(rows, after):
    """A stream that is empty after it was read so often."""
    reads = []

    def read():
        reads.append(1)
        return iter(rows.with_format(None) if len(reads) <= after else [])

    return IterableDataset.from_generator(read)


def growing(rows):
    """A stream that brings more rows each time."""
    reads = []

    def read():
        reads.append(1)
        return iter(rows.with_format(None).select(range(20 + len(reads))))

    return IterableDataset.from_generator(read)


def test_a_transform_that_draws_makes_the_same_rows_in_every_pass():
    def noisy(row):
        return {"pixel_values": (torch.tensor(row["pixel_values"]) + torch.randn(1)).tolist()}

    stream = image_rows(40).to_iterable_dataset().map(noisy)
    model = vit()
    state = torch.get_rng_state()
    one, other = (select(stream, model)[1] for _ in range(2))
    assert np.array_equal(one.kept_scores, other.kept_scores)
    assert one.indices.tolist() == other.indices.tolist()
    assert torch.equal(torch.get_rng_state(), state)


def shuffled(rows):
    """A stream in another order each time."""
    reads = []

    def read():
        reads.append(1)
        return iter(rows.with_format(None).shuffle(seed=len(reads)))

    return IterableDataset.from_generator(read)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_stream_that_cannot_be_read_again_is_an_error(after):
    # Read for its first row, for the check of the gradients, and in two passes.
    with pytest.raises(SageError, match="same rows each time"):
        select(exhausted(image_rows(24), after))


@pytest.mark.parametrize("stream", [growing, shuffled])
def test_a_stream_that_changes_between_the_passes_is_an_error(stream):
    with pytest.raises(SageError, match="does not give the same rows each time"):
        select(stream(image_rows(60)))


def test_more_groups_than_directions_fit_is_an_error_without_talk_of_another_pass(monkeypatch, caplog):
    monkeypatch.setattr("sage_hf.passes.memory._CONSENSUS_BYTES", 20_000)
    with pytest.raises(SageError, match="groups or more, whose directions do not fit") as caught:
        select(image_rows(40).to_iterable_dataset())
    assert caught.value.where == "group_by"
    assert "third pass" not in caplog.text


def test_a_source_that_has_become_shorter_is_an_error_when_its_rows_are_read():
    rows = image_rows(40)
    selection = select(rows.to_iterable_dataset())[1]
    selection.source = rows.select(range(5)).to_iterable_dataset()
    with pytest.raises(SageError, match="has 5 rows now, and row"):
        list(selection.dataset)


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"consensus": "exact"}, "consensus"),
        ({"cache_gradients": "float32"}, "cache_gradients"),
        ({"fraction": None}, "fraction"),
        ({"num_examples": 41}, "num_examples"),
        ({"group_by": "nothing"}, "group_by"),
    ],
)
def test_what_a_stream_cannot_do_is_refused_by_name(settings, where):
    with pytest.raises(SageError) as caught:
        select(image_rows(40).to_iterable_dataset(), **settings)
    assert where in caught.value.where


def test_a_source_that_lost_rows_is_an_error_of_ours_when_the_rows_are_saved(tmp_path):
    rows = image_rows(30)
    config = SageConfig(strategy="agreement", fraction=0.5, sketch_size=4, batch_size=8, shard_size=8)
    selection = SageSelector(vit(), config=config, progress=False).select(rows.to_iterable_dataset())
    selection.source = rows.select(range(9)).to_iterable_dataset()
    with pytest.raises(SageError, match="The stream has 9 rows now"):
        selection.save_to_disk(tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []
