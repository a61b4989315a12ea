"""What the trainings of `quality.py` come to: tables, a picture, and where the default is where it should be.

Everything is computed from the values of single trainings, which results/quality.json holds; a test computes it again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from machine import write
from quality_tasks import TASKS

from sage_hf import Comparison
from sage_hf.comparison.intervals import Estimate, estimate
from sage_hf.comparison.runs import ALL, RANDOM
from sage_hf.hub.pictures import render
from sage_hf.strategies import STRATEGIES

DEFAULT, PAPER = "auto", "agreement"
# Of this package; every other strategy is a baseline.
OWN = (DEFAULT, "coverage", PAPER)
# Without which there is no table.
SHOWN = (DEFAULT, PAPER, RANDOM)
# Shares at which the default is to be better than random rows by more than the interval.
SMALL = 0.1
# Share of what all rows reach that the default is to reach, at these shares of the rows.
FULL, FROM_PRETRAINED, FROM_NOTHING = 0.98, 0.05, 0.25

# The share of the rows that the README's table is about.
AT = 0.05

# A task, clean or spoilt, as JSON: title, metric, lower_is_better, pretrained, fractions, seeds, on what each seed's
# models were trained, and the value of every training, values[strategy][fraction as text][place of the seed].
Measured = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """The default at one share of one task; gains are positive where the default is better, paired by seed.

    Attributes:
        fraction: The share of the rows.
        value: What it reaches.
        over_random: Its gain over class-balanced random rows.
        over_paper: Over the paper's rule.
        best: The baseline with the best mean, chosen after the fact.
        over_best: The gain over that.
        of_all: Share of what all rows reach that it reaches, a ratio of means; None of a loss.
    """

    fraction: float
    value: Estimate
    over_random: Estimate
    over_paper: Estimate
    best: str
    over_best: Estimate
    of_all: Estimate | None = None

    @property
    def falls_short(self) -> list[str]:
        """What it is not and should be, for people."""
        found = []
        if not _holds(self.over_random):
            found.append("worse than random rows")
        elif self.fraction <= SMALL and not self.is_better_than_random:
            found.append("not better than random rows by more than the interval")
        if self.over_paper.mean <= 0:
            found.append("not better than the paper's rule")
        if self.over_best.mean < 0:
            found.append(f"behind {self.best}")
        return found

    @property
    def is_better_than_random(self) -> bool:
        """By more than the interval."""
        return self.over_random.mean > 0 and self.over_random.differs_from_zero


def collect(folder: Path, shares: Sequence[float]) -> dict[str, Measured]:
    """All tasks of which a seed is finished, with the strategies and fractions that every finished seed has."""
    found = {}
    for name, task in TASKS.items():
        for share in shares:
            places = sorted(each.parent for each in folder.glob(f"{name}-{share:g}-*/comparison.json"))
            parts = [Comparison.load(place) for place in places]
            if not parts:
                continue
            first, trained = parts[0], [{run.key[:2]: run for run in part.runs} for part in parts]
            strategies = [each for each in STRATEGIES if all(each in part.strategies for part in parts)]
            fractions = [each for each in first.fractions if all(each in part.fractions for part in parts)]
            keys = [(ALL, 1.0), *((strategy, fraction) for strategy in strategies for fraction in fractions)]
            values: dict[str, dict[str, list[float]]] = {}
            for strategy, fraction in keys:
                values.setdefault(strategy, {})[f"{fraction:g}"] = [
                    runs[strategy, fraction].metrics[first.metric] for runs in trained
                ]
            found[f"{name}-{share:g}"] = {
                "title": f"{task.title}, {f'{share:.0%} {task.spoiling}' if share else 'clean'}",
                "metric": first.metric,
                "lower_is_better": not first.greater_is_better,
                "pretrained": task.pretrained,
                "fractions": fractions,
                "seeds": [part.seeds[0] for part in parts],
                "trained_on": [_trained_on(place) for place in places],
                "values": values,
            }
    return found


def _trained_on(folder: Path) -> str:
    """The kind of device and the version of torch that a seed's models were trained with."""
    settings = json.loads((folder / "settings.json").read_text())
    return f"{'CPU' if settings['training'].get('use_cpu') else 'GPU'}, torch {settings['versions']['torch']}"


def cells_of(task: Measured) -> list[Cell]:
    """The default at every share."""
    cells = []
    for fraction in task["fractions"]:
        gains = {strategy: _gain(task, strategy, fraction) for strategy in task["values"] if strategy != ALL}
        best = min((name for name in gains if name not in OWN), key=lambda name: gains[name].mean)
        value, of_all = _of(task, DEFAULT, fraction), _of_all(task, fraction)
        cells.append(Cell(fraction, value, gains[RANDOM], gains[PAPER], best, gains[best], of_all))
    return cells


def _of_all(task: Measured, fraction: float, strategy: str = DEFAULT) -> Estimate | None:
    """A strategy's mean over that of all rows, with the interval of a ratio of paired means; None of a loss."""
    mine, whole = task["values"][strategy][f"{fraction:g}"], task["values"][ALL]["1"]
    mean = estimate(whole).mean
    if task["lower_is_better"] or not mean > 0:
        return None
    ratio = estimate(mine).mean / mean
    # To first order, a seed moves the ratio by so much (Cochran, Sampling Techniques, section 2.11).
    return estimate([ratio + (one - ratio * other) / mean for one, other in zip(mine, whole, strict=True)])


def _of(task: Measured, strategy: str, fraction: float) -> Estimate:
    return estimate(task["values"][strategy][f"{fraction:g}"])


def _gain(task: Measured, strategy: str, fraction: float, of: str = DEFAULT) -> Estimate:
    """What a strategy, the default unless told, gains over another; positive where it is better."""
    sign = -1.0 if task["lower_is_better"] else 1.0
    mine, theirs = (task["values"][name][f"{fraction:g}"] for name in (of, strategy))
    return estimate([sign * (one - other) for one, other in zip(mine, theirs, strict=True)])


def _holds(gain: Estimate) -> bool:
    """Whether a gain is no loss, within its interval."""
    return gain.mean >= -(gain.half or 0.0)


def summarize(tasks: dict[str, Measured]) -> dict[str, Any]:
    """In how many cells the default is where it should be; and against each baseline as the one rule for all."""
    cells = [cell for task in tasks.values() for cell in cells_of(task)]
    small = [cell for cell in cells if cell.fraction <= SMALL]
    return {
        "cells": len(cells),
        "not_worse_than_random_within_the_interval": sum(_holds(cell.over_random) for cell in cells),
        "cells_at_or_below_10_percent": len(small),
        "better_than_random_by_more_than_the_interval_there": sum(cell.is_better_than_random for cell in small),
        "better_than_the_papers_rule": sum(cell.over_paper.mean > 0 for cell in cells),
        "at_or_above_the_best_baseline": sum(cell.over_best.mean >= 0 for cell in cells),
        "at_or_above_the_best_baseline_within_the_interval": sum(_holds(cell.over_best) for cell in cells),
        "reached_of_all_rows": [_reached(task) for task in tasks.values() if not task["lower_is_better"]],
        "at_or_above_each_baseline": {
            name: {"cells": len(gains), "at_or_above": sum(gain >= 0 for gain in gains)}
            for name, gains in _gains_over_each(tasks).items()
        },
    }


def _reached(task: Measured) -> dict[str, Any]:
    """What the default reaches of all rows' accuracy at the share at which it is to reach 98 % of it."""
    fraction = FROM_PRETRAINED if task["pretrained"] else FROM_NOTHING
    found = _of_all(task, fraction) if fraction in task["fractions"] else None
    about = {"task": task["title"], "fraction": fraction, "wanted": FULL}
    return about | {"of_all": None if found is None else found.mean, "half": None if found is None else found.half}


def _gains_over_each(tasks: dict[str, Measured]) -> dict[str, list[float]]:
    """Mean gains over every baseline, in all cells where it was trained."""
    found: dict[str, list[float]] = {}
    for task in tasks.values():
        for fraction in task["fractions"]:
            for strategy in task["values"]:
                if strategy not in (ALL, *OWN):
                    found.setdefault(strategy, []).append(_gain(task, strategy, fraction).mean)
    return found


# ------------------------------------------------------------------------ tables
def short_table(tasks: dict[str, Measured]) -> str:
    """Of every task the default, random rows, the paper's rule and the best baseline."""
    fractions = next(iter(tasks.values()))["fractions"]
    lines = [f"| | {' | '.join(f'{share:.0%}' for share in fractions)} |", f"|---|{'---|' * len(fractions)}"]
    for task in tasks.values():
        cells, form = cells_of(task), _Form(task)
        everything = form.value(_of(task, ALL, 1.0))
        lines.append(f"| **{task['title']}**: {form.unit}; all rows {everything} |{' |' * len(fractions)}")
        rows = {
            "default": [form.value(cell.value) for cell in cells],
            "random": [form.value(_of(task, RANDOM, share)) for share in fractions],
            "default better than random by": [
                f"**{form.gain(cell.over_random)}**" if cell.is_better_than_random else form.gain(cell.over_random)
                for cell in cells
            ],
            "share of full accuracy reached": [form.share(cell.of_all) for cell in cells],
            "the paper's rule": [form.value(_of(task, PAPER, share)) for share in fractions],
            "best of the baselines": [
                f"{form.value(_of(task, cell.best, cell.fraction), half=False)} {cell.best}" for cell in cells
            ],
        }
        lines += [f"| {label} | {' | '.join(texts)} |" for label, texts in rows.items() if any(texts)]
    return "\n".join(lines)


def shortest_table(tasks: dict[str, Measured]) -> str:
    """The README's: what every task reaches with few rows, as a share of what all rows reach; of a loss as it is."""
    strategies = {"default": DEFAULT, "random rows": RANDOM, "the paper's rule": PAPER}
    lines = [f"| with {100 * AT:g} % of the rows | all rows | {' | '.join(strategies)} |", "|---|---|---|---|---|"]
    for task in tasks.values():
        if AT not in task["fractions"]:
            continue
        form, texts = _Form(task), []
        for strategy in strategies.values():
            share = _of_all(task, AT, strategy)
            value = form.value(_of(task, strategy, AT)) if share is None else form.share(share, 0)
            texts.append(f"**{value}**" if strategy == DEFAULT else value)
        everything = form.value(_of(task, ALL, 1.0), half=False)
        whole = f"loss {everything}" if task["lower_is_better"] else f"{task['metric']} {everything} %"
        lines.append(f"| {task['title']} | {whole} | {' | '.join(texts)} |")
    return "\n".join(lines)


def counts_table(tasks: dict[str, Measured]) -> str:
    """In how many cells, a task at a share, the default is where it should be."""
    found = summarize(tasks)
    small, cells = found["cells_at_or_below_10_percent"], found["cells"]
    rows = {
        "not worse than random rows by more than the interval": ("not_worse_than_random_within_the_interval", cells),
        f"better than random rows by more than the interval, at {SMALL:.0%} of the rows or fewer": (
            "better_than_random_by_more_than_the_interval_there",
            small,
        ),
        "ahead of the paper's rule": ("better_than_the_papers_rule", cells),
        "at or above the best baseline, chosen after the fact for each cell": ("at_or_above_the_best_baseline", cells),
        "not worse than that baseline by more than the interval": (
            "at_or_above_the_best_baseline_within_the_interval",
            cells,
        ),
    }
    lines = ["| the default is | in cells | of |", "|---|---|---|"]
    lines += [f"| {label} | {found[name]} | {count} |" for label, (name, count) in rows.items()]
    for name, each in found["at_or_above_each_baseline"].items():
        lines.append(f"| at or above {name} | {each['at_or_above']} | {each['cells']} |")
    return "\n".join(lines)


def long_tables(tasks: dict[str, Measured]) -> str:
    """Every strategy of every task, and the cells that fall short."""
    lines = ["Mean and 95 % interval over seeds. The default is `auto`.", ""]
    for task in tasks.values():
        form, fractions = _Form(task), task["fractions"]
        where = "; ".join(sorted(set(task.get("trained_on", []))))
        told = f" ({where})" if where else ""
        head = f"{task['title']}: {form.unit}, {len(task['seeds'])} seeds{told}"
        lines += [f"| {head} | {' | '.join(f'{share:.0%}' for share in fractions)} |"]
        lines += [f"|---|{'---|' * len(fractions)}"]
        for strategy in task["values"]:
            if strategy == ALL:
                continue
            texts = [form.value(_of(task, strategy, share)) for share in fractions]
            label = f"**{strategy}**" if strategy == DEFAULT else strategy
            lines.append(f"| {label} | {' | '.join(texts)} |")
        reached = [form.share(cell.of_all) for cell in cells_of(task)]
        if any(reached):
            lines.append(f"| share of full accuracy that auto reaches | {' | '.join(reached)} |")
        everything = form.value(_of(task, ALL, 1.0))
        lines += [f"| all rows {everything} |{' |' * len(fractions)}", ""]
    lines += ["Where the default falls short:", ""]
    for task in tasks.values():
        form = _Form(task)
        for cell in cells_of(task):
            if cell.falls_short:
                best = f"{cell.best} {form.gain(cell.over_best)}"
                lines.append(
                    f"- {task['title']}, {cell.fraction:.0%}: {', '.join(cell.falls_short)} (gain over random "
                    f"{form.gain(cell.over_random)}, the paper's rule {form.gain(cell.over_paper)}, {best})"
                )
    return "\n".join(lines)


class _Form:
    """How numbers of a task are written."""

    def __init__(self, task: Measured) -> None:
        self._scale, self._digits = (1.0, 3) if task["lower_is_better"] else (100.0, 1)
        self.unit = f"{task['metric']}, less is better" if task["lower_is_better"] else f"{task['metric']} in %"

    def value(self, of: Estimate, half: bool = True) -> str:
        """Mean and half interval."""
        return self._text(of, "", half)

    def gain(self, of: Estimate) -> str:
        """The same with a sign."""
        return self._text(of, "+", True)

    def share(self, of: Estimate | None, digits: int = 1) -> str:
        """A share of what all rows reach, in %, with its half interval; empty where there is none."""
        if of is None:
            return ""
        half = "" if of.half is None else f" ± {100 * of.half:.{digits}f}"
        return f"{100 * of.mean:.{digits}f}{half} %"

    def _text(self, of: Estimate, sign: str, half: bool) -> str:
        text = f"{self._scale * of.mean:{sign}.{self._digits}f}"
        return f"{text} ± {self._scale * of.half:.{self._digits}f}" if half and of.half is not None else text


# ----------------------------------------------------------------------- picture
def draw(tasks: dict[str, Measured]) -> Any:
    """A panel a task: what the default and a few others gain over random rows, at every share."""
    from matplotlib.figure import Figure

    shown = {DEFAULT: ("#08306b", "o", "-"), PAPER: ("#b8860b", "s", "--"), "small_loss": ("#238b45", "v", "-.")}
    shown |= {"herding": ("#6a51a3", "^", "-."), "craig": ("#807dba", "D", ":")}
    columns = -(-len(tasks) // 2)
    figure = Figure(figsize=(max(2.25 * columns, 4.5), 5.6), layout="constrained")
    panels = figure.subplots(2, columns, squeeze=False)
    for place, task in enumerate(tasks.values()):
        axes = panels[place % 2][place // 2]
        scale = 1.0 if task["lower_is_better"] else 100.0
        axes.axhline(0, color="#737373", linewidth=1.0)
        for strategy, (colour, marker, line) in shown.items():
            if strategy not in task["values"]:
                continue
            gains = [_gain(task, RANDOM, share, of=strategy) for share in task["fractions"]]
            axes.errorbar(
                range(len(gains)),
                [scale * gain.mean for gain in gains],
                yerr=[scale * _half(gain) for gain in gains] if strategy == DEFAULT else None,
                color=colour,
                marker=marker,
                linestyle=line,
                label=strategy,
                capsize=3,
                markersize=4,
                linewidth=1.8 if strategy == DEFAULT else 1.1,
            )
        axes.set_title(",\n".join(task["title"].rsplit(", ", 1)), fontsize=9)
        axes.set_xticks(range(len(task["fractions"])), [f"{100 * share:g} %" for share in task["fractions"]])
        axes.set_ylabel("loss below random's" if task["lower_is_better"] else "points above random", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=8)
    return figure


def _half(gain: Estimate) -> float:
    """Half the interval; NaN, which draws nothing, where it is not known."""
    return math.nan if gain.half is None else gain.half


def report(tasks: dict[str, Measured], results: Path) -> None:
    """Writes quality.json, its tables and quality.png of what `collect` found.

    quality.md has the default and what it is held against; quality_all.md every strategy; quality_short.md one share;
    quality_counts.md how often the default is where it should be.

    Args:
        tasks: All tasks, clean and spoilt.
        results: A folder by `machine.results_of`.
    """
    told = {name: {**task, "default": [asdict(cell) for cell in cells_of(task)]} for name, task in tasks.items()}
    summary = summarize(tasks)
    write(results, "quality", {"summary": summary, "tasks": told}, short_table(tasks))
    (results / "quality_counts.md").write_text(counts_table(tasks) + "\n")
    (results / "quality_short.md").write_text(shortest_table(tasks) + "\n")
    (results / "quality_all.md").write_text(long_tables(tasks) + "\n")
    (results / "quality.png").write_bytes(render(draw(tasks), "png"))
    print(summary)
