"""Two real processes: one subset, every row in one of them, and the resumed run is the uninterrupted one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


LAUNCHERS = {
    "torchrun": lambda port: ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)],
    "accelerate": lambda port: [
        *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(port)),
    ],
}


@pytest.fixture(scope="module", params=LAUNCHERS)
def report(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *LAUNCHERS[request.param](free_port()), str(SCRIPT), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "report.json").read_text())


pytestmark = pytest.mark.slow
RUNS = pytest.mark.parametrize("name", ["plain", "inside"])


def test_two_processes_ran(report):
    assert report["processes"] == 2


def test_with_all_rows_kept_they_train_as_trainer_does(report):
    assert report["parity"] == [0.0, 0.0]
    assert report["parity_losses"]


@pytest.mark.parametrize("family", ["dynamic rope", "seq2seq"])
def test_other_families_do_so_too(report, family):
    weights, logs, states = zip(*report["families"][family], strict=True)
    assert all(weights)
    assert all(logs)
    assert all(states)


@RUNS
def test_both_keep_the_same_rows(report, name):
    one, other = report[name]["indices"]
    assert one == other
    assert len(one) == 16


@RUNS
def test_each_pass_gives_every_kept_row_to_one_process(report, name):
    last = [[row for batch in batches[-2:] for row in batch] for batches in report["plain"]["batches"]]
    assert sorted(last[0] + last[1]) == report["plain"]["indices"][0]
    assert report[name]["last_rate"] == 0.0
    assert report[name]["selections"] >= 2


@RUNS
def test_runs_repeat_to_the_bit(report, name):
    assert report[name]["between"] == [0.0, 0.0]


@RUNS
def test_every_checkpoint_leads_to_the_same_rows_and_weights(report, name):
    resumed = report[name]["resumed"]
    assert [entry["step"] for entry in resumed] == list(range(1, report[name]["steps"] + 1))
    assert {entry["difference"] for entry in resumed} == {0.0}
    assert all(entry["same_rows"] and entry["same_logs"] for entry in resumed)
    assert all(entry["trained"] > 0 for entry in resumed[:-1])


def test_all_follow_the_main_process(report):
    one, other = report["differing"]
    assert one == other
