"""What subsets are worth: every strategy against class-balanced random rows, on four tasks, clean and spoilt.

    python examples/benchmarks/quality.py                      # everything: hours; goes on where it stopped
    python examples/benchmarks/quality.py --task digits        # a part of it, into the same folder
    python examples/benchmarks/quality.py --report             # the tables of what is finished

For every task, share of spoilt rows (0 and 20 %) and seed, rows are split and spoilt anew, a model is warmed up on
all of them, rows are scored once, and `sage_hf.compare` trains a fresh model for as many steps on what each strategy
keeps and on all rows. Intervals are Student's t over seeds, 95 %; differences from random are paired by seed. Test
rows are never spoilt. The settings of tasks (`quality_tasks.py`) were fixed before the first run; the default strategy
was tuned on the same digits, topics and docstrings, mostly with smaller models (docs/strategies.md). Nothing was tuned
on the tumours, which came last, after a trial run of six strategies with the same settings.
Writes results/quality.json, quality.md (the README's table), quality_all.md (every strategy) and quality.png.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from quality_report import report
from quality_tasks import TASKS
from transformers.utils import logging as transformers_logging

from sage_hf import Comparison, SageConfig, compare
from sage_hf.strategies import STRATEGIES

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5)
SPOILT = (0.0, 0.2)


def run(name: str, share: float, seed: int, folder: Path) -> Comparison:
    """All trainings of one task, share and seed; those that are finished are read."""
    task = TASKS[name]
    done = folder / "comparison.json"
    if done.exists():
        return Comparison.load(folder)
    prepared = task.prepare(seed, share)
    strategies = [each for each in STRATEGIES if each != "el2n" or name != "language"]
    return compare(
        prepared.scorer,
        prepared.train,
        prepared.test,
        model_init=prepared.build,
        fractions=FRACTIONS,
        strategies=strategies,
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
    parser.add_argument("--folder", type=Path, default=Path("out/quality"), help="finished trainings")
    parser.add_argument("--report", action="store_true", help="only the tables of what is finished")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    if not arguments.report:
        for seed in arguments.seeds:  # seed by seed, so that a part of the run is worth something
            for name in arguments.task:
                for share in arguments.spoilt:
                    run(name, share, seed, arguments.folder / f"{name}-{share:g}-{seed}")
                    print(name, share, seed, flush=True)
    report(arguments.folder, SPOILT)


if __name__ == "__main__":
    main()
