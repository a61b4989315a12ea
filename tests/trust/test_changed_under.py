"""Rows, weights and clocks that changed under files of an earlier run: the right result, or an error that says so.

Rows with one value changed, edited or in another order, of the same length and with the fingerprint that they had.
"""

import os
import time

import numpy as np
import pytest
import torch
from datasets import Dataset

from sage_hf import SageConfig, Selection, warm_up
from sage_hf.errors import DatasetError

from ..cases import image_rows, vit
from .files import equal, select
from .scale import cases, some, tried

ROWS = 300  # more than those whose content names a dataset
LARGE = {"batch_size": 64, "shard_size": 64}
FOLDERS = {"resume_dir": {}, "cache_dir": {"cache_gradients": "float32"}}


def one_value(rows, at):
    values = rows.to_dict()
    values["pixel_values"][at][0][3][3] += 1.0
    return Dataset.from_dict(values, features=rows.features)


def one_label(rows, at):
    values = rows.to_dict()
    values["label"][at] = (values["label"][at] + 1) % 3
    return Dataset.from_dict(values, features=rows.features)


def two_exchanged(rows, at):
    order = np.arange(len(rows))
    order[[at, at - 1]] = order[[at - 1, at]]
    return rows.select(order)


def forged(changed, rows):
    changed._fingerprint = rows._fingerprint
    return changed


@pytest.fixture(scope="module")
def rows():
    return image_rows(ROWS)


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("change", [one_value, one_label, two_exchanged])
def test_files_of_rows_that_changed_are_not_used(rows, tmp_path, change, folder):
    settings = {**LARGE, **FOLDERS[folder], "group_by": None}
    before = select(rows, **{folder: tmp_path}, **settings)
    for at in some(range(3, ROWS, 21), cases(1, 15)):
        tried()
        other = forged(change(rows, at), rows)
        assert len(other) == len(rows) and other._fingerprint == rows._fingerprint
        wanted = select(other, **settings, **({"cache_dir": tmp_path / str(at)} if folder == "cache_dir" else {}))
        assert equal(select(other, **{folder: tmp_path}, **settings), wanted)
        assert not np.array_equal(wanted.losses, before.losses)
    assert equal(select(rows, **{folder: tmp_path}, **settings), before)


@pytest.mark.parametrize("change", [one_value, one_label, two_exchanged])
def test_a_selection_takes_no_rows_that_changed(tmp_path, change):
    """Of at most 256 rows, all are compared; of more, 256 evenly spread."""
    rows = image_rows(60)
    select(rows).save_to_disk(tmp_path / "kept")
    for at in some(range(1, 60, 7), cases(3, 9)):
        tried()
        for made in (change(rows, at), forged(change(rows, at), rows)):
            with pytest.raises(DatasetError, match="was made from 60 rows") as caught:
                Selection.load_from_disk(tmp_path / "kept", source=made)
            assert "same dataset" in caught.value.fix
    Selection.load_from_disk(tmp_path / "kept", source=image_rows(60))


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_of_weights_with_one_other_bit_are_not_used(tmp_path, folder):
    settings, random = FOLDERS[folder], np.random.default_rng(0)
    before = select(**{folder: tmp_path}, **settings)
    kept = {path for path in tmp_path.rglob("*") if path.is_dir()}
    for _ in range(cases(1, 20)):
        tried()
        model = vit()
        weights = list(model.parameters())
        flat = weights[random.integers(len(weights))].data.view(-1).view(torch.int32)
        flat[random.integers(len(flat))] ^= 1 << int(random.integers(23))  # of the mantissa: still a number
        alone = {"cache_dir": tmp_path.parent / f"{tmp_path.name} alone"} if folder == "cache_dir" else {}
        found = select(model=model, **{folder: tmp_path}, **settings)
        assert equal(found, select(model=model, **settings, **alone))
        more = {path for path in tmp_path.rglob("*") if path.is_dir()}
        assert more > kept
        kept = more
    assert equal(select(**{folder: tmp_path}, **settings), before)


def test_a_warm_up_of_rows_that_changed_is_made_anew(tmp_path):
    rows = image_rows(ROWS)
    other = forged(one_value(rows, 3), rows)
    for _ in range(2):
        done = [
            warm_up(vit(), each, steps=2, cache_dir=tmp_path, config=SageConfig(fraction=0.5)).file
            for each in (rows, other)
        ]
        assert len(set(done)) == 2 and len(list(tmp_path.glob("*.safetensors"))) == 2


@pytest.mark.parametrize("folder", FOLDERS)
def test_clocks_that_jump_change_nothing(tmp_path, monkeypatch, folder):
    settings = {**FOLDERS[folder], folder: tmp_path}
    whole, ticks = select(**settings), iter(range(10**6))
    for jump in some([-1e6, 1e6, -3.0], cases(1, 3)):
        tried()
        for path in tmp_path.rglob("*"):
            os.utime(path, (time.time() + jump, time.time() + jump))
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda jump=jump: 1e9 + jump * next(ticks))
            assert equal(select(**settings), whole)
            assert equal(select(**{**settings, folder: tmp_path / f"new {jump}"}), whole)


def test_a_run_that_goes_on_in_another_time_is_the_same(tmp_path, monkeypatch):
    from sage_hf.passes.run import Passes

    whole, run, shards = select(consensus="exact"), Passes.run_shard, []

    def killed(self, *arguments):
        shards.append(1)
        if len(shards) == 9:
            raise KeyboardInterrupt
        return run(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Passes, "run_shard", killed)
        patched.setattr(time, "time", lambda: 4e9)
        with pytest.raises(KeyboardInterrupt):
            select(consensus="exact", resume_dir=tmp_path)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert equal(select(consensus="exact", resume_dir=tmp_path), whole)
