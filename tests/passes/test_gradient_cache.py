"""Gradient rows on disk: the same result, no forward pass, and never the rows of something else."""

import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from sage_hf import SageConfig, SageError, SageSelector
from sage_hf.passes import gradient_cache
from sage_hf.passes.extractor import Extracted, halved, restored
from sage_hf.passes.gradient_cache import GradientCache
from sage_hf.passes.run import Passes

from ..cases import image_rows, llama, pad_tokens, token_rows, vit


class Calls:
    """A count outside of the module, whose own attributes scoring puts back."""

    count = 0


class Counted(torch.nn.Module):
    """A model that counts its forward passes, with everything else its own."""

    def __init__(self, model):
        super().__init__()
        self.inner, self.config, self.calls = model, model.config, Calls()

    def forward(self, pixel_values, labels=None):
        self.calls.count += 1
        return self.inner(pixel_values=pixel_values, labels=labels)


def choose(folder, model=None, rows=None, **changes):
    resume_dir = changes.pop("resume_dir", None)
    settings = {
        "strategy": "agreement",
        "fraction": 0.3,
        "sketch_size": 8,
        "batch_size": 5,
        "shard_size": 16,
        **changes,
    }
    rows = rows if rows is not None else image_rows(50)
    collator = pad_tokens if "input_ids" in rows.column_names else None
    selector = SageSelector(
        model if model is not None else vit(),
        data_collator=collator,
        config=SageConfig(**{"cache_gradients": "float32", **settings}),
        cache_dir=folder,
        resume_dir=resume_dir,
        progress=False,
    )
    return selector.select(rows)


def assert_equal(one, other):
    for name in ("indices", "scores", "losses", "status", "groups"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name in ("scores", "losses")), name
    for name in ("energy", "error_bound"):
        assert one.stats[name] == other.stats[name]


@pytest.mark.parametrize("consensus", ["streaming", "exact"])
@pytest.mark.parametrize(("model", "rows"), [(vit, image_rows), (llama, token_rows)], ids=["images", "tokens"])
def test_the_result_is_that_without_a_cache_to_the_bit(tmp_path, model, rows, consensus):
    settings = {"consensus": consensus, "group_by": None}
    plain = choose(tmp_path, model(), rows(), cache_gradients=None, **settings)
    assert not list(tmp_path.iterdir())
    for _ in range(2):
        assert_equal(choose(tmp_path, model(), rows(), **settings, cache_gradients="float16"), plain)


def test_the_second_pass_and_later_selections_cost_no_forward(tmp_path):
    model = Counted(vit())
    choose(tmp_path, model)
    # Four rows alone by autograd, one by hooks and one with another random state, their batch, and the two passes that
    # tell which tensors have rows.
    checked = 4 + 1 + 1 + 1 + 2
    # And a batch that tells whether there are embeddings, which a cache that stays holds, too.
    assert model.calls.count == checked + 1 + 4 + 4 + 4 + 1  # batches of 5 in shards of 16, 16, 16 and 2, once
    model.calls.count = 0
    for change in (
        {"fraction": 0.1},
        {"strategy": "random"},
        {"group_by": None},
        {"balance": "equal"},
        {"sketch_size": 4},
        {"consensus": "exact"},
    ):
        choose(tmp_path, model, **change)
    assert model.calls.count == 0
    choose(tmp_path, model, strategy="auto")
    assert model.calls.count == 1  # a batch that tells how wide embeddings are
    assert len(list(tmp_path.iterdir())) == 1


def another_model():
    model = vit()
    with torch.no_grad():
        model.classifier.bias[0] += 1e-3
    return model


@pytest.mark.parametrize(
    "change",
    [
        {"model": another_model()},
        {"rows": image_rows(50, seed=1)},
        {"rows": image_rows(49)},
        {"target_modules": "head"},
        {"projection": 2},
        {"loss_reduction": "sum"},
        {"batch_size": 4},
        {"shard_size": 32},
        {"seed": 1},
        {"cache_gradients": "float16"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_change_of_what_rows_depend_on_never_reads_old_ones(tmp_path, change):
    choose(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    changed = choose(tmp_path, **change)
    assert len({path.name for path in tmp_path.iterdir()} - before) == 1
    assert_equal(changed, choose(tmp_path / "elsewhere", **change))


def test_half_precision_changes_scores_in_the_third_digit_and_halves_the_disk(tmp_path):
    exact = choose(tmp_path / "full")
    rounded = choose(tmp_path / "half", cache_gradients="float16")
    assert np.abs(exact.scores - rounded.scores).max() < 5e-3
    sizes = {name: sum(path.stat().st_size for path in (tmp_path / name).rglob("*.npy")) for name in ("full", "half")}
    assert sizes["half"] == pytest.approx(sizes["full"] / 2, rel=0.05)
    assert_equal(choose(tmp_path / "half", cache_gradients="float16"), rounded)


@given(st.integers(-30, 30), st.integers(0, 3))
def test_no_row_overflows_or_vanishes_in_half_precision(power, seed):
    rows = torch.randn(4, 33, generator=torch.Generator().manual_seed(seed)) * 10.0**power
    rows[2] = 0
    back = restored(*halved(rows))
    assert back.dtype == torch.float32
    largest = rows.abs().amax(1, keepdim=True)
    assert ((back - rows).abs() <= 2**-11 * largest).all()
    assert torch.equal(restored(*halved(back)), back)


def test_a_shard_that_was_not_finished_is_made_again(tmp_path):
    whole = choose(tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / "rows-000001.safetensors").unlink()
    (folder / "rows-000002.npy").unlink()
    (folder / "rows-000003.123.part").write_bytes(b"half a shard")
    assert_equal(choose(tmp_path), whole)
    assert (folder / "rows-000001.safetensors").exists()
    assert (folder / "rows-000002.npy").exists()


def test_rows_that_are_set_aside_stay_so(tmp_path):
    rows = image_rows(40)
    pixels = np.array(rows["pixel_values"], dtype=np.float32)
    pixels[3] = np.nan
    broken = rows.remove_columns("pixel_values").add_column("pixel_values", pixels.tolist())
    for _ in range(2):
        assert choose(tmp_path, rows=broken).set_aside.keys() == {3}


def test_an_exception_leaves_no_half_shard(tmp_path):
    rows = image_rows(40).to_dict()
    rows["label"][20] = 77
    with pytest.raises(SageError, match="77"):
        choose(tmp_path, rows=Dataset.from_dict(rows), group_by=None)
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["rows-000000.npy", "rows-000000.safetensors"]


def test_a_full_disk_is_said_before_and_while_writing(tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patched:
        patched.setattr("sage_hf.passes.gradient_cache.shutil.disk_usage", lambda _: usage(9, 9, 1000))
        with pytest.raises(SageError, match="are free") as caught:
            choose(tmp_path)
        assert "cache_gradients" in caught.value.where

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    choose(tmp_path / "good", rows=image_rows(16))
    with monkeypatch.context() as patched:
        patched.setattr("sage_hf.passes.gradient_cache.save_file", full)
        with pytest.raises(SageError, match="No space left") as caught:
            choose(tmp_path / "full")
        assert "the next run goes on" in caught.value.fix
    assert not list((tmp_path / "full").rglob("*.part"))


def test_a_broken_file_is_set_aside_and_made_again(tmp_path, caplog):
    whole = choose(tmp_path)
    (folder,) = tmp_path.iterdir()
    path = folder / "rows-000000.npy"
    held = path.read_bytes()
    path.write_bytes(b"nonsense")
    assert_equal(choose(tmp_path), whole)
    assert sum(str(path) in line for line in caplog.messages) == 1
    assert path.with_name("rows-000000.npy.damaged").read_bytes() == b"nonsense"
    assert_equal(choose(tmp_path), whole)
    assert path.read_bytes() == held


def test_of_two_runs_that_write_a_shard_one_does(tmp_path):
    batch = (torch.arange(3), Extracted(torch.ones(3, 4), torch.ones(3), torch.zeros(3, dtype=torch.uint8)))
    first, second = (GradientCache(tmp_path / "rows", "float32") for _ in range(2))
    other = (batch[0], Extracted(2 * batch[1].vectors, batch[1].numbers, batch[1].status))
    list(zip(first.keep(0, range(3), iter([batch])), second.keep(0, range(3), iter([other])), strict=True))
    for cache in (first, second):
        ((rows, read),) = cache.read(0, 0, torch.device("cpu"))
        assert rows.tolist() == [0, 1, 2] and len(read.vectors.unique()) == 1
    assert not list(tmp_path.rglob("*.part"))


def test_a_shard_of_other_rows_is_not_read(tmp_path):
    batch = (torch.arange(3), Extracted(torch.ones(3, 4), torch.ones(3), torch.zeros(3, dtype=torch.uint8)))
    cache = GradientCache(tmp_path / "rows", "float32")
    for number in range(2):
        list(cache.keep(number, range(3), iter([batch])))
    for end in ("npy", "safetensors"):
        (tmp_path / "rows" / f"rows-000000.{end}").replace(tmp_path / "rows" / f"rows-000001.{end}")
    assert cache.holds(1) and not cache.is_whole(1)
    assert not cache.holds(1)


def test_only_known_types_are_taken():
    with pytest.raises(SageError, match="cache_gradients"):
        SageConfig(cache_gradients="int8")


# ------------------------------------------------------------------- the file of a run
RUN = {"cache_gradients": "auto", "strategy": "auto"}


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A folder of its own for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def room(monkeypatch, size):
    """A disk on which a run may write so many bytes of gradient rows."""
    made = GradientCache.of_run.__func__

    def limited(cls, folder, processes, reserved=0):
        cache = made(cls, folder, processes, reserved)
        cache._room = size
        return cache

    monkeypatch.setattr(GradientCache, "of_run", classmethod(limited))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("size", [0, 200_000, 2**40])
def test_a_run_keeps_the_rows_that_fit_and_gives_the_same_whatever_fits(
    tmp_path, monkeypatch, temporary, size, streaming
):
    def of(model):
        rows = image_rows(50)
        return choose(tmp_path, model, rows.to_iterable_dataset() if streaming else rows, **RUN)

    everything = of(Counted(vit()))
    room(monkeypatch, size)
    model = Counted(vit())
    found = of(model)
    assert np.array_equal(found.indices, everything.indices)
    assert np.array_equal(found.kept_scores, everything.kept_scores)
    assert found.stats.energy == everything.stats.energy
    passes = model.calls.count
    room(monkeypatch, 2**40)
    of(once := Counted(vit()))
    shards = {0: 13, 200_000: 13 - 5, 2**40: 0}[size]  # 13 batches in all, 5 in the shards that fit
    assert passes - once.calls.count == shards
    everything.signals = found.signals = None  # which lie in a file as long as they are held
    assert not list(temporary.iterdir()) and not list(tmp_path.glob("*/*"))


@pytest.mark.parametrize("strategy", ["auto", "agreement", "coverage", "loss"])
@pytest.mark.parametrize(("model", "rows"), [(vit, image_rows), (llama, token_rows)], ids=["images", "text"])
def test_one_pass_gives_what_two_give_to_the_bit_and_full_precision_up_to_rounding(tmp_path, model, rows, strategy):
    settings = {"strategy": strategy, "group_by": "auto" if model is vit else None}
    twice, once, kept, full = (
        choose(tmp_path, model(), rows(40), cache_gradients=cache, **settings)
        for cache in (None, "auto", "float16", "float32")
    )
    assert_equal(once, twice)
    assert_equal(kept, twice)
    assert np.abs(full.scores - once.scores).max() < 2e-3
    assert np.array_equal(full.losses, once.losses)
    if strategy in ("agreement", "loss"):  # k-means may turn at a rounding
        assert np.array_equal(full.indices, once.indices)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_disk_that_fills_in_the_middle_costs_a_second_pass_and_nothing_else(
    tmp_path, monkeypatch, temporary, caplog, streaming
):
    rows = image_rows(50)
    rows = rows.to_iterable_dataset() if streaming else rows
    wanted = choose(tmp_path, rows=rows, **RUN)
    write, written = gradient_cache._Shard.add, []

    def full(self, numbers, extracted):
        written.append(1)
        if len(written) > 6:  # in the second shard
            self._file.write(b"half a row")
            raise OSError(28, "No space left on device")
        write(self, numbers, extracted)

    monkeypatch.setattr(gradient_cache._Shard, "add", full)
    found = choose(tmp_path, rows=rows, **RUN)
    assert np.array_equal(found.indices, wanted.indices)
    assert np.array_equal(found.kept_scores, wanted.kept_scores)
    assert len(written) == 7
    assert caplog.text.count("no longer stored") == 1 and "No space left" in caplog.text
    wanted.signals = found.signals = None  # which lie in a file as long as they are held
    assert not list(temporary.iterdir())


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path):
    """Plain writes end in an error that the run survives; a mapped file would end the process."""
    code = """
import resource, signal, sys
from sage_hf.passes import gradient_cache
from tests.passes.test_gradient_cache import choose, RUN
import numpy as np
wanted = choose(sys.argv[1], **RUN)
add = gradient_cache._Shard.add
def small(self, numbers, extracted):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
    try:
        add(self, numbers, extracted)
        self._file.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
gradient_cache._Shard.add = small
found = choose(sys.argv[1], **RUN)
assert np.array_equal(found.scores, wanted.scores) and np.array_equal(found.indices, wanted.indices)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no longer stored" in done.stderr


def test_a_temporary_folder_that_is_not_there_is_named_before_any_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nothing"))
    model = Counted(vit())
    with pytest.raises(SageError, match="folder for gradient rows cannot be created") as caught:
        choose(tmp_path, model, **{**RUN, "strategy": "agreement"}, check_gradients=False)
    assert caught.value.where == "TMPDIR" and "cache_gradients=None" in caught.value.fix
    assert model.calls.count == 0


def test_an_error_leaves_no_file_of_the_run(tmp_path, temporary):
    rows = image_rows(40).to_dict()
    rows["label"][20] = 77
    with pytest.raises(SageError, match="77"):
        choose(tmp_path, rows=Dataset.from_dict(rows), group_by=None, **RUN)
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("strategy", ["auto", "agreement"])
def test_a_killed_run_goes_on_from_its_file(tmp_path, monkeypatch, strategy, streaming):
    rows = image_rows(50)
    rows = rows.to_iterable_dataset() if streaming else rows
    whole = choose(tmp_path, rows=rows, **{**RUN, "strategy": strategy})
    shards, run = [], Passes.run_shard

    def killed(self, *arguments):
        if len(shards) == 5:  # in the second pass
            raise KeyboardInterrupt
        shards.append(1)
        return run(self, *arguments)

    folder = tmp_path / "unfinished"
    with monkeypatch.context() as patched:
        patched.setattr(Passes, "run_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            choose(tmp_path, Counted(vit()), rows, resume_dir=folder, **{**RUN, "strategy": strategy})
    assert len(list(folder.rglob("rows-*.npy"))) == 4
    model = Counted(vit())
    found = choose(tmp_path, model, rows, resume_dir=folder, check_gradients=False, **{**RUN, "strategy": strategy})
    assert model.calls.count == (strategy == "auto")  # the batch that tells how wide embeddings are
    assert np.array_equal(found.indices, whole.indices)
    assert np.array_equal(found.kept_scores, whole.kept_scores)
    assert not list(folder.rglob("rows-*"))


def test_the_run_says_in_a_line_what_it_keeps_where(tmp_path, caplog, monkeypatch):
    with caplog.at_level("INFO", logger="sage_hf"):
        choose(tmp_path, **RUN)
        room(monkeypatch, 200_000)
        choose(tmp_path, **RUN)
        choose(tmp_path, **RUN, rows=image_rows(50).to_iterable_dataset())
    lines = [line for line in caplog.messages if line.startswith("Gradient rows")]
    assert len(lines) == 3
    assert "one pass over the model" in lines[0] and "half precision" in lines[0]
    assert "of them, so the others are computed twice" in lines[1]
    assert "at most" in lines[2]
