"""Test accuracy after training on a part of scikit-learn's digits, chosen by agreement or by lot, over several seeds.

    python examples/benchmarks/digits.py                # about ten minutes on two cores

Every seed has its own split, wrong labels, warm-up and initial weights; all trainings take the same number of steps.
The intervals are 95 % t-intervals of the mean over seeds; those of the difference compare the rules seed by seed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

import numpy as np
from machine import write
from scipy import stats

from sage_hf import SageConfig, SageSelector
from sage_hf.demo import LEARNING_RATE, WARM_UP_STEPS, build_vit, load_noisy_digits, train_and_test
from sage_hf.warmup import warm_up

FRACTIONS = (0.02, 0.1, 0.3)
RULES = ("agreement", "random")


def one_seed(seed: int, wrong_share: float) -> list[dict[str, Any]]:
    """Accuracies and shares of wrong labels kept, for every fraction and rule, and of all rows."""
    digits = load_noisy_digits(seed, wrong_share)
    model = build_vit(seed)
    warm_up(model, digits.train, steps=WARM_UP_STEPS, learning_rate=LEARNING_RATE, batch_size=32)
    results = []
    for fraction in (*FRACTIONS, 1.0):
        config = SageConfig(fraction=fraction, seed=seed)
        for rule in RULES if fraction < 1 else ("all rows",):
            if fraction < 1:
                indices = SageSelector(model, config=replace(config, strategy=rule)).select(digits.train).indices
            else:
                indices = np.arange(len(digits.train))
            results.append(
                {
                    "wrong_share": wrong_share,
                    "seed": seed,
                    "fraction": fraction,
                    "rule": rule,
                    "accuracy": train_and_test(digits.train.select(indices), digits.test, seed=seed),
                    "wrong_kept": float(digits.is_wrong[indices].mean()),
                }
            )
            print(results[-1], file=sys.stderr, flush=True)
    return results


def interval(values: list[float]) -> dict[str, float]:
    """Mean and half-width of its 95 % t-interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return {"mean": float(np.mean(values)), "half_width": float(half)}


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for every share of wrong labels and fraction."""
    cells = []
    for wrong_share, fraction in sorted({(run["wrong_share"], run["fraction"]) for run in runs}):
        here = [run for run in runs if (run["wrong_share"], run["fraction"]) == (wrong_share, fraction)]
        cell: dict[str, Any] = {"wrong_share": wrong_share, "fraction": fraction}
        of = {rule: [run for run in here if run["rule"] == rule] for rule in {run["rule"] for run in here}}
        for rule, mine in of.items():
            cell[rule] = interval([run["accuracy"] for run in mine])
            cell[f"{rule}, wrong kept"] = float(np.mean([run["wrong_kept"] for run in mine]))
        if "agreement" in of:
            pairs = zip(of["agreement"], of["random"], strict=True)
            cell["difference"] = interval([one["accuracy"] - other["accuracy"] for one, other in pairs])
        cells.append(cell)
    return cells


def percent(value: dict[str, float]) -> str:
    """Mean and half-width in %."""
    return f"{100 * value['mean']:.1f} ± {100 * value['half_width']:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    runs = [run for wrong in (0.0, 0.2) for seed in range(arguments.seeds) for run in one_seed(seed, wrong)]
    cells = summarise(runs)
    lines = [
        "| wrong labels | kept | agreement, accuracy % | random, accuracy % | difference | wrong labels kept |",
        "|---|---|---|---|---|---|",
    ]
    for cell in cells:
        start = f"| {cell['wrong_share']:.0%} | {cell['fraction']:.0%} |"
        if "agreement" not in cell:
            lines.append(f"{start} {percent(cell['all rows'])} (all rows) | | | |")
            continue
        kept = f"{cell['agreement, wrong kept']:.0%}, by lot {cell['random, wrong kept']:.0%}"
        both = f"{percent(cell['agreement'])} | {percent(cell['random'])}"
        lines.append(f"{start} {both} | {percent(cell['difference'])} | {kept} |")
    write("digits", {"seeds": arguments.seeds, "cells": cells, "runs": runs}, "\n".join(lines))


if __name__ == "__main__":
    main()
