"""What subsets are worth: every strategy against class-balanced random rows, on three tasks, clean and spoilt.

    python examples/benchmarks/quality.py                      # everything: hours; goes on where it stopped
    python examples/benchmarks/quality.py --task digits        # a part of it, into the same folder
    python examples/benchmarks/quality.py --report             # the tables of what is finished

For every task, share of spoilt rows (0 and 20 %) and seed, rows are split and spoilt anew, a model is warmed up on
all of them, rows are scored once, and `sage_hf.compare` trains a fresh model for as many steps on what each strategy
keeps and on all rows. Intervals are Student's t over seeds, 95 %; differences from random are paired by seed. Test
rows are never spoilt. The settings of tasks (`quality_tasks.py`) were fixed before the first run; the default strategy
was tuned on the same digits, topics and docstrings, with smaller models for the first two (docs/strategies.md).
Writes results/quality.json and results/quality.md.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import torch
from machine import write
from quality_tasks import TASKS
from transformers.utils import logging as transformers_logging

from sage_hf import Comparison, SageConfig, compare
from sage_hf.arms import RANDOM
from sage_hf.strategies import STRATEGIES

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5)
SPOILT = (0.0, 0.2)
DEFAULT, PAPER = "auto", "agreement"


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
        build_model=prepared.build,
        fractions=FRACTIONS,
        strategies=strategies,
        seeds=[seed],
        data_collator=prepared.collator,
        config=SageConfig(seed=seed),
        training=task.training,
        output=folder,
        progress=False,
    )


def merged(parts: list[Comparison]) -> Comparison:
    """The comparisons of several seeds as one."""
    return replace(parts[0], cells=[cell for part in parts for cell in part.cells])


def verdict(comparison: Comparison) -> list[dict]:
    """How the default does at each fraction: against random, the paper's rule and the best baseline."""
    sign = -1.0 if comparison.lower_is_better else 1.0
    rows = []
    for fraction in comparison.fractions:
        mine = comparison.arm(DEFAULT, fraction)
        gain = mine.difference
        baselines = [each for each in comparison.strategies if each not in (DEFAULT, "coverage", PAPER)]
        best = max(baselines, key=lambda name: sign * comparison.arm(name, fraction).value.mean)
        rows.append(
            {
                "fraction": fraction,
                "mean": mine.value.mean,
                "half_interval": mine.value.half,
                "random": comparison.arm(RANDOM, fraction).value.mean,
                "gain_over_random": sign * gain.mean,
                "gain_half_interval": gain.half,
                "agreement": comparison.arm(PAPER, fraction).value.mean,
                "best_baseline": best,
                "best_baseline_mean": comparison.arm(best, fraction).value.mean,
                "best_baseline_half_interval": comparison.arm(best, fraction).value.half,
            }
        )
    return rows


def report(folder: Path) -> None:
    """The tables of all seeds that are finished."""
    cells, lines = {}, []
    for name, task in TASKS.items():
        for share in SPOILT:
            parts = [
                Comparison.load(each.parent) for each in sorted(folder.glob(f"{name}-{share:g}-*/comparison.json"))
            ]
            if not parts:
                continue
            comparison = merged(parts)
            scale = 1.0 if comparison.lower_is_better else 100.0
            title = f"{task.title}, {f'{share:.0%} {task.spoiling}' if share else 'clean'}"
            shown = [f"{fraction:.0%}" for fraction in comparison.fractions]
            metric = f"{comparison.metric}{'' if comparison.lower_is_better else ', %'}"
            lines += [f"| {title}: {metric} | {' | '.join(shown)} |", f"|---|{'---|' * len(shown)}"]
            for strategy in comparison.strategies:
                arms = [comparison.arm(strategy, fraction) for fraction in comparison.fractions]
                digits = 2 if comparison.lower_is_better else 1
                values = [
                    f"{scale * arm.value.mean:.{digits}f} ± {scale * (arm.value.half or 0):.{digits}f}" for arm in arms
                ]
                label = f"**{strategy}**" if strategy == DEFAULT else strategy
                lines.append(f"| {label} | {' | '.join(values)} |")
            reference = comparison.reference
            lines += [f"| all rows | {'| ' * (len(shown) - 1)}{scale * reference.value.mean:.2f} |", ""]
            cells[f"{name}-{share:g}"] = {
                "title": title,
                "metric": comparison.metric,
                "lower_is_better": comparison.lower_is_better,
                "seeds": len(parts),
                "all_rows": {"mean": reference.value.mean, "half_interval": reference.value.half},
                "default": verdict(comparison),
                "trainings": [vars(cell) for cell in comparison.cells],
            }
    rows = [(cell["lower_is_better"], row) for cell in cells.values() for row in cell["default"]]
    summary = summarize(rows)
    write("quality", {"fractions": FRACTIONS, "summary": summary, "tasks": cells}, "\n".join(lines).strip())
    print(summary)


def summarize(rows: list[tuple[bool, dict]]) -> dict[str, int]:
    """In how many cells the default is where it should be."""

    def gain(lower: bool, row: dict, other: str) -> float:
        return (row[other] - row["mean"]) if lower else (row["mean"] - row[other])

    small = [row for _, row in rows if row["fraction"] <= 0.1]
    return {
        "cells": len(rows),
        "not_worse_than_random_within_interval": sum(
            row["gain_over_random"] >= -(row["gain_half_interval"] or 0) for _, row in rows
        ),
        "cells_at_or_below_10_percent": len(small),
        "better_than_random_by_more_than_the_interval_there": sum(
            row["gain_over_random"] > (row["gain_half_interval"] or 0) for row in small
        ),
        "better_than_the_papers_rule": sum(gain(lower, row, "agreement") > 0 for lower, row in rows),
        "at_or_above_the_best_baseline": sum(gain(lower, row, "best_baseline_mean") >= 0 for lower, row in rows),
        "at_or_above_the_best_baseline_within_its_interval": sum(
            gain(lower, row, "best_baseline_mean") >= -(row["best_baseline_half_interval"] or 0) for lower, row in rows
        ),
    }


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
    report(arguments.folder)


if __name__ == "__main__":
    main()
