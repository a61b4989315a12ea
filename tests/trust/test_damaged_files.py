"""Files that are read back, cut short, with a changed bit, emptied, made a folder or exchanged for another's.

What can be made again is set aside and made again, with the bit-equal result; a selection is refused by name.
"""

import json
import shutil
from contextlib import suppress

import numpy as np
import pytest
import torch

from sage_hf import Comparison, SageConfig, SageError, Selection, StreamSelection, warm_up
from sage_hf.cli.folders import _read_source, note_source
from sage_hf.cli.options import Inputs
from sage_hf.comparison.folder import RunFolder
from sage_hf.comparison.runs import Run
from sage_hf.passes.run import Passes
from sage_hf.selector.cleaning import cleaned
from sage_hf.selector.label_issues import LabelIssues
from sage_hf.training.checkpoint import load_renamed

from ..cases import image_rows, vit
from ..comparison.test_result import USUAL, made
from ..processes import select_killed
from ..processes.launch import report_of
from .files import HARMS, equal, harm, select
from .scale import cases, some, tried

EXACT = {"consensus": "exact"}
COVERAGE = {"strategy": "coverage", "gate": None}


def other_model():
    torch.manual_seed(9)
    model = vit()
    with torch.no_grad():
        model.classifier.weight += 0.1
    return model


def told(caplog, path):
    return [line for line in caplog.messages if str(path) in line and "damaged" in line]


# ------------------------------------------------------------------ what is made again
@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, result, folder of another model) of runs that are finished, with z of all rows in a file."""
    folder, other = (tmp_path_factory.mktemp(name) / "run" for name in ("one", "other"))
    select(model=other_model(), resume_dir=other, **EXACT)
    return folder, select(resume_dir=folder, **EXACT), other


@pytest.mark.parametrize("how", HARMS)
@pytest.mark.parametrize("kind", ["0-4.safetensors", "4-2.safetensors", "projecting-gradients.npy"])
def test_finished_shards(finished, tmp_path, caplog, kind, how):
    folder, whole, other = finished
    for seed in range(cases(1, 20)):
        tried()
        place = tmp_path / str(seed)
        shutil.copytree(folder, place)
        path = sorted(place.rglob(kind))[seed % len(list(place.rglob(kind)))]
        harm(path, how, seed, sorted(other.rglob(kind))[0])
        caplog.clear()
        assert equal(select(resume_dir=place, **EXACT), whole)
        assert len(told(caplog, path)) == 1 or kind.endswith(".npy")  # a bit of its header may mean nothing
        caplog.clear()
        assert equal(select(resume_dir=place, **EXACT), whole)
        assert not told(caplog, place)


@pytest.mark.parametrize("how", HARMS)
def test_finished_shards_of_a_stream(tmp_path, caplog, how):
    rows = image_rows(44).to_iterable_dataset()
    whole = select(rows, resume_dir=tmp_path / "run")
    select(rows, other_model(), resume_dir=tmp_path / "other")
    for seed in range(cases(1, 10)):
        tried()
        place = tmp_path / f"copy {seed}"
        shutil.copytree(tmp_path / "run", place)
        files = sorted(place.rglob("[0-9]*.safetensors"))
        path = files[seed % len(files)]
        harm(path, how, seed, next((tmp_path / "other").rglob(path.name)))
        assert equal(select(rows, resume_dir=place), whole)
        assert len(told(caplog, path)) == 1


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """The same of a cache of gradient rows."""
    folder, other = (tmp_path_factory.mktemp(name) / "cache" for name in ("one", "other"))
    select(model=other_model(), cache_dir=other, cache_gradients="float16")
    return folder, select(cache_dir=folder, cache_gradients="float16"), other


@pytest.mark.parametrize("how", HARMS)
@pytest.mark.parametrize("kind", ["rows-*.npy", "rows-*.safetensors"])
def test_cached_gradient_rows(cached, tmp_path, caplog, kind, how):
    folder, whole, other = cached
    for seed in range(cases(1, 20)):
        tried()
        place = tmp_path / str(seed)
        shutil.copytree(folder, place)
        files = sorted(place.rglob(kind))
        path = files[seed % len(files)]
        exchanged = sorted(other.rglob(kind))[0] if seed % 2 else files[seed % len(files) - 1]
        harm(path, how, seed, exchanged)
        caplog.clear()
        assert equal(select(cache_dir=place, cache_gradients="float16"), whole)
        assert len(told(caplog, path)) == 1
        caplog.clear()
        assert equal(select(cache_dir=place, cache_gradients="float16"), whole)
        assert not told(caplog, place)


@pytest.mark.parametrize("how", some(HARMS, 2))
def test_gradient_rows_of_a_run_that_was_killed(tmp_path, monkeypatch, how):
    run, shards = Passes.run_shard, []

    def killed(self, *arguments):
        if len(shards) == 8:  # in the second pass
            raise KeyboardInterrupt
        shards.append(1)
        return run(self, *arguments)

    whole = select()
    for seed in range(cases(1, 10)):
        tried()
        shards.clear()
        place = tmp_path / str(seed)
        with monkeypatch.context() as patched:
            patched.setattr(Passes, "run_shard", killed)
            with pytest.raises(KeyboardInterrupt):
                select(resume_dir=place)
        files = sorted(place.rglob("rows-*"))
        for number, path in enumerate(files):  # all of them
            harm(path, how, 100 * seed + number, files[number - 2])
        assert equal(select(resume_dir=place), whole)


@pytest.mark.parametrize("how", HARMS)
def test_a_kept_warm_up(tmp_path, caplog, how):
    rows = image_rows(24)

    def warm(seed=0):
        model = vit()
        done = warm_up(model, rows, steps=3, cache_dir=tmp_path, config=SageConfig(seed=seed, fraction=0.5))
        return done, [weight.clone() for weight in model.state_dict().values()]

    first, weights = warm()
    other = warm(1)[0].file
    for seed in range(cases(2, 20)):
        tried()
        harm(first.file, how, seed, other)
        caplog.clear()
        again, found = warm()
        assert not again.is_kept and (again.loss, again.file) == (first.loss, first.file)
        assert all(map(torch.equal, weights, found))
        assert len(told(caplog, first.file)) == 1
        assert warm()[0].is_kept


def test_a_damaged_shard_leads_all_processes_to_the_same_plan(tmp_path):
    if cases(0, 1) == 0:
        pytest.skip("starts processes; make trust runs it")
    script = select_killed.__file__
    whole = report_of(script, 1, tmp_path, tmp_path / "run")["result"]
    for seed, how in enumerate(HARMS[:4]):
        tried()
        for path in sorted((tmp_path / "run").rglob("[0-9]*-*.safetensors"))[seed % 2 :: 2]:
            harm(path, how, seed)
        assert report_of(script, 2, tmp_path, tmp_path / "run")["result"] == whole


# --------------------------------------------------------------------------- a comparison
RUNS = [Run("auto", 0.1, seed, 5, {"accuracy": 0.1 * seed}) for seed in range(4)]


@pytest.mark.parametrize("how", HARMS)
@pytest.mark.parametrize("name", ["runs.jsonl", "rows.safetensors", "settings.json"])
def test_a_comparison_that_goes_on(tmp_path, caplog, name, how):
    rows = {("auto", 0.1, 0): np.arange(5), ("random", 0.1, 1): np.arange(3)}
    for seed in range(cases(5, 100)):
        tried()
        folders = [tmp_path / f"{seed} {which}" for which in ("own", "other")]
        for folder in folders:
            made = RunFolder(folder, {"lr": folder.name})
            made.write_rows(rows)
            for run in RUNS:
                made.add(run)
            made.close()
        caplog.clear()
        harm(folders[0] / name, how, seed, folders[1] / name)
        # Another's trainings, or a folder that must not be replaced.
        if (how, name) in (("exchanged", "runs.jsonl"), ("a folder", "settings.json")):
            with pytest.raises(SageError) as caught:
                RunFolder(folders[0], {"lr": folders[0].name})
            assert str(folders[0]) in caught.value.where
            continue
        opened = RunFolder(folders[0], {"lr": folders[0].name})
        assert all(run in RUNS for run in opened.runs.values())
        found = opened.read_rows()
        assert found == {} or {key: value.tolist() for key, value in found.items()} == {
            key: value.tolist() for key, value in rows.items()
        }
        # A changed bit in the name of the checksum leaves all else right; one in the end of a line takes two of them.
        if name == "runs.jsonl" and how == "flipped":
            assert len(opened.runs) >= 2
        if name == "rows.safetensors" and how != "exchanged":
            assert len(told(caplog, folders[0] / name)) == 1 or (how == "flipped" and found)
        opened.close()


@pytest.mark.parametrize("how", HARMS[:4])
def test_the_result_of_a_comparison(tmp_path, how):
    whole = made(USUAL)
    for seed in range(cases(10, 300)):
        tried()
        shutil.rmtree(tmp_path / "comparison.json", ignore_errors=True)
        path = whole.save(tmp_path)
        harm(path, how, seed)
        with suppress(SageError):  # of a changed bit in the name of the checksum, all else is right
            assert Comparison.load(path) == whole
            assert how == "flipped"
        if path.is_dir():
            path.rmdir()


# ---------------------------------------------------------------------------- a selection
@pytest.fixture(scope="module", params=["dataset", "stream"])
def saved(request, tmp_path_factory):
    """(folder, selection, folder of another one)."""
    rows = image_rows(44) if request.param == "dataset" else image_rows(44).to_iterable_dataset()
    root = tmp_path_factory.mktemp("saved")
    select(rows, other_model(), **COVERAGE).save_to_disk(root / "other")
    selection = select(rows, **COVERAGE)
    return selection.save_to_disk(root / "kept"), selection, root / "other"


@pytest.mark.parametrize("how", HARMS)
def test_a_selection_is_right_or_refused_by_name(saved, tmp_path, caplog, how):
    folder, whole, other = saved
    names = sorted(path.name for path in folder.iterdir())
    for number, name in enumerate(names * cases(1, 40)):
        tried()
        place = tmp_path / str(number)
        shutil.copytree(folder, place)
        harm(place / name, how, number, other / name)
        if (place / name).is_file() and (place / name).read_bytes() == (folder / name).read_bytes():
            continue  # such as the JSON of two equal datasets
        caplog.clear()
        error = None
        try:
            opened = type(whole).load_from_disk(place)
            assert equal(opened, whole) and next(iter(opened.dataset))["sage_row"] == whole.indices[0]
            if isinstance(opened, Selection):
                again = opened.choose(fraction=0.5, strategy="coverage" if opened.signals else "agreement")
                assert opened.signals is None or again.indices.tolist() == whole.choose(fraction=0.5).indices.tolist()
            # Only signals may be missing, and then it is said.
            assert name.startswith("signals") and any(str(place) in line for line in caplog.messages), name
        except SageError as caught:
            error = caught
        if error is not None:
            assert str(place) in error.where and error.fix
            known = how in ("a folder", "exchanged") or name in ("dataset_info.json", "state.json")
            assert name in error.where or known


def test_of_a_selection_without_checksums_a_stray_file_is_no_error(saved, tmp_path):
    folder, whole, _ = saved
    shutil.copytree(folder, tmp_path / "kept")
    (tmp_path / "kept" / "notes.txt").write_text("mine")
    assert equal(type(whole).load_from_disk(tmp_path / "kept"), whole)


@pytest.mark.parametrize("how", HARMS[:4])
def test_the_note_of_where_rows_came_from(tmp_path, how):
    for seed in range(cases(10, 200)):
        tried()
        place = tmp_path / str(seed)
        place.mkdir()
        note_source(place, Inputs(model="m", dataset="rows.csv"), SageConfig(), excluded=[3, 5])
        noted, error = _read_source(place), None
        harm(place / "source.json", how, seed)
        try:
            assert _read_source(place) == noted
            assert how == "flipped"  # as above
        except SageError as caught:
            error = caught
        assert error is None or ("record of the original dataset" in error.what and "Delete the file" in error.fix)


@pytest.mark.parametrize("how", HARMS[:4])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_list_of_label_issues_is_read_or_refused(tmp_path, ending, how):
    """People edit it, so it has no checksum; what is not a list any more is refused."""
    rows = image_rows(12)
    issues = LabelIssues(rows, "label", np.full(12, 0.9), [1] * 12, np.arange(12), 0.5)
    path = issues.save(tmp_path / f"issues.{ending}")
    held = path.read_bytes()
    for seed in range(cases(10, 300)):
        tried()
        if path.is_dir():
            path.rmdir()
        path.write_bytes(held)
        harm(path, how, seed)
        with suppress(SageError):
            assert len(cleaned(rows, path).dataset) <= 12


@pytest.mark.parametrize("how", ["cut", "emptied"])
def test_the_weights_of_a_checkpoint(tmp_path, how):
    for seed in range(cases(3, 30)):
        tried()
        vit().save_pretrained(tmp_path)
        harm(tmp_path / "model.safetensors", how, seed)
        with pytest.raises(SageError, match="weights in the checkpoint") as caught:
            load_renamed(vit(), tmp_path)
        assert caught.value.where.endswith("model.safetensors")


def test_json_of_another_kind_is_no_selection(saved, tmp_path):
    folder, whole, _ = saved
    shutil.copytree(folder, tmp_path / "kept")
    for content in ("[]", "null", "3", '"x"', "{}", '{"format_version": 3}', '{"format_version": 2}'):
        tried()
        (tmp_path / "kept" / "selection.json").write_text(content)
        with pytest.raises(SageError):
            type(whole).load_from_disk(tmp_path / "kept")
    assert isinstance(whole, (Selection, StreamSelection)) and json.loads("3") == 3
