"""A pass over a stream goes on from its last finished shard, and only with the same stream, model and settings."""

import shutil

import numpy as np
import pytest
import torch
from datasets import concatenate_datasets
from safetensors.torch import save_file

from sage_hf import SageConfig, SageError, SageSelector
from sage_hf.passes import resume

from ..cases import image_rows, vit

SMALL = {"strategy": "agreement", "fraction": 0.3, "sketch_size": 8, "batch_size": 5, "shard_size": 8}


def select(folder, rows=None, **settings):
    selector = SageSelector(
        settings.pop("model", None) or vit(),
        config=SageConfig(**{**SMALL, **settings}),
        resume_dir=folder,
        progress=False,
    )
    selection = selector.select((rows or image_rows(70)).to_iterable_dataset())
    return selector._passes.shards_run, selection


def untimed(selection):
    times = ("check_seconds", "fit_seconds", "score_seconds")
    return {name: value for name, value in selection.stats.to_dict().items() if name not in times}


def test_a_finished_selection_runs_no_shard_again_whatever_its_budget(tmp_path):
    ran, first = select(tmp_path)
    again, second = select(tmp_path)
    assert (ran, again) == (18, 0)
    assert first.indices.tolist() == second.indices.tolist()
    assert np.array_equal(first.kept_scores, second.kept_scores)
    assert untimed(first) == untimed(second)
    assert select(tmp_path, fraction=0.1, balance="equal")[0] == 0
    other = vit()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert select(tmp_path, model=other)[0] == 18
    assert select(tmp_path, seed=1)[0] == 18


def test_files_of_finished_shards_are_few_however_many_shards_there_are(tmp_path):
    select(tmp_path)
    names = sorted(path.name for path in tmp_path.rglob("*.safetensors"))
    assert names == ["0-8.safetensors", "0-8.safetensors", "8-1.safetensors", "8-1.safetensors"]


@pytest.mark.parametrize("rows", [50, 48, 64, 8])
def test_a_shorter_stream_is_an_error_wherever_it_ends(tmp_path, rows):
    select(tmp_path)
    with pytest.raises(SageError, match="not the one of the unfinished run"):
        select(tmp_path, image_rows(70).select(range(rows)))


def test_another_stream_is_an_error_that_names_the_row(tmp_path):
    select(tmp_path)
    other = image_rows(70).select([*range(40), *reversed(range(40, 70))])
    with pytest.raises(SageError, match="it differs from row 40 on"):
        select(tmp_path, other)


@pytest.mark.parametrize("at", [1, 6, 11, 14])
def test_a_full_disk_keeps_the_last_good_state(tmp_path, monkeypatch, at):
    written = []

    def full(tensors, path, metadata):
        written.append(path)
        if len(written) == at:
            raise OSError(28, "No space left on device")
        save_file(tensors, path, metadata)

    monkeypatch.setattr(resume, "save_file", full)
    with pytest.raises(SageError, match="No space left"):
        select(tmp_path)
    monkeypatch.undo()
    ran, selection = select(tmp_path)
    assert ran == 18 - (at - 1)
    assert untimed(selection) == untimed(select(None)[1])
    assert np.array_equal(selection.kept_scores, select(None)[1].kept_scores)


def test_a_damaged_file_is_set_aside_and_its_shards_run_again(tmp_path, caplog):
    select(tmp_path)
    path = next(tmp_path.rglob("0-8.safetensors"))
    path.write_bytes(b"x")
    ran, selection = select(tmp_path)
    assert ran == 8
    assert untimed(selection) == untimed(select(None)[1])
    assert path.with_name("0-8.safetensors.damaged").read_bytes() == b"x"
    assert sum(str(path) in line for line in caplog.messages) == 1


def test_files_of_an_older_format_are_not_used_and_a_line_says_so(tmp_path, caplog):
    path = tmp_path / "0123456789abcdef" / "sketching-gradients" / "0-8.safetensors"
    path.parent.mkdir(parents=True)
    save_file({"sketch.rows": torch.zeros(2)}, path)
    for rows in (image_rows(70), image_rows(70).to_iterable_dataset()):
        caplog.clear()
        SageSelector(vit(), config=SageConfig(**SMALL), resume_dir=tmp_path, progress=False).select(rows)
        (line,) = (line for line in caplog.messages if "format" in line)
        assert str(path.parents[1]) in line and f"this sage_hf has format {resume.FORMAT_VERSION}" in line
    assert path.exists()


def test_cached_rows_of_another_stream_are_not_read_though_the_finished_shards_are_gone(tmp_path, monkeypatch):
    from sage_hf.passes.run import Passes

    other = concatenate_datasets([image_rows(70).select(range(32)), image_rows(38, seed=9)])
    run, shards = Passes.run_shard, []

    def killed(self, *arguments):
        if len(shards) == 7:
            raise KeyboardInterrupt
        shards.append(1)
        return run(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Passes, "run_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            select(tmp_path, strategy="auto")
    for folder in tmp_path.rglob("sketching-gradients"):
        shutil.rmtree(folder)
    assert list(tmp_path.rglob("rows-*.npy"))
    _, found = select(tmp_path, other, strategy="auto")
    _, wanted = select(None, other, strategy="auto")
    assert found.indices.tolist() == wanted.indices.tolist()
    assert np.array_equal(found.kept_scores, wanted.kept_scores)
