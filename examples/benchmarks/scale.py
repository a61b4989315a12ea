"""What a whole selection costs, everything included: the default, the fast preset, the next ones; and two processes.

    python examples/benchmarks/scale.py                 # two cores, about a quarter of an hour
    python examples/benchmarks/scale.py --device cuda   # bf16, a model of half a billion weights; no processes

On one thread, in one process, rounds of: a plain forward and backward pass over all rows in the batches of the
selection; a whole selection by default (check, gradients, embeddings, scores, gate, k-means); one with preset="fast";
one that finds its gradient rows in a file of an earlier one. Ratios are to the plain pass of the same round. Then the
rows per second of a selection under `torchrun` with one and with two processes of one thread each, in turns. Writes
results/scale.json and results/scale.md (scale_cuda.* on a GPU).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from speed import LENGTH, VOCABULARY, build_model, plain
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from sage_hf import FrequentDirections, SageConfig, SageSelector

SKETCH, BATCH = 256, 16
WANTED = {"selection": "<= 0.85", "fast": "<= 0.50", "again": "<= 0.03", "processes": ">= 1.85"}


def build_large() -> LlamaForCausalLM:
    """24 layers, 1,024 wide, 32,000 words; 0.5 billion weights."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32000,
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            max_position_embeddings=1024,
        )
    )


def make_rows(count: int, vocabulary: int, length: int = LENGTH) -> Dataset:
    """Random tokens, all rows of one length."""
    ids = torch.randint(0, vocabulary, (count, length), generator=torch.Generator().manual_seed(0)).tolist()
    return Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * length] * count})


def config(**changes: Any) -> SageConfig:
    return SageConfig(
        **{
            "fraction": 0.1,
            "sketch_size": SKETCH,
            "batch_size": BATCH,
            **changes,
        }
    )


def plain_pass(model: torch.nn.Module, rows: Dataset, device: str) -> float:
    """Seconds of forward and backward over all rows."""
    columns = rows.with_format("torch")
    start = time.perf_counter()
    for first in range(0, len(rows), BATCH):
        batch = {name: value.to(device) for name, value in columns[first : first + BATCH].items()}
        plain(model, {**batch, "labels": batch["input_ids"]})
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def selection(model: torch.nn.Module, rows: Dataset, **changes: Any) -> tuple[float, dict[str, Any]]:
    """Seconds of a whole selection, and what it measured."""
    cache_dir = changes.pop("cache_dir", None)
    start = time.perf_counter()
    selector = SageSelector(model, config=config(**changes), cache_dir=cache_dir, progress=False)
    stats = selector.select(rows).stats
    return time.perf_counter() - start, stats


def sketch_seconds(rows: int, width: int, device: str) -> float:
    """Seconds of the sketch alone for so many rows in the middle of a long pass: a shrink every 256 rows."""
    batches = torch.randn(SKETCH // BATCH, BATCH, width, device=device)
    sketch = FrequentDirections(SKETCH, width, device=device)
    for number in range(2 * len(batches)):
        sketch.update(batches[number % len(batches)])  # full: the next row shrinks it
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for number in range(4 * len(batches)):
        sketch.update(batches[number % len(batches)])
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * rows / (4 * SKETCH)


def reset_memory(device: str) -> None:
    """Starts a new peak."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: str) -> float | None:
    """MB of device memory at the peak since the last reset; None on a CPU, where `memory.py` measures."""
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None


def in_one_process(rows: int, rounds: int, device: str) -> dict[str, Any]:
    """Ratios to a plain pass."""
    torch.set_num_threads(1)
    model = build_large().to(device, torch.bfloat16) if device == "cuda" else build_model()
    data = make_rows(rows, model.config.vocab_size)
    plain_pass(model, data.select(range(2 * BATCH)), device)
    selection(model, data.select(range(2 * BATCH)))
    results = []
    memory = None
    with tempfile.TemporaryDirectory(prefix="sage_hf-benchmark-") as folder:
        settings = {"cache_dir": folder, "cache_gradients": "float16"}
        selection(model, data, **settings)
        for number in range(rounds):
            reset_memory(device)
            # A plain pass before and after each: the machine may be busier at one time than at another.
            plains, plain_memory = [plain_pass(model, data, device)], peak_memory(device)
            reset_memory(device)
            alone, stats = selection(model, data)
            if plain_memory is not None:
                memory = {"plain": plain_memory, "selection": peak_memory(device)}
            plains.append(plain_pass(model, data, device))
            fast, _ = selection(model, data, preset="fast")
            again, _ = selection(model, data, **settings, fraction=0.05)
            plains.append(plain_pass(model, data, device))
            results.append(
                {
                    "plain_seconds": plains,
                    "selection": alone / statistics.mean(plains[:2]),
                    "fast": fast / statistics.mean(plains[1:]),
                    "again": again / statistics.mean(plains[1:]),
                    "sketch": sketch_seconds(rows, stats.row_width, device) / alone,
                    "check": stats.check_seconds / alone,
                    "choice": (alone - stats.fit_seconds - stats.score_seconds) / alone,
                }
            )
            print(f"  round {number + 1}: {results[-1]}", file=sys.stderr, flush=True)
    return {"rows": rows, "row_width": stats.row_width, "device_memory_mb": memory, "rounds": results}


def one_of_many(rows: int) -> None:
    """What every process runs; the main one prints its rows per second."""
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    model, data = build_model(), make_rows(rows, VOCABULARY)
    selection(model, data.select(range(2 * BATCH)))
    seconds, stats = selection(model, data, shard_size=SKETCH)
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps({"rows_per_second": rows / seconds, "processes": stats.processes}), flush=True)


def with_processes(rows: int, rounds: int) -> list[dict[str, float]]:
    """Rows per second of one and of two processes, in turns."""
    results = []
    for number in range(rounds):
        measured = {}
        for count in (1, 2) if number % 2 == 0 else (2, 1):
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
                port = listener.getsockname()[1]
            command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(count)]
            command += ["--master_port", str(port), __file__, "--one-of-many", "--rows", str(rows)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            said = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
            assert said["processes"] == count
            measured[str(count)] = said["rows_per_second"]
        results.append({"one": measured["1"], "two": measured["2"], "ratio": measured["2"] / measured["1"]})
        print(f"  processes, round {number + 1}: {results[-1]}", file=sys.stderr, flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rows", type=int, default=512, help="rows of the dataset")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of every measurement")
    parser.add_argument("--one-of-many", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_of_many:
        one_of_many(arguments.rows)
        return
    from machine import results_of, write

    alone = in_one_process(arguments.rows, arguments.rounds, arguments.device)
    titles = {
        "selection": "whole default selection / one plain forward + backward pass",
        "fast": "whole selection with preset='fast' / plain pass",
        "again": "another default selection from cached rows / plain pass",
        "check": "the check's share of the default selection",
        "sketch": f"the sketch's (l = {SKETCH}, D = {alone['row_width']:,})",
        "choice": "the choice's, gate and k-means",
        "processes": "rows a second, two processes / one",
    }
    values = {name: [each[name] for each in alone["rounds"]] for name in titles if name != "processes"}
    result: dict[str, Any] = {"in_one_process": alone}
    if arguments.device == "cpu":
        result["processes"] = with_processes(arguments.rows, arguments.rounds)
        values["processes"] = [each["ratio"] for each in result["processes"]]
    if memory := alone["device_memory_mb"]:
        titles["memory"] = "device memory at the peak, selection / plain pass"
        values["memory"] = [memory["selection"] / memory["plain"]]
    lines = ["| measured | ratio | range | wanted |", "|---|---|---|---|"]
    for name, each in values.items():
        spread = f"{min(each):.2f} to {max(each):.2f}"
        lines.append(f"| {titles[name]} | {statistics.mean(each):.2f} | {spread} | {WANTED.get(name, '')} |")
    name = "scale" if arguments.device == "cpu" else "scale_cuda"
    write(results_of(parser, arguments, free=("device",)), name, result, "\n".join(lines))


if __name__ == "__main__":
    main()
