"""Two runs in one folder at once: the second is refused by name, or both end as each alone.

The second starts while the first is in the middle of a pass, or of a file.
"""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from sage_hf import SageError
from sage_hf.cli.folders import holding
from sage_hf.cli.main import app
from sage_hf.comparison.folder import RunFolder
from sage_hf.comparison.runs import Run
from sage_hf.passes.run import Passes

from ..cases import image_rows
from ..processes.launch import ENVIRONMENT, ROOT
from .files import equal, select
from .scale import cases, some, tried

STREAM = {"rows": image_rows(44).to_iterable_dataset()}
WAYS = [
    {"resume_dir": True, "consensus": "exact"},
    {"resume_dir": True, "strategy": "auto"},
    {"resume_dir": True, **STREAM},
]
SHARED = [{"cache_dir": True, "cache_gradients": kind} for kind in ("float16", "float32")]


def in_the_middle(monkeypatch, at, act):
    """Does something when a pass has run so many shards, once."""
    run, shards = Passes.run_shard, []

    def acting(self, *arguments):
        shards.append(1)
        if len(shards) == at:
            act()
        return run(self, *arguments)

    monkeypatch.setattr(Passes, "run_shard", acting)


def placed(tmp_path, changes):
    return {name: tmp_path / name if value is True else value for name, value in changes.items()}


@pytest.mark.parametrize("changes", WAYS, ids=lambda changes: "-".join(changes))
def test_a_second_run_in_a_resume_dir_is_refused_before_its_passes(tmp_path, monkeypatch, changes):
    changes = placed(tmp_path, changes)
    whole = select(**{**changes, "resume_dir": None})
    for at in some(range(5, 13), cases(1, 8)):
        tried()
        folder, refusals = tmp_path / f"run {at}", []

        def second(folder=folder, refusals=refusals):
            started = time.perf_counter()
            with pytest.raises(SageError, match="Another run is using this folder") as caught:
                select(**{**changes, "resume_dir": folder, "fraction": 0.1})
            refusals.append((caught.value, time.perf_counter() - started))

        with monkeypatch.context() as patched:
            in_the_middle(patched, at, second)
            assert equal(select(**{**changes, "resume_dir": folder}), whole)
        ((refusal, seconds),) = refusals
        assert f"process {os.getpid()} on" in refusal.what and str(folder) in refusal.where
        assert "another resume_dir" in refusal.fix and seconds < 20
        assert not list(folder.rglob(".lock"))
        assert equal(select(**{**changes, "resume_dir": folder}), whole)


def test_other_settings_may_use_the_same_resume_dir_at_once(tmp_path, monkeypatch):
    wholes, found = [select(), select(sketch_size=3)], []
    in_the_middle(monkeypatch, 3, lambda: found.append(select(resume_dir=tmp_path, sketch_size=3)))
    assert equal(select(resume_dir=tmp_path), wholes[0])
    assert equal(found[0], wholes[1])


@pytest.mark.parametrize("changes", SHARED, ids=lambda changes: changes["cache_gradients"])
def test_selections_share_a_cache_at_once(tmp_path, monkeypatch, caplog, changes):
    whole = select(**{**changes, "cache_dir": tmp_path / "alone"})
    for at in some(range(5, 13), cases(1, 8)):
        tried()
        again, found = {**changes, "cache_dir": tmp_path / str(at)}, []
        with monkeypatch.context() as patched:
            in_the_middle(patched, at, lambda again=again, found=found: found.append(select(**again)))
            assert equal(select(**again), whole)
        assert equal(found[0], whole)
        assert equal(select(**again), whole)
    assert not [line for line in caplog.messages if "damaged" in line]
    assert not list(tmp_path.rglob("*.part"))


def test_a_comparison_has_its_folder_to_itself(tmp_path):
    first = RunFolder(tmp_path / "out", {"lr": 1})
    for settings in ({"lr": 1}, {"lr": 2}):
        with pytest.raises(SageError, match="Another run is using this folder") as caught:
            RunFolder(tmp_path / "out", settings, overwrite=True)
        assert "output_dir" in caught.value.fix
    first.add(Run("auto", 0.1, 0, 5, {"accuracy": 0.5}))
    first.close()
    assert len(RunFolder(tmp_path / "out", {"lr": 1}).runs) == 1


@pytest.mark.parametrize("command", ["select", "choose", "apply", "label-issues"])
def test_a_command_whose_output_another_writes_is_refused(tmp_path, command):
    rows, output = tmp_path / "rows.jsonl", tmp_path / "new" / "out"
    rows.write_text("".join(json.dumps({"text": "a b", "label": each}) + "\n" for each in ("a", "b") * 4))
    (tmp_path / "issues.csv").write_text("sage_row,sage_label_doubt,sage_label,sage_suggested_label,sage_action\n")
    select().save_to_disk(tmp_path / "kept")
    lines = {
        "select": ["select", "no/model", str(rows), "--fraction", "0.5", "-o", str(output)],
        "choose": ["choose", str(tmp_path / "kept"), "-o", str(output)],
        "apply": ["apply", str(rows), str(tmp_path / "issues.csv"), "-o", str(output)],
        "label-issues": ["label-issues", "no/model", str(rows), "-o", f"{output}.csv"],
    }
    with holding(output.with_suffix(".csv") if command == "label-issues" else output):
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, lines[command])
        assert result.exit_code == 1
        said = " ".join(result.output.split())
        assert "Another run is using this folder" in said and f"process {os.getpid()}" in said
        assert "Traceback" not in said
    assert not output.parent.exists()  # neither an output nor a lock


RACE = """
import sys
from pathlib import Path
import numpy as np
from tests.trust.files import select
found = select(cache_dir=Path(sys.argv[1]), cache_gradients="float32")
np.save(sys.argv[2], found.scores)
"""


def test_real_processes_share_a_cache_though_some_are_killed(tmp_path):
    if not cases(0, 1):
        pytest.skip("starts processes; make trust runs it")
    whole = select(cache_gradients="float32", cache_dir=tmp_path / "alone")
    for turn in range(8):
        tried()
        made = [
            subprocess.Popen(
                [sys.executable, "-c", RACE, str(tmp_path / f"cache {turn}"), str(tmp_path / f"{turn} {number}.npy")],
                env=ENVIRONMENT,
                cwd=ROOT,
            )
            for number in range(3)
        ]
        time.sleep(4 + turn / 2)
        made[0].send_signal(signal.SIGKILL)
        assert [process.wait() for process in made][1:] == [0, 0]
        for number in (1, 2):
            assert np.array_equal(np.load(tmp_path / f"{turn} {number}.npy"), whole.scores, equal_nan=True)
