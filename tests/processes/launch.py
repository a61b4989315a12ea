"""Real processes for the tests: a script under `torchrun`, with one thread each so that they compute alike."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
ENVIRONMENT["PYTHONPATH"] = str(ROOT)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def launch(script, count, *arguments, timeout=300):
    """Runs a script in so many processes; 1 is plain python. Returns the finished process."""
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(count), "--master_port", str(free_port())]
    command = [sys.executable, *(launcher if count > 1 else []), str(script), *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


def report_of(script, count, folder, *arguments):
    """What a script wrote to `FOLDER/report.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    done = launch(script, count, folder, *arguments)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "report.json").read_text())
