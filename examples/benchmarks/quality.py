"""What subsets are worth: every strategy against class-balanced random rows, on six tasks, clean and spoilt.

    python examples/benchmarks/quality.py                      # everything: hours; goes on where it stopped
    python examples/benchmarks/quality.py --task digits        # a part of it: trainings into the same folder
    python examples/benchmarks/quality.py --report             # the tables of what is finished
    python examples/benchmarks/quality.py --strategies auto herding --fractions 0.05 --folder out/look
    python examples/benchmarks/quality.py --task minilm --device cuda    # a part of it on a GPU

For every task, share of spoilt rows (0 and 20 %) and seed, rows are split and spoilt anew, a model is warmed up on
all of them, rows are scored once, and `sage_hf.compare` trains a fresh model for as many steps on what each strategy
keeps and on all rows. Intervals are Student's t over seeds, 95 %; differences from random are paired by seed. Test
rows are never spoilt. Of the library's thirteen strategies eight are trained. The other five (loss, gradient_norm,
el2n, k_center, grad_match) were trained, too, in an earlier whole run of four tasks (results/quality_earlier.json):
one of them was the best baseline in 2 of 48 cells, by at most 0.4 points; `--strategies` names them. The settings of
tasks (`quality_tasks.py`) were fixed before the first run; the default strategy was tuned on the same digits, topics
and docstrings, mostly with smaller models (docs/strategies.md). Nothing was tuned on the tumours, of which there was a
trial run of six strategies with the same settings, nor on the patches and on all of MiniLM, whose settings came from
trainings on all rows alone.
Writes results/quality.json, quality.md (the README's table), quality_all.md (every strategy) and quality.png; a run
that is no whole one writes them to a folder `results` beside its trainings.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from machine import results_of
from quality_report import SHOWN, Measured, collect, report
from quality_tasks import TASKS
from transformers.utils import logging as transformers_logging

from sage_hf import Comparison, SageConfig, compare
from sage_hf.strategies import STRATEGIES

# Trained by default.
COMPARED = ("auto", "coverage", "agreement", "random", "herding", "small_loss", "craig", "embedding_kmeans")
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5)
SPOILT = (0.0, 0.2)


@dataclass(frozen=True)
class Asked:
    """What is trained of every task: these strategies at these shares, on a device."""

    strategies: Sequence[str]
    fractions: Sequence[float]
    device: str


def run(name: str, share: float, seed: int, folder: Path, asked: Asked) -> Comparison:
    """All trainings of one task, share of spoilt rows and seed; those that are finished are read."""
    task, wanted, shares = TASKS[name], strategies_for(name, asked.strategies), sorted(asked.fractions)
    if (folder / "comparison.json").exists():
        done = Comparison.load(folder)
        # What an earlier run trained stays in the comparison.
        wanted = [each for each in STRATEGIES if each in {*wanted, *done.strategies}]
        shares = sorted({*shares, *done.fractions})
        if (wanted, shares) == ([each for each in STRATEGIES if each in done.strategies], done.fractions):
            return done
    prepared = task.prepare(seed, share)
    return compare(
        prepared.scorer.to(asked.device),  # where it is, trainings are
        prepared.train,
        prepared.test,
        model_init=prepared.build,
        fractions=shares,
        strategies=wanted,
        seeds=[seed],
        data_collator=prepared.collator,
        config=SageConfig(seed=seed),
        training_args=task.training,
        output_dir=folder,
        progress=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--spoilt", type=float, nargs="+", default=list(SPOILT))
    parser.add_argument(
        "--strategies",
        nargs="+",
        choices=list(STRATEGIES),
        default=list(COMPARED),
        help="besides auto, agreement and random, which the tables are of",
    )
    parser.add_argument("--fractions", type=float, nargs="+", default=list(FRACTIONS))
    parser.add_argument("--folder", type=Path, default=Path("out/quality"), help="finished trainings")
    parser.add_argument("--device", default="cpu", help="of the passes and the trainings; warm-ups are on the CPU")
    parser.add_argument("--report", action="store_true", help="only the tables of what is finished")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    if not arguments.report:
        asked = Asked(arguments.strategies, arguments.fractions, arguments.device)
        for seed in arguments.seeds:  # seed by seed, so that a part of the run is worth something
            for name in arguments.task:
                for share in arguments.spoilt:
                    folder = arguments.folder / f"{name}-{share:g}-{seed}"
                    run(name, share, seed, folder, asked)
                    print(name, share, seed, flush=True)
    tasks = collect(arguments.folder, sorted({*SPOILT, *arguments.spoilt}))
    is_whole = all(is_finished(tasks, name, share, parser.get_default("seeds")) for name in TASKS for share in SPOILT)
    report(tasks, results_of(parser, arguments, free=("report", "device"), is_whole=is_whole))


def strategies_for(name: str, strategies: Sequence[str]) -> list[str]:
    """Those of a task, in the library's order: a language model has no classes to err in."""
    return [each for each in STRATEGIES if each in {*strategies, *SHOWN} and (each != "el2n" or name != "language")]


def is_finished(tasks: dict[str, Measured], name: str, share: float, seeds: Sequence[int]) -> bool:
    """Whether every training of a task and share of spoilt rows is there, of these seeds."""
    task = tasks.get(f"{name}-{share:g}")
    if task is None:
        return False
    trained = task["values"]
    return set(task["seeds"]) >= set(seeds) and task["fractions"] == list(FRACTIONS) and set(trained) >= set(COMPARED)


if __name__ == "__main__":
    main()
