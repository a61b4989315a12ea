"""Runs the tests of `on_hub` in processes whose Hub is a server on loopback; and, when asked to, against the real one.

In processes of their own, because the Hub's address is read when its library is imported.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSIDE = Path(__file__).with_name("on_hub")
FILES = sorted(path.name for path in INSIDE.glob("test_*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_on_a_hub_on_loopback(tmp_path, name):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    # Port 0 asks the server for a free one; conftest.py of on_hub puts it in before anything is imported.
    environment |= {
        "HF_ENDPOINT": "http://127.0.0.1:0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    environment |= {"HF_TOKEN": "hf_write", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.hub.on_hub.plugin"]
    command += [f"--basetemp={tmp_path / 'base'}", str(INSIDE / name)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout)
    assert "failed on demand" not in done.stderr


@pytest.mark.hub
@pytest.mark.skipif(not os.environ.get("SAGE_HF_TEST_TOKEN"), reason="SAGE_HF_TEST_TOKEN is not set")
def test_on_the_real_hub(tmp_path):
    """Pushes to a private repository of the token's owner, reads it back, and deletes it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_TOKEN": os.environ["SAGE_HF_TEST_TOKEN"], "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__).with_name("real_hub.py"))]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "same rows and scores" in done.stdout
    assert os.environ["SAGE_HF_TEST_TOKEN"] not in done.stdout + done.stderr
