"""Run by test_hung_process.py: of two processes one is killed, stops, sleeps or is slow, and what the other says.

python tests/trust/stopped_process.py FOLDER few|many
"""

import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from transformers.utils import logging

from sage_hf import SageConfig, SageSelector
from sage_hf.passes import pulse
from sage_hf.passes.processes import launched
from sage_hf.passes.run import Passes
from tests.cases import image_rows, vit
from tests.processes.select_shared import digest
from tests.trust.forked import finish, launch

TIMEOUT = 2.5
# Name: what happens to a process at a batch, in few runs, too.
STOPS = {
    "killed": True,
    "asleep": True,
    "slow": True,
    "frozen": False,
    "leaves": False,
}


def stop(how):
    match how:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "frozen":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "asleep":
            time.sleep(600)
        case "slow":
            end = time.monotonic() + 2.5 * TIMEOUT
            while time.monotonic() < end:
                sum(range(1000))
        case "leaves":
            raise SystemExit(3)


def choose():
    """A selection; in the process STOP_RANK something happens, STOP_BY, at its batch STOP_AT."""
    pulse.BEAT, pulse.ENDED = 0.2, 1.0
    if "RANK" in os.environ:
        dist.init_process_group("gloo", timeout=timedelta(seconds=TIMEOUT))
    rank = launched().process_index
    if os.environ.get("STOP_RANK") == str(rank):
        batches, real = [], Passes._extract

        def extract(self, batch):
            batches.append(1)
            if len(batches) == int(os.environ["STOP_AT"]):
                stop(os.environ["STOP_BY"])
            return real(self, batch)

        Passes._extract = extract
    config = SageConfig(strategy="agreement", fraction=0.3, sketch_size=8, batch_size=5, shard_size=8, projection=4)
    selector = SageSelector(MODEL, config=config, resume_dir=os.environ["CHECKPOINT"], progress=False)
    selection = selector.select(ROWS)
    return [digest(selection.scores), selection.indices.tolist()]


def measure(place, is_whole):
    place = Path(place)
    (whole,) = finish(launch(choose, 1, place / "one", CHECKPOINT=place / "kept" / "one"))
    report = {"timeout": TIMEOUT, "cases": []}
    for how, often in STOPS.items():
        for rank in (1, 0) if is_whole else (1,) if often else ():
            name = f"{how} {rank}"
            about = {"STOP_RANK": rank, "STOP_BY": how, "STOP_AT": 6, "CHECKPOINT": place / "kept" / name}
            children = launch(choose, 2, place / name, **about)
            other, began = children[1 - rank], time.monotonic()
            code = other.code(within=60)
            seconds = time.monotonic() - began
            case = {"how": how, "rank": rank, "code": code, "seconds": seconds, "says": other.says}
            if how == "slow":
                case["same"] = [child.code(60) == 0 and child.result == whole for child in children]
            for child in children:
                child.kill()
            if how == "killed" or (is_whole and how != "slow"):
                again = finish(launch(choose, 1 + is_whole, place / f"{name} again", CHECKPOINT=about["CHECKPOINT"]))
                case["same"] = [each == whole for each in again]
            report["cases"].append(case)
    # Ctrl-C while it waits.
    about = {"STOP_RANK": 1, "STOP_BY": "asleep", "STOP_AT": 6, "CHECKPOINT": place / "kept" / "interrupted"}
    children = launch(choose, 2, place / "interrupted", **about)
    time.sleep(TIMEOUT / 2)
    children[0].signal(signal.SIGINT)
    began = time.monotonic()
    children[0].code(30)
    report["interrupted"] = {"seconds": time.monotonic() - began, "says": children[0].says}
    for child in children:
        child.kill()
    (place / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    MODEL, ROWS = vit(), image_rows(70)
    measure(sys.argv[1], sys.argv[2] == "many")
