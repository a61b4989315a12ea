"""Large inputs through the whole default pipeline: what each step takes in time, in memory and on the disk.

    python examples/benchmarks/load.py                  # one core, about half an hour; 8 GB of disk
    python examples/benchmarks/load.py --rows 100000    # a part of it, in two minutes

A million rows; ten thousand groups; five thousand classes; gradient rows 100,000 numbers wide; a table of 300
columns; and 64 sketches merged into one. A cheap model (a perceptron), because what is around it is measured. Each in
a process of its own with one thread, step by step: select (check, gradients, scores, gate, probe, near-duplicates,
choice), save with the signals of all rows, load, choose again, the report, rows as `sage-hf show` has them, and the
label issues. Seconds are of the clock and of the processor, which a busy machine does not change. Memory is what the
process owns at the step's peak beyond what it owned before the first (anonymous resident pages, sampled); disk, what
its files take then, nameless ones too. Writes results/load.json and results/load.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, concatenate_datasets, disable_progress_bars, load_from_disk
from memory import own_bytes
from torch import nn
from transformers.utils import logging

from sage_hf import FrequentDirections, SageConfig, SageSelector, Selection, find_label_issues
from sage_hf.cli.show import table_of
from sage_hf.passes.merge_tree import MergeTree, Partial
from sage_hf.selection.rows import ROW_VIEWS, rows_of

BLOCK, FEW, WRONG = 50_000, 2_000, 0.05
SKETCHES, SKETCH_SIZE, SKETCH_WIDTH, SKETCH_ROWS = 64, 256, 16_384, 512


@dataclass(frozen=True)
class Case:
    """Rows and a model.

    Attributes:
        title: In the table.
        rows: Number of rows, as a share of `--rows`.
        classes: Number of classes.
        groups: Number of values of a column to group by; 0 groups by class.
        columns: Number of columns in all; 2 are a row's numbers and its class.
        hidden: Width of the model's hidden layer.
        width: Numbers of a row.
        settings: Of the selection.
    """

    title: str
    rows: float
    classes: int = 10
    groups: int = 0
    columns: int = 2
    hidden: int = 32
    width: int = 16
    settings: dict[str, Any] = field(default_factory=dict)


CASES = {
    "rows": Case("10 classes", 1.0),
    "groups": Case("10,000 groups", 0.1, groups=10_000, settings={"group_by": "group"}),
    "classes": Case("5,000 classes", 0.1, classes=5_000),
    "wide": Case("gradient rows 100,000 wide", 0.004, hidden=303, width=320, settings={"projection": None}),
    "columns": Case("300 columns", 0.1, columns=300),
}


class Classifier(nn.Module):
    """A perceptron with one hidden layer."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(case.width, case.hidden), nn.ReLU())
        self.head = nn.Linear(case.hidden, case.classes)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of the classes."""
        return {"logits": self.head(self.body(x))}


def make_rows(case: Case, count: int) -> Iterator[dict[str, Any]]:
    """Blocks of random rows around a centre a class, some with a wrong label."""
    centres = 2 * np.random.default_rng(0).normal(size=(case.classes, case.width))
    for first in range(0, count, BLOCK):
        rng, size = np.random.default_rng(first + 1), min(BLOCK, count - first)
        classes = rng.integers(0, case.classes, size)
        block: dict[str, Any] = {"x": (centres[classes] + rng.normal(size=(size, case.width))).astype(np.float32)}
        wrong = rng.random(size) < WRONG
        block["label"] = (classes + wrong * rng.integers(1, case.classes, size)) % case.classes
        if case.groups:
            block["group"] = rng.integers(0, case.groups, size)
        for number in range(case.columns - len(block)):
            block[f"more_{number:03d}"] = [f"text {number}"] * size if number % 3 == 0 else rng.random(size)
        yield block


def save_rows(case: Case, count: int, folder: Path) -> None:
    """Writes the rows as a dataset."""
    rows = concatenate_datasets([Dataset.from_dict(block) for block in make_rows(case, count)])
    names = [f"class {number}" for number in range(case.classes)]
    rows.cast_column("label", ClassLabel(names=names)).save_to_disk(str(folder / f"rows-{count}"))


class Watch:
    """What a process takes, step by step.

    Args:
        folder: Where its files are.

    Attributes:
        steps: Name to what the step took.
    """

    def __init__(self, folder: Path) -> None:
        self.steps: dict[str, dict[str, float]] = {}
        self._folder = folder
        self._before, self._disk_before = own_bytes(), self._disk()
        self._peak = self._most = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measures a block."""
        self._peak, self._most = own_bytes(), self._disk()
        clock, processor = time.perf_counter(), time.process_time()
        yield
        seconds, own = time.perf_counter() - clock, time.process_time() - processor
        peak, most = max(self._peak, own_bytes()), max(self._most, self._disk())
        self.steps[name] = {
            "seconds": round(seconds, 2),
            "cpu_seconds": round(own, 2),
            "memory_mb": round((peak - self._before) / 2**20),
            "disk_mb": round((most - self._disk_before) / 2**20),
        }
        print(f"    {name}: {self.steps[name]}", file=sys.stderr, flush=True)

    def _sample(self) -> None:
        count = 0
        while not self._done.wait(0.05):
            self._peak = max(self._peak, own_bytes())
            count += 1
            if count % 20 == 0:
                self._most = max(self._most, self._disk())

    def _disk(self) -> int:
        """Bytes of the files in the folder, and of open ones without a name."""
        found = {}
        for place in self._folder.rglob("*"):
            try:
                status = place.stat()
            except OSError:
                continue
            found[status.st_ino] = status.st_blocks * 512
        for name in os.listdir("/proc/self/fd"):
            try:
                status = os.fstat(int(name))
            except OSError:
                continue
            if not status.st_nlink:
                found[status.st_ino] = status.st_blocks * 512
        return sum(found.values())


def pipeline(case: Case, count: int, folder: Path) -> dict[str, Any]:
    """All that a user does with rows."""
    config = SageConfig(fraction=0.1, **case.settings)
    few = load_from_disk(str(folder / f"rows-{FEW}"))
    SageSelector(Classifier(case), config=config, progress=False).select(few)  # libraries loaded
    rows = load_from_disk(str(folder / f"rows-{count}"))
    watch, place = Watch(folder), folder / "selection"
    with watch.step("select"):
        selection = SageSelector(Classifier(case), config=config, progress=False).select(rows)
    assert len(selection) == round(0.1 * count)
    stats = selection.stats
    with watch.step("save"):
        selection.save_to_disk(place)
    with watch.step("load"):
        selection = Selection.load_from_disk(place, source=rows)
    with watch.step("choose again"):
        assert len(selection.choose(fraction=0.05)) == round(0.05 * count)
    with watch.step("report"):
        page = selection.report()
    with watch.step("show"):
        for view in ROW_VIEWS:
            table_of(rows_of(selection, view), 120)
        print(selection, file=sys.stderr)
        selection._repr_html_()
    with watch.step("label issues"):
        issues = find_label_issues(Classifier(case), rows, progress=False)
        issues.save(folder / "issues.csv")
    return {
        "rows": count,
        "row_width": stats.row_width,
        "sketch_size": stats.sketch_size,
        "report_mb": round(len(page.encode()) / 2**20, 2),
        "selection_mb": round(sum(path.stat().st_size for path in place.iterdir()) / 2**20),
        "label_issues": len(issues),
        "pass_seconds": [round(each, 1) for each in (stats.fit_seconds, stats.score_seconds, stats.choose_seconds)],
        "steps": watch.steps,
    }


def merged(folder: Path) -> dict[str, Any]:
    """64 sketches, merged along the tree of a pass."""
    generator = torch.Generator().manual_seed(0)
    tree, watch = MergeTree(), Watch(folder)
    spent: dict[str, float] = {"sketch": 0.0, "merge": 0.0}
    with watch.step("sketch and merge"):
        for number in range(SKETCHES):
            started = time.process_time()
            sketch = FrequentDirections(SKETCH_SIZE, SKETCH_WIDTH)
            sketch.update(torch.randn(SKETCH_ROWS, SKETCH_WIDTH, generator=generator))
            sketch.compact()
            spent["sketch"] += time.process_time() - started
            started = time.process_time()
            tree.push(Partial(sketch), number)
            spent["merge"] += time.process_time() - started
        whole = tree.result().sketch
    assert whole is not None
    assert whole.rows_seen == SKETCHES * SKETCH_ROWS
    return {
        "sketches": SKETCHES,
        "sketch_size": SKETCH_SIZE,
        "row_width": SKETCH_WIDTH,
        "cpu_seconds": {name: round(value, 1) for name, value in spent.items()},
        "steps": watch.steps,
    }


def run(name: str, count: int) -> dict[str, Any]:
    """A case in a process of its own."""
    print(f"  {name}, {count:,}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="sage_hf-benchmark-") as folder:
        if name in CASES:
            for size in (FEW, count):  # here, so that the process that measures holds nothing of it
                save_rows(CASES[name], size, Path(folder))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": folder, "HF_HOME": f"{folder}/hf"}
        command = [sys.executable, __file__, "--measure", name, str(count), folder]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return {"name": name, **json.loads(done.stdout.splitlines()[-1])}


def measure(name: str, count: int, folder: Path) -> dict[str, Any]:
    """What a case comes to."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    disable_progress_bars()
    return merged(folder) if name == "sketches" else pipeline(CASES[name], count, folder)


def table(runs: list[dict[str, Any]]) -> str:
    """A line a case and step."""
    lines = [
        "| rows | | step | seconds | of the processor | memory | disk |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in runs:
        title = CASES[each["name"]].title if each["name"] in CASES else f"{SKETCHES} sketches"
        first = f"| {each['rows']:,} | {title} |" if "rows" in each else f"| | {title} |"
        for step, took in each["steps"].items():
            lines.append(
                f"{first} {step} | {took['seconds']:,.0f} | {took['cpu_seconds']:,.0f} |"
                f" {took['memory_mb']:,} MB | {took['disk_mb']:,} MB |"
            )
            first = "| | |"
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the largest case")
    parser.add_argument("--cases", nargs="+", default=[*CASES, "sketches"], choices=[*CASES, "sketches"])
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        name, count, folder = arguments.measure
        print(json.dumps(measure(name, int(count), Path(folder))), flush=True)
        return
    from machine import results_of, write

    disable_progress_bars()
    runs = []
    for name in arguments.cases:
        if name == "rows":  # a tenth of them, too: time and memory a row must be the same
            runs.append(run(name, arguments.rows // 10))
        runs.append(run(name, round(arguments.rows * CASES[name].rows) if name in CASES else 0))
    write(results_of(parser, arguments), "load", {"runs": runs}, table(runs))


if __name__ == "__main__":
    main()
