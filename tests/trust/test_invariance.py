"""Selections of the same rows, however they are stored, ordered, batched and shared out."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, concatenate_datasets, load_from_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sage_hf import SageConfig, SageSelector

from ..processes.launch import ROOT, report_of
from .scale import REPORT, cases, some, tried


class Net(nn.Module):
    """A small classifier of vectors."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.hidden, self.norm, self.classifier = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, inputs, labels=None):
        logits = self.classifier(torch.relu(self.norm(self.hidden(inputs))))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def some_rows(count, seed, kind="plain"):
    """Vectors around a centre for each of three classes; a tenth of the labels are wrong."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    inputs = generator.standard_normal((count, 6)) + 2 * np.eye(3, 6)[labels]
    if kind == "copies":  # ties
        inputs[count // 2 :] = inputs[: count - count // 2]
        labels[count // 2 :] = labels[: count - count // 2]
    wrong = generator.random(count) < 0.1
    labels = np.where(wrong, (labels + 1) % 3, labels)
    rows = Dataset.from_dict(
        {"inputs": inputs.astype(np.float32), "label": labels, "name": [f"row {n}" for n in range(count)]}
    )
    return rows.cast_column("label", ClassLabel(names=["a", "b", "c"]))


def select(rows, **changes):
    values = {"fraction": 0.3, "sketch_size": 8, "shard_size": 25, "batch_size": 12, "strategy": "agreement"}
    config = SageConfig(**{**values, **changes})
    return SageSelector(Net(), config=config, progress=False).select(rows)


def hold_same(one, other):
    """Asserts that two selections are the same to the bit."""
    for name in ("scores", "losses"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True), name
    assert one.indices.tolist() == other.indices.tolist()


def hold_set(one, other, tolerance):
    """Asserts that two selections differ in rows alone whose scores are as good as those of the last that is kept."""
    kept, others = set(one.indices.tolist()), set(other.indices.tolist())
    assert len(kept) == len(others)
    for row in kept ^ others:
        group = one.groups == one.groups[row]
        last = one.scores[one.indices[group[one.indices]]].min()
        assert abs(one.scores[row] - last) <= tolerance, (row, one.scores[row], last)


# --------------------------------------------------------------------------------------- how rows are stored
def shuffled_and_back(rows, folder):
    order = np.random.default_rng(1).permutation(len(rows))
    return rows.select(order).select(np.argsort(order))


def from_disk(rows, folder):
    rows.save_to_disk(str(folder / "rows"))
    return load_from_disk(str(folder / "rows"))


def from_disk_into_memory(rows, folder):
    rows.save_to_disk(str(folder / "rows"), num_shards=3)
    return load_from_disk(str(folder / "rows"), keep_in_memory=True)


def from_parquet(rows, folder):
    rows.to_parquet(str(folder / "rows.parquet"))
    return Dataset.from_parquet(str(folder / "rows.parquet"), cache_dir=str(folder))


def joined(rows, folder):
    return concatenate_datasets([rows.select(range(7)), rows.select(range(7, 30)), rows.select(range(30, len(rows)))])


def joined_from_places(rows, folder):
    even, odd = rows.select(range(0, len(rows), 2)), rows.select(range(1, len(rows), 2))
    order = np.argsort(np.concatenate([np.arange(0, len(rows), 2), np.arange(1, len(rows), 2)]))
    return concatenate_datasets([even, odd]).select(order)


def from_shards(rows, folder):
    return concatenate_datasets([rows.shard(5, number, contiguous=True) for number in range(5)])


def part_of_more(rows, folder):
    return concatenate_datasets([rows, rows]).select(range(len(rows), 2 * len(rows)))


def other_columns(rows, folder):
    return rows.select_columns(["name", "label", "inputs"])


def more_columns(rows, folder):
    more = {"lists": [[1, 2]] * len(rows), "texts": ["<b>"] * len(rows), "empty": [None] * len(rows)}
    return concatenate_datasets([Dataset.from_dict(more), rows], axis=1)


def as_torch(rows, folder):
    return rows.with_format("torch")


def as_numpy(rows, folder):
    return rows.with_format("numpy", columns=["label", "inputs"])


def mapped(rows, folder):
    return rows.map(lambda row: {"name": row["name"] + "!"}, cache_file_name=str(folder / "mapped.arrow"))


STORED = [
    *(shuffled_and_back, from_disk, from_disk_into_memory, from_parquet, joined, joined_from_places, from_shards),
    *(part_of_more, other_columns, more_columns, as_torch, as_numpy, mapped),
]


@pytest.mark.parametrize("stored", some(STORED, 5), ids=lambda each: each.__name__)
def test_how_rows_are_stored_changes_no_bit(stored, tmp_path):
    for strategy in some(["agreement", "auto", "random", "k_center"], 1):
        rows = some_rows(75, 3)
        tried()
        hold_same(select(rows, strategy=strategy), select(stored(rows, tmp_path / strategy), strategy=strategy))


@pytest.mark.parametrize("workers", some([1, 2], 1))
def test_workers_change_no_bit(workers):
    rows = some_rows(75, 3)
    hold_same(select(rows, strategy="auto"), select(rows, strategy="auto", num_workers=workers))


@pytest.mark.parametrize("strategy", some(["auto", "agreement", "random", "coverage", "loss"], 2))
def test_a_stream_keeps_the_rows_of_a_dataset(strategy):
    for seed in some(range(4), 1):
        tried()
        rows = some_rows(75, seed)
        whole, stream = select(rows, strategy=strategy), select(rows.to_iterable_dataset(3), strategy=strategy)
        assert np.array_equal(whole.kept_scores, stream.scores)
        assert whole.indices.tolist() == stream.indices.tolist()


@pytest.mark.parametrize("cache", ["auto", None])
def test_gradients_from_a_file_are_those_of_a_second_forward_pass(cache):
    rows = some_rows(75, 3)
    hold_same(select(rows, cache_gradients=cache), select(rows, cache_gradients="auto"))


# ------------------------------------------------------------------------------------------- how rows are batched
ROUNDING = 2e-5


@settings(max_examples=cases(2, 40))
@given(st.integers(0, 99), st.integers(1, 100), st.sampled_from(["plain", "copies"]))
def test_the_batch_size_changes_scores_by_rounding_alone_and_no_row_that_is_not_on_the_edge(seed, batch, kind):
    tried()
    rows = some_rows(60, seed, kind)
    one, other = select(rows), select(rows, batch_size=batch)
    assert np.abs(one.scores - other.scores).max() <= ROUNDING
    hold_set(one, other, 2 * ROUNDING)


# ------------------------------------------------------------------------------------------- how rows are ordered
def in_order(selection, order):
    """The scores of the rows as they were before, and the rows kept by their numbers then."""
    scores = np.empty_like(selection.scores)
    scores[order] = selection.scores
    return scores, {int(order[row]) for row in selection.indices}


@settings(max_examples=cases(2, 40))
@given(st.integers(0, 99), st.integers(0, 99))
def test_the_order_of_rows_changes_nothing_where_the_sketch_loses_nothing(seed, shuffle):
    """l is no less than D here, so that the sketch is exact whatever comes first."""
    tried()
    rows, order = some_rows(60, seed), np.random.default_rng(shuffle).permutation(60)
    lossless = {"sketch_size": 128, "consensus": "exact"}
    one, other = select(rows, **lossless), select(rows.select(order), **lossless)
    scores, kept = in_order(other, order)
    assert np.abs(one.scores - scores).max() <= 10 * ROUNDING
    for row in set(one.indices.tolist()) ^ kept:
        last = one.scores[one.indices[one.groups[one.indices] == one.groups[row]]].min()
        assert abs(one.scores[row] - last) <= 20 * ROUNDING


def moved(seed, **changes):
    """How far another order of 400 rows moves scores: the mean, the rank correlation, and the share kept in common."""
    rows, order = some_rows(400, seed), np.random.default_rng(seed + 1000).permutation(400)
    changes |= {"batch_size": 50, "shard_size": 50}
    one, other = select(rows, **changes), select(rows.select(order), **changes)
    scores, kept = in_order(other, order)
    ranks = [np.argsort(np.argsort(each)) for each in (one.scores, scores)]
    common = len(kept & set(one.indices.tolist())) / len(kept)
    return float(np.abs(one.scores - scores).mean()), float(np.corrcoef(*ranks)[0, 1]), common


@pytest.mark.parametrize("size", some([64, 16, 4], 1))
def test_another_order_moves_scores_of_a_sketch_that_loses_something_by_little(size):
    found = []
    for seed in some(range(5), 1):
        tried()
        found.append(moved(seed, sketch_size=size))
    difference, correlation, common = (float(np.mean(each)) for each in zip(*found, strict=True))
    print(f"l = {size}: scores differ by {difference:.2g}, rank correlation {correlation:.4f}, kept {common:.1%}")
    assert difference < {64: 0.002, 16: 0.02, 4: 0.1}[size]
    assert common > {64: 0.95, 16: 0.8, 4: 0.6}[size]


# ------------------------------------------------------------------------------------------- how rows are shared out
@pytest.mark.skipif(not REPORT, reason="starts processes: by make trust")
@pytest.mark.parametrize("count", [3])
def test_any_number_of_processes_gives_the_bits_of_one(count, tmp_path):
    script = ROOT / "tests" / "processes" / "select_shared.py"
    alone, shared = report_of(script, 1, tmp_path / "one"), report_of(script, count, tmp_path / "more")
    for name, each in alone.items():
        if isinstance(each, dict):
            tried()
            assert shared[name] == each, name
