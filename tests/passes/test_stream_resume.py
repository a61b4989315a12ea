"""A pass over a stream goes on from its last finished shard, and only with the same stream, model and settings."""

import json

import numpy as np
import pytest
import torch

from sage_hf import SageConfig, SageError, SageSelector
from sage_hf.passes.merge_tree import MergeTree, Partial
from sage_hf.passes.stream_resume import StreamCheckpoint
from sage_hf.scoring.sketch import FrequentDirections

from ..cases import image_rows, vit

SMALL = {"strategy": "agreement", "fraction": 0.3, "sketch_size": 8, "batch_size": 5, "shard_size": 8}


def columns(size):
    values = np.arange(size, dtype=np.float32)
    return {"status": np.zeros(size, dtype=np.uint8), "losses": values, "values": -values}


def partial():
    return Partial(FrequentDirections(4, 3))


def node(seed):
    made = partial()
    made.sketch.update(torch.randn(9, 3, generator=torch.Generator().manual_seed(seed)))
    return made


def test_what_is_kept_is_read_back_and_only_the_nodes_of_the_tree_stay(tmp_path):
    tree, whole = MergeTree(), MergeTree()
    for shard in range(5):
        kept = StreamCheckpoint(tmp_path)  # opened anew each time, as after a kill
        assert kept.done == (shard, 8 * shard)
        tree.push(node(shard), shard)
        whole.push(node(shard), shard)
        kept.append(tree, columns(8), [shard + 100], shard + 1)
    again = MergeTree()
    kept = StreamCheckpoint(tmp_path)
    kept.load(again, partial)
    assert [(start, size) for start, size, _ in again.nodes] == [(0, 4), (4, 1)]
    assert torch.equal(again.result().sketch.sketch, whole.result().sketch.sketch)
    assert kept.digests(1, 3) == [101, 102, 103]
    assert kept.columns(16, 8)["losses"].tolist() == list(range(8))
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_what_a_killed_run_wrote_behind_the_state_does_not_count(tmp_path):
    tree = MergeTree()
    tree.push(node(0), 0)
    StreamCheckpoint(tmp_path).append(tree, columns(8), [1], 1)
    for name in ("status", "losses", "values", "digests"):
        with (tmp_path / name).open("ab") as file:
            file.write(b"half of what came next")
    tree.push(node(1), 1)
    StreamCheckpoint(tmp_path).append(tree, columns(3), [2], 2)
    kept = StreamCheckpoint(tmp_path)
    assert kept.done == (2, 11)
    assert kept.columns(8, 3)["values"].tolist() == [0, -1, -2]
    assert kept.digests(0, 2) == [1, 2]
    assert (tmp_path / "losses").stat().st_size == 11 * 4


def test_damaged_files_are_named(tmp_path):
    tree = MergeTree()
    tree.push(node(0), 0)
    StreamCheckpoint(tmp_path).append(tree, columns(8), [1], 1)
    (tmp_path / "losses").write_bytes(b"x")
    with pytest.raises(SageError, match="were finished"):
        StreamCheckpoint(tmp_path).columns(0, 8)
    (tmp_path / "0-1.safetensors").write_bytes(b"x")
    with pytest.raises(SageError, match="cannot be read") as caught:
        StreamCheckpoint(tmp_path).load(MergeTree(), partial)
    assert "0-1.safetensors" in caught.value.where
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(SageError, match="cannot be read"):
        StreamCheckpoint(tmp_path)


# ------------------------------------------------------------------------ selections
def select(folder, rows=None, **settings):
    selector = SageSelector(
        settings.pop("model", None) or vit(),
        config=SageConfig(**{**SMALL, **settings}),
        checkpoint_dir=folder,
        progress=False,
    )
    selection = selector.select((rows or image_rows(70)).to_iterable_dataset())
    return selector._stream.shards_run, selection


def test_a_finished_selection_runs_no_shard_again_whatever_its_budget(tmp_path):
    ran, first = select(tmp_path)
    again, second = select(tmp_path)
    assert (ran, again) == (18, 0)
    assert first.indices.tolist() == second.indices.tolist()
    assert np.array_equal(first.scores, second.scores)
    times = ("check_seconds", "fit_seconds", "score_seconds")
    assert {k: v for k, v in first.stats.items() if k not in times} == {
        k: v for k, v in second.stats.items() if k not in times
    }
    assert select(tmp_path, fraction=0.1, balance="equal")[0] == 0
    other = vit()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert select(tmp_path, model=other)[0] == 18
    assert select(tmp_path, seed=1)[0] == 18


def test_a_longer_stream_or_another_one_is_an_error(tmp_path):
    select(tmp_path)
    rows = image_rows(70)
    other = rows.select([*range(40), *reversed(range(40, 70))])
    with pytest.raises(SageError, match="rows from number 40 on differ"):
        select(tmp_path, other)
    with pytest.raises(SageError, match=r"same rows each time|not that of the run"):
        select(tmp_path, rows.select(range(50)))


def test_a_full_disk_keeps_the_last_good_state(tmp_path, monkeypatch):
    append, appended = StreamCheckpoint._append, []

    def full(self, name, values, at):
        appended.append(name)
        if len(appended) > 22:
            raise OSError(28, "No space left on device")
        return append(self, name, values, at)

    def wrapped(self, name, values, at):
        try:
            return full(self, name, values, at)
        except OSError as error:
            from sage_hf.errors import OutputError

            raise OutputError(f"{error}", where=name, fix="Free some space.") from error

    monkeypatch.setattr(StreamCheckpoint, "_append", wrapped)
    with pytest.raises(SageError, match="No space left"):
        select(tmp_path)
    monkeypatch.undo()
    (state,) = tmp_path.rglob("state.json")
    assert json.loads(state.read_text())["shards"] == 5
    ran, selection = select(tmp_path)
    assert ran == 18 - 5
    assert np.array_equal(selection.scores, select(None)[1].scores)
