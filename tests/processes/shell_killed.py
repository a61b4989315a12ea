"""Run by test_same_twice.py: the shell, which a signal stops at a point of its run.

STOP_IN=shard STOP_AT=3 STOP_BY=SIGKILL STOP_RANK=0 python tests/processes/shell_killed.py select MODEL DATASET ...
"""

import os
import signal
from pathlib import Path

import torch

import sage_hf.passes.resume
import sage_hf.training.warmup
from sage_hf.cli.main import main
from sage_hf.passes.run import Passes


def stop() -> None:
    os.kill(os.getpid(), getattr(signal, os.environ["STOP_BY"]))


def stopping(function, at: int, halve: bool = False):
    """The function, and the signal before its call of this number, or after half of the file that it wrote."""
    calls = []

    def call(*given, **named):
        calls.append(1)
        if len(calls) == at and not halve:
            stop()
        result = function(*given, **named)
        if len(calls) == at and halve:
            path = Path(given[1])
            path.write_bytes(path.read_bytes()[:500])
            stop()
        return result

    return call


def main_stopped() -> None:
    at = int(os.environ["STOP_AT"])
    match os.environ["STOP_IN"]:
        case "step":
            torch.optim.AdamW.step = stopping(torch.optim.AdamW.step, at)
        case "warm-up's file":
            sage_hf.training.warmup.save_file = stopping(sage_hf.training.warmup.save_file, at, halve=True)
        case "shard":
            Passes.run_shard = stopping(Passes.run_shard, at)
        case "shard's file":
            sage_hf.passes.resume.save_file = stopping(sage_hf.passes.resume.save_file, at, halve=True)
    main()


if __name__ == "__main__":
    if os.environ.get("RANK", "0") == os.environ["STOP_RANK"]:
        main_stopped()
    else:
        main()
