"""The Space of examples/space: its three files fit each other and this version."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from sage_hf import Selection

SPACE = Path(__file__).parents[2] / "examples" / "space"


@pytest.fixture
def app():
    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_metadata_names_the_app_and_the_tested_version_of_gradio():
    _, head, body = (SPACE / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    facts = yaml.safe_load(head)
    pinned = (SPACE.parents[1] / "constraints.txt").read_text(encoding="utf-8")
    assert facts["sdk"] == "gradio" and f"gradio=={facts['sdk_version']}\n" in pinned
    assert (SPACE / facts["app_file"]).is_file() and len(facts["short_description"]) <= 60
    assert "sage-hf[explore]" in (SPACE / "requirements.txt").read_text(encoding="utf-8")
    code = (SPACE / "app.py").read_text(encoding="utf-8")
    assert {*re.findall(r"`([A-Z_]+)`", body)} - {"HF_TOKEN"} == {
        *re.findall(r'environ\.get\("([A-Z]+\w*)"', code)
    } - {"GRADIO_SERVER_NAME"}


def test_a_selection_is_taken_from_a_folder_or_the_hub(app, saved, selection, rows, monkeypatch):
    assert len(app.load_selection(str(saved), rows)) == len(selection)
    asked = []
    monkeypatch.setattr(Selection, "from_hub", lambda name, source: asked.append((name, source)) or selection)
    assert app.load_selection("owner/name", None) is selection and asked == [("owner/name", None)]


@pytest.mark.slow
def test_the_space_starts_on_a_folder(saved):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'sage-hf[explore]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"SELECTION": str(saved), "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    process = subprocess.Popen([sys.executable, str(SPACE / "app.py")], env={**os.environ, **settings})
    try:
        for _ in range(120):
            time.sleep(0.5)
            assert process.poll() is None
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                    assert answer.status == 200
                    break
            except OSError:
                continue
        else:
            pytest.fail("The Space did not answer.")
    finally:
        process.kill()
        process.wait()
