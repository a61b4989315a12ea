"""Peak memory of a selection at two sizes a factor 10 apart, each in a process of its own.

    python examples/benchmarks/memory.py                # about three minutes

Counts the memory that a process owns (anonymous pages), not the pages of the dataset's file that the kernel caches.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, load_from_disk
from torch import nn

from sage_hf import SageConfig, SageSelector

SIZES = (10_000, 100_000)
WIDTH, CLASSES = 64, 10


class Classifier(nn.Module):
    """A cheap model, so that the memory of the selection shows: 64 -> 256 -> 256 -> 10."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(WIDTH, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
        self.head = nn.Linear(256, CLASSES)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of ten classes."""
        return {"logits": self.head(self.body(x))}


def own_bytes() -> int:
    """Anonymous resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise SystemExit("This benchmark reads /proc/self/status, which only Linux has.")


def make_rows(size: int, folder: Path) -> None:
    """Saves `size` random rows around ten centres."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, WIDTH))
    labels = rng.integers(0, CLASSES, size)
    rows = (centres[labels] + rng.normal(size=(size, WIDTH))).astype(np.float32)
    Dataset.from_dict({"x": rows, "label": labels}).save_to_disk(str(folder))


def measure(folder: Path, consensus: str) -> dict[str, float]:
    """Selects, while a thread samples the memory."""
    dataset = load_from_disk(str(folder))
    settings = {"batch_size": 64, "projection": 32, "consensus": consensus}
    torch.set_num_threads(1)
    warm = SageConfig(num_examples=10, **settings)
    SageSelector(Classifier(), config=warm).select(dataset.select(range(500)))  # libraries loaded, pools filled
    before, peak, done = own_bytes(), [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], own_bytes())

    thread = threading.Thread(target=sample)
    thread.start()
    start = time.perf_counter()
    SageSelector(Classifier(), config=SageConfig(fraction=0.1, **settings)).select(dataset)
    seconds = time.perf_counter() - start
    done.set()
    thread.join()
    return {"before_mb": before / 2**20, "peak_mb": peak[0] / 2**20, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--consensus", default="streaming", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure, arguments.consensus)))
        return
    from machine import write

    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            make_rows(size, Path(folder) / str(size))
            for consensus in ("streaming", "exact"):
                command = [sys.executable, __file__, "--measure", f"{folder}/{size}", "--consensus", consensus]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                runs.append({"rows": size, "consensus": consensus, **json.loads(output.splitlines()[-1])})
    growth = {
        consensus: runs_of[1]["peak_mb"] / runs_of[0]["peak_mb"]
        for consensus in ("streaming", "exact")
        if (runs_of := [run for run in runs if run["consensus"] == consensus])
    }
    table = "| consensus | rows | peak memory, MB | seconds |\n|---|---|---|---|\n" + "\n".join(
        f"| {run['consensus']} | {run['rows']:,} | {run['peak_mb']:.0f} | {run['seconds']:.0f} |" for run in runs
    )
    write("memory", {"runs": runs, "growth": growth}, table)


if __name__ == "__main__":
    main()
