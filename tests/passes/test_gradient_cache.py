"""Gradient rows on disk: the same result, no forward pass, and never the rows of something else."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sage_hf import SageConfig, SageError, SageSelector
from sage_hf.passes.extractor import halved, restored

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
    assert_equal(choose(tmp_path, model(), rows(), **settings), plain)
    assert_equal(choose(tmp_path, model(), rows(), **settings), plain)


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
    if change.get("cache_gradients") != "float16":
        assert_equal(changed, choose(tmp_path, **{**change, "cache_gradients": None}))


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
    from datasets import Dataset

    with pytest.raises(SageError, match="77"):
        choose(tmp_path, rows=Dataset.from_dict(rows), group_by=None)
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["rows-000000.npy", "rows-000000.safetensors"]


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


def test_a_broken_file_names_the_folder_to_delete(tmp_path):
    choose(tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / "rows-000000.npy").write_bytes(b"nonsense")
    with pytest.raises(SageError, match="cannot be read") as caught:
        choose(tmp_path)
    assert str(folder) in caught.value.fix


def test_only_known_types_are_taken():
    with pytest.raises(SageError, match="cache_gradients"):
        SageConfig(cache_gradients="int8")
