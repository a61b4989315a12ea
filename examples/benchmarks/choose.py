"""What choosing costs: the default strategy, gate included, from what passes left of 10^5 and 10^6 rows.

    python examples/benchmarks/choose.py     # two cores, about half an hour

The signals are drawn from a mixture of clusters and lie in mapped files, as a selection's do: a sketched gradient
[256] and an embedding [384] a row. Ten classes with some wrong labels, or no classes and one group. A tenth is kept
by one process of one thread; at the smaller size by two, too, which must keep the same rows. The share is of what the
gradient pass over as many rows takes: 0.8 of a plain forward and backward pass of the six-layer Llama of `speed.py`,
whose seconds a row are measured in the same process, right after. Memory is what the process owns at its peak beyond
what it owned before (anonymous resident pages, sampled). Writes results/choose.json and results/choose.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from memory import Peak
from scale import make_rows, plain_pass
from speed import VOCABULARY, build_model
from torch import nn
from transformers.utils import logging

from sage_hf import SageConfig
from sage_hf.data.groups import Groups
from sage_hf.data.status import SCORED
from sage_hf.passes.processes import Processes
from sage_hf.selection.signals import RowSignals
from sage_hf.selector.gather import shared_choice

SIZES = (100_000, 1_000_000)
WAYS = {"classes": "ten classes", "none": "no classes, one group"}
SKETCH, WIDTH, INPUTS, CLUSTERS, CLASSES, WRONG = 256, 384, 512, 200, 10, 0.05
FRACTION, BLOCK, FEW, PLAIN_ROWS, GRADIENT_PASS = 0.1, 20_000, 500, 64, 0.8
WANTED = {"rows": SIZES[0], "share": 0.10}


def make_signals(size: int, folder: Path) -> None:
    """Files of so many rows: directions and embeddings around 200 centres, classes, losses, scores and doubts."""
    if (folder / f"numbers-{size}.npz").exists():
        return
    centres = np.random.default_rng(0).normal(size=(CLUSTERS, SKETCH + WIDTH)).astype(np.float32)
    part = np.lib.format.open_memmap
    sketched = part(folder / f"sketched-{size}.npy", mode="w+", dtype=np.float32, shape=(size, SKETCH))
    inputs = part(folder / f"inputs-{size}.npy", mode="w+", dtype=np.float16, shape=(size, INPUTS))
    embeddings = part(folder / f"embeddings-{size}.npy", mode="w+", dtype=np.float16, shape=(size, WIDTH))
    labels, losses = np.empty(size, dtype=np.int32), np.empty(size, dtype=np.float32)
    for first in range(0, size, BLOCK):
        rng, rows = np.random.default_rng(first + 1), slice(first, min(first + BLOCK, size))
        cluster = rng.integers(0, CLUSTERS, rows.stop - first)
        x = centres[cluster] + 1.5 * rng.standard_normal((len(cluster), SKETCH + WIDTH), dtype=np.float32)
        wrong = rng.random(len(cluster)) < WRONG
        labels[rows] = (cluster + wrong * rng.integers(1, CLASSES, len(cluster))) % CLASSES
        losses[rows] = np.where(wrong, 4.0, 1.0) + 0.3 * rng.standard_normal(len(cluster))
        embeddings[rows] = x[:, SKETCH:]
        inputs[rows] = np.pad(x[:, SKETCH:], ((0, 0), (0, INPUTS - WIDTH)))
        inputs[rows] += rng.standard_normal((len(cluster), INPUTS), dtype=np.float32)
        z = x[:, :SKETCH] * spectrum()
        sketched[rows] = z / np.linalg.norm(z, axis=1, keepdims=True)
    np.savez(folder / f"numbers-{size}.npz", labels=labels, losses=losses)


def spectrum() -> np.ndarray:
    """Singular values that fall as a sketch's do."""
    return (1.0 / np.sqrt(1.0 + np.arange(SKETCH))).astype(np.float32)


def open_signals(size: int, way: str, folder: Path) -> RowSignals:
    """What a selection would have gathered of the rows."""
    with np.load(folder / f"numbers-{size}.npz") as numbers:
        labels, losses = numbers["labels"], numbers["losses"]
    lots = np.random.default_rng(0).random(size, dtype=np.float32)
    names = [str(label) for label in range(CLASSES)]
    has_classes = way == "classes"
    return RowSignals(
        Groups("label", labels, names, {}) if has_classes else Groups.single(size),
        np.full(size, SCORED, dtype=np.uint8),
        lots,
        losses,
        labels=labels if has_classes else None,
        sketched=np.load(folder / f"sketched-{size}.npy", mmap_mode="r"),
        spectrum=spectrum(),
        embeddings=np.load(folder / f"embeddings-{size}.npy", mmap_mode="r"),
        inputs=np.load(folder / f"inputs-{size}.npy", mmap_mode="r"),
        doubts=0.3 * lots if has_classes else None,
    )


def plain_row() -> float:
    """Seconds of a row in a plain forward and backward pass."""
    model, rows = build_model(), make_rows(PLAIN_ROWS, VOCABULARY)
    plain_pass(model, rows.select(range(16)), "cpu")
    return plain_pass(model, rows, "cpu") / PLAIN_ROWS


def measure(size: int, way: str, folder: Path) -> dict[str, Any]:
    """Chooses, while a thread samples the memory; under `torchrun`, all processes do so together."""
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    processes, config = Processes(nn.Linear(1, 1)), SageConfig(fraction=FRACTION)
    shared_choice(config, open_signals(FEW, way, folder), processes)  # libraries loaded
    signals = open_signals(size, way, folder)
    with Peak() as peak:
        start = time.perf_counter()
        choice = shared_choice(config, signals, processes)
        seconds = time.perf_counter() - start
    kept, gate = choice.indices, choice.gate
    assert len(kept) == round(FRACTION * size)
    plain = plain_row()
    return {
        "rank": processes.rank,
        "seconds": seconds,
        "plain_row_seconds": plain,
        "share": seconds / (size * plain * GRADIENT_PASS),
        "more_mb": (peak.bytes - peak.before) / 2**20,
        "doubted": 0 if gate is None else gate.doubted,
        "digest": hashlib.sha256(kept.tobytes()).hexdigest()[:16],
    }


def run(size: int, way: str, folder: Path, count: int) -> dict[str, Any]:
    """What the main process of so many measured."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(count), "--master_port", str(port)]
    command = [sys.executable, *(launcher if count > 1 else []), __file__, "--measure", str(size), way, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    (found,) = [line for line in done.stdout.splitlines() if line.startswith('{"rank": 0')]
    result = {"rows": size, "way": way, "processes": count, **json.loads(found)}
    print(f"  {result}", file=sys.stderr, flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="rows; the first by two processes, too")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        size, way, folder = arguments.measure
        print(json.dumps(measure(int(size), way, Path(folder))), flush=True)
        return
    from machine import results_of, write

    torch.set_num_threads(1)
    runs, lines = (
        [],
        ["| rows | | processes | seconds | share of a gradient pass | memory |", "|---|---|---|---|---|---|"],
    )
    with tempfile.TemporaryDirectory(prefix="sage_hf-benchmark-") as place:
        folder = Path(place)
        for size in (FEW, *arguments.sizes):
            make_signals(size, folder)
        for size in arguments.sizes:
            for way, name in WAYS.items():
                mine = [run(size, way, folder, count) for count in ((1, 2) if size == arguments.sizes[0] else (1,))]
                assert len({each["digest"] for each in mine}) == 1
                runs += mine
                lines += [
                    f"| {size:,} | {name} | {each['processes']} | {each['seconds']:.0f} | {each['share']:.4f} |"
                    f" {each['more_mb']:.0f} MB |"
                    for each in mine
                ]
    lines.append(f"| {WANTED['rows']:,} | wanted | 1 | | <= {WANTED['share']:.2f} | |")
    result = {"wanted": WANTED, "fraction": FRACTION, "runs": runs}
    write(results_of(parser, arguments), "choose", result, "\n".join(lines))


if __name__ == "__main__":
    main()
