"""`sage-hf explore`: what it refuses at once, and that it opens."""

import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from .test_folders import made, words  # noqa: F401  # a fixture
from .test_main import folder, run  # noqa: F401  # a fixture

CALL = [sys.executable, "-u", "-m", "sage_hf", "explore"]


def test_without_gradio_the_line_that_installs_it_is_told_before_anything_slow(tmp_path):
    code = (
        "import sys, sage_hf.explorer.server as s\n"
        "s.find_spec = lambda name: None\n"
        "from sage_hf.cli.main import app\n"
        "try:\n    app(['explore', 'no-such-folder'])\n"
        "finally:\n    print([name for name in ('torch', 'datasets', 'gradio') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1 and result.stdout.strip() == "[]"
    told = " ".join(result.stderr.split())
    assert 'pip install "sage-hf[explore]"' in told and "Traceback" not in told


def test_a_folder_without_a_selection_is_told(tmp_path):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'sage-hf[explore]'")
    result = run("explore", tmp_path)
    assert result.exit_code == 1 and "The folder holds no selection" in words(result)


@pytest.mark.slow
def test_a_selection_opens_with_its_rows_and_ctrl_c_ends_it(made):  # noqa: F811
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'sage-hf[explore]'")
    process = subprocess.Popen([*CALL, str(made / "tenth")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert address, line + process.stderr.read()
        with urllib.request.urlopen(address[0] + "config", timeout=60) as answer:
            config = json.load(answer)
        assert config["title"].startswith("sage-hf: 72 rows") and config["analytics_enabled"] is False
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        assert process.returncode in (0, 130) and "Traceback" not in told
    finally:
        process.kill()
