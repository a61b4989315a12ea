"""What a pass has finished, on disk: the work is divided wholly, and any kill leaves a whole state."""

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sage_hf import Consensus, FrequentDirections, SageConfig, SageError, SageSelector
from sage_hf.data.windows import divide
from sage_hf.passes.merge_tree import Partial
from sage_hf.passes.resume import FinishedNodes
from sage_hf.passes.run import Passes
from sage_hf.utils.files import whole_file

from ..cases import image_rows, vit


def nodes_of(total, drawn):
    """Disjoint aligned nodes within `total` shards."""
    nodes, start = [], 0
    for level, skip in drawn:
        start += skip
        while start % 2**level:
            start += 1
        if start + 2**level > total:
            break
        nodes.append((start, 2**level))
        start += 2**level
    return nodes


@given(st.integers(1, 70), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=9), st.integers(1, 9))
def test_the_work_is_divided_wholly_evenly_and_in_order(total, drawn, processes):
    finished = nodes_of(total, drawn)
    shares = divide(total, finished, processes)
    units = [unit for share in shares for unit in share]
    assert len(shares) == processes
    assert [number for unit in units for number in range(unit.start, unit.start + unit.size)] == list(range(total))
    assert [(unit.start, unit.size) for unit in units if unit.is_finished] == finished
    missing = [sum(not unit.is_finished for unit in share) for share in shares]
    assert max(missing) - min(missing) <= 1


def partial(seed):
    rows = torch.randn(9, 5, generator=torch.Generator().manual_seed(seed))
    made = Partial(FrequentDirections(3), Consensus(2, 5))
    made.sketch.update(rows)
    made.consensus.update(rows, torch.arange(9) % 2)
    made.compact()
    return made


def test_a_node_comes_back_as_it_was(tmp_path):
    nodes = FinishedNodes(tmp_path)
    columns = {"status": np.arange(4, dtype=np.uint8), "losses": np.full(4, np.nan, np.float32)}
    nodes.write((4, 2, partial(0)), columns, [7, 2**59])
    back = Partial(FrequentDirections(3), Consensus(2, 5))
    nodes.read(4, 2, back)
    found = nodes.columns(4, 2)
    assert nodes.find() == [(4, 2)]
    assert nodes.digests(4, 2) == [7, 2**59]
    assert nodes.columns(4, 2, 1, 99)["status"].tolist() == [1, 2, 3]
    for name, value in partial(0).state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name
    for name, values in columns.items():
        assert np.array_equal(found[name], values, equal_nan=name == "losses")


def test_a_node_takes_the_place_of_those_in_it(tmp_path):
    nodes = FinishedNodes(tmp_path)
    for start, size in ((0, 1), (1, 1), (2, 2), (4, 1)):
        nodes.write((start, size, partial(start)), {})
    assert nodes.find() == [(0, 1), (1, 1), (2, 2), (4, 1)]
    nodes.write((0, 4, partial(9)), {})
    assert nodes.find() == [(0, 4), (4, 1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-4.safetensors", "4-1.safetensors"]


def test_a_node_takes_over_the_columns_and_digests_of_those_in_it(tmp_path):
    nodes = FinishedNodes(tmp_path)
    for start, size, rows in ((0, 1, [0, 1]), (0, 2, [2, 3]), (2, 1, [4, 5]), (0, 4, [6])):
        nodes.write((start, size, partial(0)), {"losses": np.array(rows, np.float32)}, [100 + rows[0]])
    assert nodes.find() == [(0, 4)]
    assert nodes.columns(0, 4)["losses"].tolist() == list(range(7))
    assert nodes.digests(0, 4) == [100, 102, 104, 106]


def test_of_nodes_that_a_kill_left_both_the_larger_counts(tmp_path):
    nodes = FinishedNodes(tmp_path)
    nodes.write((0, 4, partial(0)), {})
    for start, size in ((1, 1), (2, 2), (4, 1)):
        nodes.write((start, size, partial(0)), {})
    assert nodes.find() == [(0, 4), (4, 1)]


def test_a_full_disk_leaves_the_last_good_state(tmp_path, monkeypatch):
    nodes = FinishedNodes(tmp_path)
    nodes.write((0, 1, partial(0)), {})
    before = (tmp_path / "0-1.safetensors").read_bytes()

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sage_hf.passes.resume.save_file", full)
    for start, size in ((0, 1), (0, 2)):
        with pytest.raises(SageError, match="No space left") as caught:
            nodes.write((start, size, partial(1)), {})
        assert "finished shards are kept" in caught.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["0-1.safetensors"]
    assert (tmp_path / "0-1.safetensors").read_bytes() == before


def test_a_broken_node_is_named(tmp_path):
    (tmp_path / "0-1.safetensors").write_bytes(b"nonsense")
    with pytest.raises(SageError, match="cannot be read") as caught:
        FinishedNodes(tmp_path).read(0, 1, partial(0))
    assert caught.value.where.endswith("0-1.safetensors")


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "folder" / "file"
    with contextlib.suppress(KeyboardInterrupt), whole_file(path, "") as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []
    with whole_file(path, "") as part:
        part.write_text("whole")
    assert path.read_text() == "whole"


# ------------------------------------------------------- a selection that goes on
class Killed(BaseException):
    """What a SIGKILL looks like to the files: nothing is caught, nothing is cleaned up."""


def select(folder, kill_at=None, monkeypatch=None, **changes):
    settings = {
        "strategy": "agreement",
        "fraction": 0.3,
        "sketch_size": 8,
        "batch_size": 5,
        "shard_size": 8,
        **changes,
    }
    selector = SageSelector(vit(), config=SageConfig(**settings), resume_dir=folder)
    run, shards = Passes.run_shard, []

    def counted(self, *given):
        if kill_at is not None and len(shards) == kill_at:
            raise Killed
        shards.append(1)
        return run(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(Passes, "run_shard", counted)
        try:
            return selector.select(image_rows(70)), len(shards)
        except Killed:
            return None, len(shards)


@pytest.mark.parametrize("changes", [{}, {"consensus": "exact"}, {"cache_gradients": None}], ids=str)
def test_a_selection_goes_on_from_its_last_finished_shard(tmp_path, monkeypatch, changes):
    whole, total = select(None, monkeypatch=monkeypatch, **changes)
    assert total == 18  # nine shards, two passes
    for kill_at in (1, 4, 8, 9, 13, 17):
        folder = tmp_path / str(kill_at)
        assert select(folder, kill_at, monkeypatch, **changes) == (None, kill_at)
        again, ran = select(folder, None, monkeypatch, **changes)
        assert ran == total - kill_at
        assert np.array_equal(again.scores, whole.scores)
        assert np.array_equal(again.losses, whole.losses)
        assert np.array_equal(again.indices, whole.indices)
        assert again.stats.energy == whole.stats.energy
        assert again.stats.error_bound == whole.stats.error_bound
    done, ran = select(folder, None, monkeypatch, **changes)
    assert ran == 0
    assert np.array_equal(done.scores, whole.scores)


def test_a_selection_that_keeps_sketched_gradients_goes_on_with_those_that_it_kept(tmp_path, monkeypatch):
    whole, total = select(None, monkeypatch=monkeypatch, strategy="auto")
    assert total == 18  # nine shards, twice
    for kill_at in (4, 13, 17):
        folder = tmp_path / str(kill_at)
        assert select(folder, kill_at, monkeypatch, strategy="auto") == (None, kill_at)
        again, ran = select(folder, None, monkeypatch, strategy="auto")
        assert ran == total - kill_at
        assert np.array_equal(again.scores, whole.scores)
        assert np.array_equal(again.indices, whole.indices)


def test_other_settings_start_again_and_other_budgets_do_not(tmp_path, monkeypatch):
    select(tmp_path, None, monkeypatch)
    assert select(tmp_path, None, monkeypatch, fraction=0.1, strategy="random")[1] == 0
    for change in ({"sketch_size": 6}, {"consensus": "exact"}, {"group_by": None}, {"seed": 1}, {"shard_size": 16}):
        assert select(tmp_path, None, monkeypatch, **change)[1] > 0


@pytest.mark.parametrize("harm", ["gone", "cut", "empty", "of another shape", "changed"])
@pytest.mark.parametrize(
    "changes", [{"consensus": "exact"}, {"group_by": "cluster"}, {"strategy": "coverage"}], ids=str
)
def test_vectors_of_finished_shards_that_are_gone_or_damaged_are_made_again(
    tmp_path, monkeypatch, caplog, harm, changes
):
    whole, _ = select(tmp_path, None, monkeypatch, **changes)
    (path,) = tmp_path.rglob("*.npy")
    match harm:
        case "gone":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:-300])
        case "empty":
            path.write_bytes(b"")
        case "changed":
            path.write_bytes(path.read_bytes()[:-9] + b"\0" + path.read_bytes()[-8:])
        case "of another shape":
            np.save(path, np.zeros((3, 9), np.float32))
    again, ran = select(tmp_path, None, monkeypatch, **changes)
    assert 0 < ran <= 18
    assert np.array_equal(again.scores, whole.scores) and np.array_equal(again.indices, whole.indices)
    assert sum(str(path) in line for line in caplog.messages) == 1
    assert select(tmp_path, None, monkeypatch, **changes)[1] == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"strategy": "coverage"}, {"strategy": "coverage", "spectrum_power": 0.0}),
        ({"consensus": "exact"}, {"consensus": "exact", "spectrum_power": 0.0}),
        ({}, {"spectrum_power": 0.25}),
    ],
    ids=str,
)
def test_another_power_of_the_spectrum_starts_again(tmp_path, monkeypatch, first, second):
    select(tmp_path, None, monkeypatch, **first)
    found, _ = select(tmp_path, None, monkeypatch, **second)
    wanted, _ = select(None, None, monkeypatch, **second)
    assert np.array_equal(found.scores, wanted.scores)
    assert np.array_equal(found.indices, wanted.indices)


def test_another_target_is_never_scored_from_the_files_of_the_first(tmp_path):
    config = SageConfig(fraction=0.3, sketch_size=8, shard_size=16)

    def towards(seed, folder):
        selector = SageSelector(vit(), config=config, resume_dir=folder, progress=False)
        return selector.select(image_rows(50), target=image_rows(12, seed=seed)).scores

    towards(1, tmp_path)
    assert np.array_equal(towards(2, tmp_path), towards(2, None))
