"""A stream is read in windows of shards, in order, every row once; groups are numbered as they come."""

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_hf import SageConfig, SageError, SageSelector
from sage_hf.data.encoding import Encoder
from sage_hf.data.encoding.model import ModelFacts
from sage_hf.data.groups import Groups
from sage_hf.data.stream import GrowingGroups, StreamSource, first_row, known_codes, to_disk
from sage_hf.data.windows import Division
from sage_hf.errors import DatasetError

from ..cases import vit


def source(count, shard_size=4, column=None):
    rows = Dataset.from_dict({"x": [float(row) for row in range(count)], "y": [row % 3 for row in range(count)]})
    encoder = Encoder({"x": 0.0}, ModelFacts(frozenset({"x"})))
    return StreamSource(rows.to_iterable_dataset(), encoder, 3, shard_size, column)


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 40), processes=st.integers(1, 4), shard_size=st.integers(1, 9))
def test_the_windows_of_all_processes_hold_every_row_once_in_shards_of_the_stream(count, processes, shard_size):
    seen, numbers = [], []
    for rank in range(processes):
        windows = list(source(count, shard_size, "y").windows(Division(processes, rank)))
        assert sum(window.size for window in windows) == count
        for window in windows:
            assert window.values == [row % 3 for row in range(window.first, window.first + window.size)]
            own = window.parts[rank]
            for rows, batch in window.batches.batches(own):
                assert batch["x"].tolist() == [window.first + row for row in rows.tolist()]
                seen += batch["x"].tolist()
            assert [window.rows_of(unit) for unit in window.units] == ([own] if own else [])
            numbers += [unit.start for unit in window.units]
    assert sorted(seen) == list(range(count))
    assert sorted(numbers) == list(range(-(-count // shard_size)))


@settings(deadline=None, max_examples=30)
@given(
    count=st.integers(1, 40),
    processes=st.integers(1, 4),
    finished=st.sampled_from([[], [(0, 2)], [(0, 4), (4, 1)], [(2, 2)]]),
)
def test_finished_shards_are_read_and_held_by_no_process(count, processes, finished):
    shards = -(-count // 4)
    finished = [node for node in finished if sum(node) <= shards]
    done = {number for start, size in finished for number in range(start, start + size)}
    units = []
    for rank in range(processes):
        windows = list(source(count).windows(Division(processes, rank, finished)))
        assert sum(window.size for window in windows) == count
        units += [unit for window in windows for unit in window.units]
        for window in windows:
            held = [row for rows, _ in window.batches.batches(window.parts[rank]) for row in rows] if rank else []
            assert all(not unit.is_finished for unit in window.units) or (rank == 0 and not window.batches.rows)
            assert len(held) in (0, len(window.parts[rank]))
    assert {n for unit in units if unit.is_finished for n in range(unit.start, unit.start + unit.size)} == done
    assert sorted(unit.start for unit in units if not unit.is_finished) == sorted(set(range(shards)) - done)


def test_groups_are_numbered_as_they_come_and_ordered_by_value_in_the_end():
    groups = GrowingGroups("y", ["zero", "one", "two"])
    assert groups.codes([2, 0, 2], 0).tolist() == [0, 1, 0]
    assert groups.codes([1, 0], 3).tolist() == [2, 1]
    settled, order = groups.settle()
    assert settled.names == ["zero", "one", "two"]
    assert order == [1, 2, 0]
    assert known_codes(settled, [2, 1, 0]).tolist() == [2, 1, 0]


def test_values_that_make_no_group_are_named_by_their_row_in_the_stream():
    with pytest.raises(SageError, match=r"1 nulls, first in rows \[101\]"):
        GrowingGroups("y").codes([1, None], 100)
    with pytest.raises(SageError, match="row 101 holds a float"):
        GrowingGroups("y").codes([1, 1.5], 100)


def test_a_row_without_the_column_is_named():
    stream = IterableDataset.from_generator(lambda: iter([{"x": 1.0, "y": 1}, {"x": 2.0}]))
    encoder = Encoder({"x": 0.0}, ModelFacts(frozenset({"x"})))
    with pytest.raises(SageError, match="Row 1 has no column 'y'"):
        list(StreamSource(stream, encoder, 2, 2, "y").windows(Division()))


def test_a_stream_that_breaks_off_says_at_which_row():
    def broken():
        for number in range(9):
            if number == 7:
                raise ConnectionError("lost")
            yield {"x": float(number)}

    encoder = Encoder({"x": 0.0}, ModelFacts(frozenset({"x"})))
    windows = StreamSource(IterableDataset.from_generator(broken), encoder, 2, 4).windows(Division())
    assert next(windows).size == 4
    with pytest.raises(SageError, match=r"cannot be read on: ConnectionError: lost \[dataset, row 7\]") as caught:
        next(windows)
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_a_group_that_only_the_second_pass_meets_says_that_the_stream_changed():
    with pytest.raises(SageError, match="second pass failed where the first did not"):
        known_codes(Groups.from_values("y", [1, 2]), [3])


def test_an_empty_stream_is_an_error():
    with pytest.raises(SageError, match="no rows"):
        first_row(IterableDataset.from_generator(lambda: iter([])))


def labelled(kind, labels=(0, 1)):
    """A stream of images from a generator, whose labels are of a kind of their own; nothing knows its features."""
    pixels = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    rows = [{"pixel_values": pixels[row], "label": kind(labels[row % 2])} for row in range(24)]
    return IterableDataset.from_generator(lambda: iter(rows))


def select(stream, model=None):
    config = SageConfig(fraction=0.3, shard_size=8)
    return SageSelector(model or vit(2), config=config, progress=False).select(stream)


def test_numpy_and_torch_labels_of_a_generator_are_as_pythons():
    plain = select(labelled(int))
    assert plain.group_names == ["0", "1"]
    for kind in (np.int64, np.uint8, np.array, torch.tensor):
        found = select(labelled(kind))
        assert found.group_names == plain.group_names
        assert found.indices.tolist() == plain.indices.tolist()
        assert (found.scores == plain.scores).all()


def test_numpy_booleans_and_texts_of_a_generator_are_as_pythons():
    for one, other, labels in ((bool, np.bool_, (False, True)), (str, np.str_, ("LABEL_0", "LABEL_1"))):
        plain, found = select(labelled(one, labels)), select(labelled(other, labels))
        assert found.group_names == plain.group_names == [str(label) for label in labels]
        assert found.indices.tolist() == plain.indices.tolist()


@pytest.mark.parametrize("row", [0, 7])
def test_a_null_label_in_a_stream_is_named_by_its_row(row):
    rows = [{"pixel_values": np.zeros((1, 8, 8), np.float32), "label": number % 2} for number in range(12)]
    rows[row]["label"] = None
    with pytest.raises(SageError, match=rf"row(s \[)?.*{row}"):
        select(IterableDataset.from_generator(lambda: iter(rows)))


def broken(at, what):
    """A stream of 40 rows, of which one lacks a column, or cannot be read."""

    def rows():
        for number in range(40):
            if number == at and what == "fails":
                raise OSError("connection lost")
            row = {"pixel_values": np.full((1, 8, 8), number / 40).tolist(), "labels": number % 3}
            yield {name: value for name, value in row.items() if number != at or name != what}

    return IterableDataset.from_generator(rows)


@pytest.mark.parametrize(
    ("what", "at"),  # the first row, in the first batch, the first of a later one, and within it
    [("fails", 0), *((what, at) for what in ("labels", "fails") for at in (5, 16, 20))],
)
def test_a_row_that_cannot_be_read_is_named(at, what):
    config = SageConfig(num_examples=5, shard_size=16, batch_size=8, group_by=None)
    with pytest.raises(DatasetError) as caught:
        SageSelector(vit(), config=config, progress=False).select(broken(at, what))
    assert str(at) == caught.value.where.rpartition("row ")[2]
    assert ("OSError: connection lost" if what == "fails" else "no column 'labels'") in caught.value.what


def test_a_row_that_lacks_what_the_model_takes_is_named():
    config = SageConfig(num_examples=5, shard_size=16, batch_size=8)
    with pytest.raises(DatasetError, match=r"no column 'pixel_values', only \['labels'\] \[.*, row 16\]"):
        SageSelector(vit(), config=config, progress=False).select(broken(16, "pixel_values"))


def test_a_stream_that_breaks_off_on_its_way_to_the_disk_is_no_full_disk(tmp_path):
    with pytest.raises(DatasetError, match=r"OSError: connection lost \[dataset, row 20\]"):
        to_disk(broken(20, "fails"), tmp_path)
