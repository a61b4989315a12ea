"""Worker processes make the batches that the process itself would make; their errors arrive whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_hf import SageConfig, SageError, SageSelector
from sage_hf.data.loader import load
from sage_hf.errors import ConfigError, LabelError

from ..cases import image_rows, llama, pad_tokens, token_rows, vit
from .test_batches import source

CPU = torch.device("cpu")


def same(one, other):
    return all(
        torch.equal(rows, rows2) and all(torch.equal(batch[key], batch2[key]) for key in batch)
        for (rows, batch), (rows2, batch2) in zip(one, other, strict=True)
    )


@settings(deadline=None, max_examples=5)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 3))
def test_workers_make_the_same_batches_in_the_same_order(lengths, workers):
    made = source(lengths, batch_size=3, shard_size=7)
    shards = made.shards()[::2]  # a pass may skip what is finished
    assert same(list(load(made, shards, 0, CPU)), list(load(made, shards, workers, CPU)))


def test_workers_that_could_open_no_socket_are_refused(monkeypatch, tmp_path):
    made = source([3, 1, 2], batch_size=3, shard_size=7)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 20)))
    with pytest.raises(ConfigError, match=r"at most 75 \[num_workers, TMPDIR\]"):
        list(load(made, made.shards(), 1, CPU))
    assert list(load(made, made.shards(), 0, CPU))


def select(model, rows, workers, cache_dir=None, **settings):
    config = SageConfig(
        fraction=0.3, sketch_size=8, batch_size=5, shard_size=16, num_workers=workers, strategy="agreement", **settings
    )
    collator = pad_tokens if "input_ids" in rows.column_names else None
    return SageSelector(model, data_collator=collator, config=config, progress=False, cache_dir=cache_dir).select(rows)


@pytest.mark.parametrize("settings", [{}, {"consensus": "exact"}, {"cache_gradients": "float32"}])
@pytest.mark.parametrize(("model", "rows"), [(vit, image_rows), (llama, token_rows)])
def test_a_selection_with_workers_is_the_same_to_the_bit(tmp_path, model, rows, settings):
    one, other = (select(model(), rows(50), workers, tmp_path / str(workers), **settings) for workers in (0, 2))
    assert np.array_equal(one.scores, other.scores)
    assert np.array_equal(one.losses, other.losses)
    assert one.indices.tolist() == other.indices.tolist()


def test_what_a_transform_draws_is_the_same_in_workers():
    def noisy(batch):
        noise = torch.randn(len(batch["label"]), 1, 1, 1)
        return {"pixel_values": list(torch.tensor(batch["pixel_values"]) + noise), "label": batch["label"]}

    rows = image_rows(50).with_transform(noisy)
    state = torch.get_rng_state()
    model = vit()
    one, other = (select(model, rows, workers, group_by=None) for workers in (0, 2))
    assert np.array_equal(one.scores, other.scores)
    assert len(set(one.losses.tolist())) > 10
    torch.set_rng_state(state)


def test_an_error_in_a_worker_is_the_error_itself():
    rows = image_rows(40).to_dict()
    rows["label"][33] = None
    from datasets import Dataset

    with pytest.raises(LabelError, match="33") as caught:
        select(vit(), Dataset.from_dict(rows), 2, group_by=None, check_gradients=False)
    assert caught.value.fix


def test_streams_take_no_workers_and_say_so():
    with pytest.raises(SageError, match="num_workers"):
        select(vit(), image_rows(40).to_iterable_dataset(), 2)
