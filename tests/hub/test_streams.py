"""A stream from the Hub gives the rows of the dataset, and the stream of the kept rows goes back to the Hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .fake import serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub():
    with serving() as server:
        yield server


def run(hub, script, home, token="hf_write"):
    """A script in a process of its own: the Hub's address is read when its library is imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": token, "HF_HOME": str(home)}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, str(Path(__file__).with_name(script))]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200)


@pytest.mark.slow
def test_a_stream_from_the_hub_is_selected_from_and_what_is_kept_goes_back(hub, tmp_path):
    done = run(hub, "stream_from_hub.py", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert report == {
        "files": 3,
        "same_rows": True,
        "same_scores": True,
        "same_labels": True,
        "features": ["pixel_values", "label", "sage_score"],
    }
    assert any(path.endswith(".parquet") for path in hub.files("me/kept"))
    assert "hf_write" not in done.stdout + done.stderr
