"""The example that selects and pushes runs to its end, alone and in two processes."""

import os
import re
import subprocess
import sys

import pytest
from datasets import load_dataset

from sage_hf import Selection

from ...test_examples import LAUNCHERS, ROOT, free_port


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_select_and_push_runs_and_what_it_pushed_is_there(hub, tmp_path, launcher):
    port = [] if launcher == "python" else ["--main_process_port", str(free_port())]
    script = ["examples/select_and_push.py", "--repo-id", "me/topics", "--private", "--warmup-steps", "3"]
    command = [sys.executable, *LAUNCHERS[launcher], *port, *script]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = load_dataset("me/topics")
    assert done.stdout.count(f"train {len(rows['train'])} rows, test {len(rows['test'])} rows.") == 1
    assert int(re.search(r"By the same scores: (\d+) rows", done.stdout)[1]) == round(len(rows["train"]) / 2)
    assert hub.repos["dataset", "me/topics"].private
    assert rows["train"].features == rows["test"].features
    selection = Selection.from_hub("me/topics")
    assert len(selection) == len(rows["train"])
    assert {group.name for group in selection.group_table} == set(rows["train"].features["label"].names)


def test_it_says_what_it_needs():
    script = [sys.executable, "examples/select_and_push.py"]
    done = subprocess.run([*script, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert "hf auth login" in done.stdout
    done = subprocess.run(
        [*script, "--repo-id", "a/b", "--dataset-name", "c"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "go together" in done.stderr
