"""A cost model of a selection, held against runs that it was not made from, and what it says of a large one.

    python examples/benchmarks/cost.py                  # two cores, about five minutes

Measures a few unit costs on one model (the fit pass, and a second pass where there is no file, as multiples of a plain
forward and backward pass, a row of sketch, a merge, the fixed rest), then predicts whole selections with other numbers
of rows, shards, sketch sizes and processes, of another model at another length, and without a file of gradient rows;
runs them; and compares seconds, bytes on the wire and bytes on disk. At the end, the same functions for 7 billion
weights and 10 million rows on 8 and 64 GPUs, from a stated share of their peak. Writes results/cost.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from scale import SKETCH, make_rows, plain_pass, selection, sketch_seconds
from speed import LENGTH, VOCABULARY, build_model
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from sage_hf import Consensus, FrequentDirections
from sage_hf.data.windows import divide
from sage_hf.passes.gradient_cache import cache_bytes
from sage_hf.passes.kept_rows import Widths
from sage_hf.passes.merge_tree import MergeTree, Partial

WANTED = 0.25
COLUMNS = 1 + 4 + 4  # bytes a row that the processes tell each other in a pass: status, loss, score


@dataclass(frozen=True)
class Costs:
    """Unit costs on one machine.

    Attributes:
        fit: Gradients of the first pass, in plain forward and backward passes.
        score: The second pass where the rows lie in no file, in the same.
        read: Seconds of a row after the first pass where they do.
        sketch: Seconds that a row takes to be sketched, at `SKETCH` rows of `width`.
        merge: Seconds of a merge of two sketches, at the same.
        fixed: Seconds of a selection that do not depend on its rows.
        width: Of the rows that `sketch` and `merge` were measured with.
    """

    fit: float
    score: float
    read: float
    sketch: float
    merge: float
    fixed: float
    width: int


@dataclass(frozen=True)
class Job:
    """A selection whose cost is asked for.

    Attributes:
        rows: N.
        plain: Seconds of a row's plain forward and backward pass.
        width: D.
        processes: How many share it.
        shard: Rows a shard.
        sketch: l.
        file: Whether gradient rows lie in a file, in half precision.
        embedding: E.
        groups: G.
    """

    rows: int
    plain: float
    width: int
    processes: int = 1
    shard: int = 2048
    sketch: int = SKETCH
    file: bool = True
    embedding: int = 256
    groups: int = 1

    @property
    def shards(self) -> int:
        """How many shards the rows are."""
        return math.ceil(self.rows / self.shard)


def seconds(job: Job, costs: Costs) -> float:
    """Of the whole selection: the process with the most shards, then the merges across processes."""
    shards = math.ceil(job.shards / job.processes)
    rows = min(job.rows, shards * job.shard)
    wide = job.width / costs.width
    # A shrink of l rows costs about l^2 D: l D a row. A merge is a shrink.
    row = job.plain * (costs.fit + (0 if job.file else costs.score)) + (costs.read if job.file else 0)
    row += costs.sketch * wide * job.sketch / SKETCH
    merges = shards - 1 + math.ceil(math.log2(job.processes))
    return costs.fixed + rows * row + merges * costs.merge * wide * (job.sketch / SKETCH) ** 2


def node_bytes(job: Job, shards: int) -> int:
    """Of the result of so many shards: l rows in float32, or as many as it has seen; directions in float64."""
    return 4 * min(job.sketch, shards * job.shard, job.rows) * job.width + 8 * job.groups * job.width


def wire_bytes(job: Job) -> int:
    """What all send: nodes of merge trees, the result to all, the columns of two passes and what is kept of rows."""
    trees = []
    for share in divide(job.shards, [], job.processes):
        tree = MergeTree()
        for unit in share:
            tree.push(Partial(), unit.start)
        trees.append(tree)
    sent, step = 0, 1
    while step < job.processes:
        for rank in range(0, job.processes - step, 2 * step):
            for start, size, node in trees[rank + step].nodes:
                sent += node_bytes(job, size)
                trees[rank].push(node, start, size)
        step *= 2
    others = job.processes - 1
    kept = Widths(job.sketch, job.embedding, job.embedding).record.itemsize
    return sent + others * node_bytes(job, job.shards) + (2 * COLUMNS + kept) * job.rows * others


def disk_bytes(job: Job) -> dict[str, int]:
    """Cached gradients; and what is finished, to go on from: the nodes of every process's tree, and the columns."""
    nodes = job.processes * (math.ceil(math.log2(max(2, job.shards / job.processes))) + 1)
    kept = Widths(job.sketch, job.embedding, job.embedding).record.itemsize
    return {
        "file": cache_bytes(job.rows, job.width, "float16", job.embedding) if job.file else 0,
        "finished": nodes * node_bytes(job, job.shards) + (COLUMNS + kept) * job.rows,
    }


# -------------------------------------------------------------------------- measure
def other_model() -> LlamaForCausalLM:
    """4 layers, 384 wide: another shape than the one that the unit costs are of."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=384,
            intermediate_size=1536,
            num_hidden_layers=4,
            num_attention_heads=6,
            max_position_embeddings=512,
        )
    )


def merge_seconds(width: int) -> float:
    """Of two full sketches and their sums of directions."""
    halves = []
    for seed in range(2):
        rows = torch.randn(SKETCH, width, generator=torch.Generator().manual_seed(seed))
        sketch, sums = FrequentDirections(SKETCH, width), Consensus(1, width)
        sketch.update(rows)
        halves.append(Partial(sketch, sums))
    start = time.perf_counter()
    halves[0].merge(halves[1])
    return time.perf_counter() - start


def calibrate(small: int = 64, large: int = 192) -> tuple[Costs, float]:
    """The unit costs, from two sizes of one model; and the seconds of a row's plain pass."""
    model = build_model()
    data = make_rows(large, VOCABULARY)
    plain_pass(model, data.select(range(32)), "cpu")
    selection(model, data.select(range(32)))
    plain = plain_pass(model, data, "cpu") / large
    measured = [selection(model, data.select(range(size))) for size in (small, large)]
    fit, read = (
        (getattr(measured[1][1], name) - getattr(measured[0][1], name)) / (large - small)
        for name in ("fit_seconds", "score_seconds")
    )
    score = selection(model, data.select(range(small)), cache_gradients=None)[1].score_seconds / small
    width = measured[1][1].row_width
    sketch = sketch_seconds(large, width, "cpu") / large
    # No shrink comes before row 512, so that the fit pass that was measured has none.
    fixed = max(0.0, measured[1][0] - large * (fit + read))
    return Costs(fit / plain, score / plain, max(0.0, read), sketch, merge_seconds(width), fixed, width), plain


def in_one_process(model: LlamaForCausalLM, rows: int, length: int, **changes: Any) -> dict[str, Any]:
    """A selection's seconds and width, and those of a row's plain pass just before and just after."""
    data = make_rows(rows, VOCABULARY, length)
    selection(model, data.select(range(32)))
    sample = data.select(range(min(rows, 96)))
    before = plain_pass(model, sample, "cpu")
    measured, stats = selection(model, data, **changes)
    plain = (before + plain_pass(model, sample, "cpu")) / 2 / len(sample)
    return {"seconds": measured, "plain": plain, "width": stats.row_width}


def one_of_many(rows: int, shard: int) -> None:
    """What every process runs: a selection whose messages are counted."""
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    model, data = build_model(), make_rows(rows, VOCABULARY)
    selection(model, data.select(range(32)))
    sent = 0
    send, broadcast = dist.send, dist.broadcast

    def counted_send(tensor: torch.Tensor, *arguments: Any) -> None:
        nonlocal sent
        sent += tensor.nbytes
        send(tensor, *arguments)

    def counted_broadcast(tensor: torch.Tensor, src: int) -> None:
        nonlocal sent
        sent += tensor.nbytes * (dist.get_world_size() - 1) * (dist.get_rank() == src)
        broadcast(tensor, src=src)

    dist.send, dist.broadcast = counted_send, counted_broadcast
    dist.barrier()
    measured, stats = selection(model, data, shard_size=shard)
    print(json.dumps({"seconds": measured, "sent": sent, "width": stats.row_width}), flush=True)


def in_processes(count: int, rows: int, shard: int) -> dict[str, Any]:
    """A selection in several processes: its seconds, and the bytes that all have sent."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(count)]
    command += ["--master_port", str(port), __file__, "--one-of-many", "--rows", str(rows), "--shard", str(shard)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(said) == count
    return {
        "seconds": max(each["seconds"] for each in said),
        "sent": sum(each["sent"] for each in said),
        "width": said[0]["width"],
    }


def compare(name: str, unit: str, predicted: float, measured: float) -> dict[str, Any]:
    """A prediction beside what was measured."""
    line = {"run": name, "unit": unit, "predicted": predicted, "measured": measured, "ratio": predicted / measured}
    print(f"  {line}", file=sys.stderr, flush=True)
    return line


def small_runs(costs: Costs, plain: float) -> list[dict[str, Any]]:
    """Predictions for runs that the unit costs were not made from, and what these took."""
    model, found = build_model(), []
    for name, rows, changes in (
        ("384 rows", 384, {}),
        ("256 rows in shards of 32", 256, {"shard_size": 32}),
        ("256 rows, sketch of 64", 256, {"sketch_size": 64}),
    ):
        run = in_one_process(model, rows, LENGTH, **changes)
        shape = {"shard": changes.get("shard_size", 2048), "sketch": changes.get("sketch_size", SKETCH)}
        job = Job(rows, run["plain"], run["width"], **shape)
        found.append(compare(name, "seconds", seconds(job, costs), run["seconds"]))
    run = in_one_process(model, 256, LENGTH, cache_gradients=None)
    job = Job(256, run["plain"], run["width"], file=False)
    found.append(compare("256 rows without a file", "seconds", seconds(job, costs), run["seconds"]))
    with tempfile.TemporaryDirectory(prefix="sage_hf-benchmark-") as folder:
        run = in_one_process(model, 256, LENGTH, cache_gradients="float16", cache_dir=folder)
        held = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        wanted = disk_bytes(Job(256, run["plain"], run["width"]))["file"]
        found.append(compare("256 rows, the file of their gradients", "bytes on disk", wanted, held))
    run = in_one_process(other_model(), 96, 2 * LENGTH)
    job = Job(96, run["plain"], run["width"])
    found.append(compare("another model, 96 rows of 256 tokens", "seconds", seconds(job, costs), run["seconds"]))
    for count, rows, shard in ((2, 384, 32), (3, 192, 16)):
        run = in_processes(count, rows, shard)
        job = Job(rows, plain, run["width"], processes=count, shard=shard)
        name = f"{rows} rows in shards of {shard}, {count} processes"
        if count == 2:  # three do not fit on two cores
            found.append(compare(name, "seconds", seconds(job, costs), run["seconds"]))
        found.append(compare(name, "bytes sent", wire_bytes(job), run["sent"]))
    return found


# ----------------------------------------------------------------------------- on paper
WEIGHTS, TOKENS, ROWS, ROW_WIDTH = 7e9, 512, 10_000_000, 2**14
PEAK, SHARE = 989e12, 0.4


def on_paper(costs: Costs) -> list[dict[str, Any]]:
    """7 billion weights with LoRA, 10 million rows of 512 tokens, bf16 on H100s at 40 % of their peak.

    A plain pass is 6 operations a weight and token. Sketching and merging are taken to be no faster on a GPU than on
    one core of this machine.
    """
    plain = 6 * WEIGHTS * TOKENS / (SHARE * PEAK)
    found = []
    for processes in (8, 64):
        for file in (True, False):
            job = Job(ROWS, plain, ROW_WIDTH, processes=processes, file=file, embedding=512)
            found.append(
                {
                    "gpus": processes,
                    "file": file,
                    "seconds": seconds(job, costs),
                    "sketch_share": job.rows
                    / processes
                    * costs.sketch
                    * job.width
                    / costs.width
                    / seconds(job, costs),
                    "wire_bytes": wire_bytes(job),
                    **{f"{name}_bytes": size for name, size in disk_bytes(job).items()},
                }
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one-of-many", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--shard", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_of_many:
        one_of_many(arguments.rows, arguments.shard)
        return
    from machine import results_of, write

    torch.set_num_threads(1)
    costs, plain = calibrate()
    print(f"  {costs}", file=sys.stderr, flush=True)
    runs = small_runs(costs, plain)
    paper = on_paper(costs)
    lines = ["| run | | predicted | measured | predicted / measured |", "|---|---|---|---|---|"]
    for run in runs:
        show = (
            (lambda value: f"{value:.1f}") if run["unit"] == "seconds" else (lambda value: f"{value / 2**20:.1f} MB")
        )
        unit = run["unit"].removeprefix("bytes ")
        lines.append(
            f"| {run['run']} | {unit} | {show(run['predicted'])} | {show(run['measured'])} | {run['ratio']:.2f} |"
        )
    lines += ["", "| 7B with LoRA, 10 million rows | hours | on the wire | gradient rows | what is finished |"]
    lines.append("|---|---|---|---|---|")
    for each in paper:
        name = f"{each['gpus']} GPUs{'' if each['file'] else ', no room for a file'}"
        lines.append(
            f"| {name} | {each['seconds'] / 3600:.1f} | {each['wire_bytes'] / 1e9:.1f} GB | "
            f"{each['file_bytes'] / 1e9:,.0f} GB | {each['finished_bytes'] / 1e9:.1f} GB |"
        )
    result = {"costs": asdict(costs), "plain_seconds_a_row": plain, "runs": runs, "on_paper": paper, "wanted": WANTED}
    write(results_of(parser, arguments), "cost", result, "\n".join(lines))


if __name__ == "__main__":
    main()
