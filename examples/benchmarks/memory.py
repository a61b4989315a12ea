"""Memory of a selection over 10,000, 100,000 and 1,000,000 rows, each in a process of its own.

    python examples/benchmarks/memory.py                # one core, about half an hour

Five ways: a stream of unknown length and a dataset, each by the default strategy and by the paper's rule; and a
dataset with the exact consensus, which keeps a file of sketched gradients. A cheap model, so that the memory of the
selection shows. Counts what a process owns at its peak (anonymous resident pages, sampled), not the pages of files
that the kernel caches; the median of three processes, one at the largest size, because what the libraries take at
their import differs by a few per cent. Writes results/memory.json, .md and .png.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, IterableDataset, load_from_disk
from torch import nn

from sage_hf import SageConfig, SageSelector

SIZES = (10_000, 100_000, 1_000_000)
# Rows of the selection that each process makes first: more than a window of a stream, and than a fold's classifier.
WARM_UP = 50_000
# Of each way: its name, whether it is of a stream, and its settings.
WAYS: dict[str, tuple[str, bool, dict[str, str]]] = {
    "stream": ("a stream", True, {}),
    "stream_agreement": ('a stream, strategy="agreement"', True, {"strategy": "agreement"}),
    "dataset": ("a dataset", False, {}),
    "dataset_agreement": ('a dataset, strategy="agreement"', False, {"strategy": "agreement"}),
    "exact": (
        'a dataset, strategy="agreement", exact consensus',
        False,
        {"strategy": "agreement", "consensus": "exact"},
    ),
}
WIDTH, CLASSES, CHUNK = 16, 10, 1000
WANTED = {"ratio_of_a_stream": 1.03, "bytes_a_row_of_a_dataset": 20}


class Classifier(nn.Module):
    """16 -> 32 -> 10."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU())
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of ten classes."""
        return {"logits": self.head(self.body(x))}


def own_bytes() -> int:
    """Anonymous resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise SystemExit("This benchmark reads /proc/self/status, which only Linux has.")


class Peak:
    """The most memory that this process owns inside a block, beside what it owned before.

    Attributes:
        before: Bytes at its beginning.
        bytes: Bytes at the peak.
    """

    def __enter__(self) -> Peak:
        self.before = self.bytes = own_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.02):
            self.bytes = max(self.bytes, own_bytes())


def make_rows(size: int) -> Iterator[dict[str, Any]]:
    """Random rows around ten centres, made as they are read."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, WIDTH))
    for first in range(0, size, CHUNK):
        rng = np.random.default_rng(first)
        labels = rng.integers(0, CLASSES, min(CHUNK, size - first))
        rows = (centres[labels] + rng.normal(size=(len(labels), WIDTH))).astype(np.float32)
        for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
            yield {"x": row, "label": label}


def open_rows(size: int, way: str, folder: Path) -> Dataset | IterableDataset:
    """The rows as a stream, or as a dataset on the disk."""
    if WAYS[way][1]:
        return IterableDataset.from_generator(make_rows, gen_kwargs={"size": size})
    place = folder / str(size)
    if not place.exists():
        Dataset.from_generator(make_rows, gen_kwargs={"size": size}, cache_dir=str(folder)).save_to_disk(str(place))
    return load_from_disk(str(place))


def measure(size: int, way: str, folder: Path) -> dict[str, float]:
    """Selects, while a thread samples the memory."""
    torch.set_num_threads(1)
    config = SageConfig(fraction=0.01, batch_size=256, sketch_size=64, **WAYS[way][2])
    # Libraries loaded and pools filled: what allocators take in their first seconds does not come from the rows.
    SageSelector(Classifier(), config=config, progress=False).select(open_rows(WARM_UP, way, folder))
    rows = open_rows(size, way, folder)
    with Peak() as peak:
        start = time.perf_counter()
        selection = SageSelector(Classifier(), config=config, progress=False).select(rows)
        seconds = time.perf_counter() - start
    assert selection.stats.rows == size
    assert len(selection) == size // 100
    return {"before_mb": peak.before / 2**20, "peak_mb": peak.bytes / 2**20, "seconds": seconds}


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Peak memory against rows, one line a way."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for (way, (name, *_)), style in zip(WAYS.items(), ("o-", "o--", "s-", "s--", "^:"), strict=True):
        mine = [run for run in runs if run["way"] == way]
        axes.plot([run["rows"] for run in mine], [run["peak_mb"] for run in mine], style, label=name)
    axes.set(xscale="log", xlabel="rows", ylabel="peak memory of the process, MB")
    axes.set_ylim(0, 1.1 * max(run["peak_mb"] for run in runs))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="rows")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each way and size, but the largest")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        size, way, folder = arguments.measure
        print(json.dumps(measure(int(size), way, Path(folder))))
        return
    from machine import results_of, write

    runs = []
    with tempfile.TemporaryDirectory(prefix="sage_hf-benchmark-") as folder:
        for size in arguments.sizes:
            for way in WAYS:
                command = [sys.executable, __file__, "--measure", str(size), way, folder]
                measured = []
                for _ in range(1 if size == max(arguments.sizes) else arguments.repeats):
                    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    measured.append(json.loads(output.splitlines()[-1]))
                peaks = [each["peak_mb"] for each in measured]
                runs.append({"rows": size, "way": way, "peak_mb": statistics.median(peaks), "processes": measured})
                print(f"  {runs[-1]}", file=sys.stderr, flush=True)
    growth = {}
    lines = [
        f"| rows from | {' | '.join(f'{size:,} rows' for size in arguments.sizes)} | last / first | bytes a row |",
        f"|---|{'---|' * len(arguments.sizes)}---|---|",
    ]
    for way, (name, *_) in WAYS.items():
        peaks = [run["peak_mb"] for run in runs if run["way"] == way]
        more = (peaks[-1] - peaks[0]) * 2**20 / (arguments.sizes[-1] - arguments.sizes[0])
        growth[way] = {"ratio": peaks[-1] / peaks[0], "bytes_a_row": more}
        cells = " | ".join(f"{peak:.0f} MB" for peak in peaks)
        lines.append(f"| {name} | {cells} | {peaks[-1] / peaks[0]:.3f} | {more:.1f} |")
    results = results_of(parser, arguments)
    write(results, "memory", {"runs": runs, "growth": growth, "wanted": WANTED}, "\n".join(lines))
    draw(runs, results / "memory.png")


if __name__ == "__main__":
    main()
