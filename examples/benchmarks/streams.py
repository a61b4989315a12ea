"""What the default keeps of a stream, against what it keeps of a dataset of the same rows, on the tasks of quality.py.

    python examples/benchmarks/streams.py               # about ten minutes on one core

A stream of up to 32,768 rows gives the rows that a dataset gives (the column "same rows"). So that windows show on
tasks of some hundred or thousand rows, streams are chosen from in windows of 256 rows, too, and a fresh model is
trained on what each of the two keeps, with the same seed. A fifth of the rows is spoilt, a tenth is
kept. Differences are paired by seed, Student's t over seeds, 95 %. Writes results/streams.json and results/streams.md.
"""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from machine import results_of, write
from transformers.utils import logging as transformers_logging
from width import LEARNED, TASKS, Trainings

from sage_hf import SageConfig, SageSelector
from sage_hf.comparison.intervals import estimate
from sage_hf.selector import stream_windows

WHOLE, WINDOW, FRACTION, SPOILT = stream_windows.WINDOW_ROWS, 256, 0.1, 0.2


def stream_of(rows: Dataset) -> IterableDataset:
    """The same rows as a stream, with their transform, if they have one."""
    transform = rows.format["format_kwargs"].get("transform")
    stream = rows.with_format(None).to_iterable_dataset()
    return stream if transform is None else stream.map(transform, batched=True, remove_columns=["row"])


def measure(task: str, seed: int) -> dict[str, float]:
    """What is kept, and what it is worth."""
    prepared = TASKS[task].prepare(seed, SPOILT)
    config = SageConfig(fraction=FRACTION, seed=seed)

    def kept(rows: Dataset | IterableDataset) -> np.ndarray:
        selector = SageSelector(prepared.scorer, data_collator=prepared.collator, config=config, progress=False)
        return np.asarray(selector.select(rows).indices)

    whole, streamed = kept(prepared.train), kept(stream_of(prepared.train))
    stream_windows.WINDOW_ROWS = WINDOW
    windowed = kept(stream_of(prepared.train))
    stream_windows.WINDOW_ROWS = WHOLE
    trainings = Trainings(task, prepared, seed)
    return {
        "same": float(np.array_equal(whole, streamed)),
        "windows": len(prepared.train) / WINDOW,
        "overlap": len(np.intersect1d(whole, windowed)) / len(whole),
        "dataset": trainings.value(whole),
        "windowed": trainings.value(windowed),
    }


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """The results as Markdown."""
    heads = ("task", "seeds", "same rows in one window", "windows of 256", "same rows in these", "dataset", "stream")
    lines = [(*heads, "stream better by"), ("---",) * (len(heads) + 1)]
    for task, runs in found.items():
        scale, unit = (100, " points") if LEARNED[task] == "accuracy" else (1, " loss")
        values = {name: np.array([run[name] for run in runs]) for name in runs[0]}
        gain = estimate((scale * (values["windowed"] - values["dataset"])).tolist())
        spread = "" if gain.half is None else f" ± {gain.half:.2f}"
        cells = (
            TASKS[task].title,
            f"{len(runs)}",
            f"{values['same'].mean():.0%}",
            f"{values['windows'].mean():.1f}",
            f"{values['overlap'].mean():.0%}",
            *(f"{scale * values[name].mean():.2f}" for name in ("dataset", "windowed")),
        )
        lines.append((*cells, f"{gain.mean:+.2f}{spread}{unit}"))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    found: dict[str, list[Any]] = {}
    for task in arguments.task:
        for seed in arguments.seeds:
            found.setdefault(task, []).append(measure(task, seed))
            print(task, seed, found[task][-1], file=sys.stderr, flush=True)
    result = {"window": WINDOW, "fraction": FRACTION, "spoilt": SPOILT, "runs": found}
    write(results_of(parser, arguments), "streams", result, table(found))


if __name__ == "__main__":
    main()
