"""How wide gradient rows, how large a sketch and how many layers' gradients pay: quality and time of each setting.

    python examples/benchmarks/width.py            # ten minutes a seed on a free core; goes on where it stopped
    python examples/benchmarks/width.py --cost     # what a fit pass costs with each setting: five minutes more
    python examples/benchmarks/width.py --report   # the tables of what is finished

For every task of the benchmark of quality, share of spoilt rows and seed, rows are scored with each setting, the
default strategy chooses, and a fresh model is trained on what it keeps, as `sage_hf.compare` trains it, with the same
seed for all settings. Differences are to the reference (rows of 16,384 numbers, a sketch of 256 rows, all layers),
paired by seed, with Student's t over seeds, 95 %; those of all three tasks together over tasks, shares and seeds. The
area under the ROC curve says how well low agreement tells spoilt rows, with the singular values to the power 1 and
0.25. Text and language, which are slow, are measured with a fifth of the rows spoilt only. Which layers count is
measured on models of three layers (digits) and six (text: the whole MiniLM under the warmed-up last layer; language: a
deeper Llama), each against its own reference. Costs are of a 6-layer Llama, 256 wide, as in speed.py. Writes
results/width.json and results/width.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import results_of, write

sys.path.insert(0, str(Path(__file__).parents[1]))
from quality_tasks import TASKS as ALL_TASKS
from quality_tasks import Prepared, deeper
from sklearn.metrics import roc_auc_score
from speed import BATCH, LENGTH, VOCABULARY, FitPass, build_model, plain, race, ratio
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from sage_hf import GradientCollector, SageConfig, SageSelector
from sage_hf.comparison.experiment import Experiment, complete
from sage_hf.comparison.intervals import Estimate, estimate
from sage_hf.comparison.metrics import Accuracy
from sage_hf.gradients.layers.targets import resolve_targets
from sage_hf.selection.resolve import needed
from sage_hf.selection.signals import RowSignals
from sage_hf.strategies.coverage import spectrum_weights, unit_rows

STARTED = time.perf_counter()
TASKS = {name: ALL_TASKS[name] for name in ("digits", "text", "tumours", "language")}
SPOILT = (0.2, 0.0)
FRACTIONS = (0.02, 0.1)
POWER = 0.25
AREAS = ("auc", f"auc, power {POWER}")
LEARNED = {"digits": "accuracy", "text": "accuracy", "tumours": "accuracy", "language": "loss"}


@dataclass(frozen=True)
class Setting:
    """One way to make gradient rows and their sketch.

    Attributes:
        name: For the table.
        row_width: D.
        sketch_size: l.
        depth: Upper share of the layers whose gradients are taken; 0 for the last layer alone.
        fractions: Shares of the rows to keep.
    """

    name: str
    row_width: int = 16384
    sketch_size: int = 256
    depth: float = 1.0
    fractions: tuple[float, ...] = FRACTIONS


REFERENCE = Setting("16,384 wide, sketch of 256, all layers")
# Settings without a share of rows are gathered for the area under the curve, and nothing is trained on their rows.
WIDTHS = (
    REFERENCE,
    Setting("8,192 wide", 8192, fractions=()),
    Setting("4,096 wide", 4096, fractions=FRACTIONS[:1]),
    Setting("2,048 wide", 2048, fractions=()),
    Setting("1,024 wide", 1024, fractions=()),
    Setting("sketch of 128", sketch_size=128, fractions=()),
    Setting("sketch of 64", sketch_size=64, fractions=FRACTIONS[:1]),
    Setting("4,096 wide, sketch of 128", 4096, 128, fractions=()),
    Setting("4,096 wide, sketch of 64", 4096, 64, fractions=FRACTIONS[:1]),
)
LAST = Setting("last layer", depth=0.0)
HALF = Setting("upper half of the layers", depth=1 / 2, fractions=FRACTIONS[:1])
# For costs alone.
THIRD = Setting("upper third of the layers", depth=1 / 3)
HEAD = Setting("output layer alone", depth=0.0)
# The whole MiniLM is slow.
DEPTHS = {"digits": (LAST, HALF), "text": (LAST,), "tumours": (LAST,), "language": (LAST, HALF)}
# Tasks that are measured on clean rows, too, and with every width: the others take minutes a setting.
QUICK = ("digits", "tumours")
CLEAN = (REFERENCE.name, "4,096 wide", LAST.name)


def targets(model: nn.Module, depth: float) -> str | list[str]:
    """`target_modules` for an upper share of the layers: what "auto" takes of these and of what comes behind them."""
    if depth in (0.0, 1.0):
        return "last" if depth == 0.0 else "auto"
    names = list(resolve_targets(model, "auto"))
    layers = [int(found[1]) if (found := re.search(r"\.(\d+)\.", name)) else None for name in names]
    count = 1 + max(layer for layer in layers if layer is not None)
    first = count - math.ceil(depth * count)
    last_of_them = max(place for place, layer in enumerate(layers) if layer is not None)
    return [
        name
        for place, (name, layer) in enumerate(zip(names, layers, strict=True))
        if (layer >= first if layer is not None else place > last_of_them)
    ]


# --------------------------------------------------------------------- measuring
class Scorings:
    """All that settings learn of the rows of one task, share and seed; embeddings are read once.

    Args:
        prepared: The rows and the model that scores.
        seed: Seed of the projections.
        folder: Where gradient rows are kept, for settings that have them in common.
    """

    def __init__(self, prepared: Prepared, seed: int, folder: str) -> None:
        self.prepared, self.seed, self.folder = prepared, seed, folder
        self.found: dict[tuple[Any, ...], str] = {}
        self.reference: RowSignals | None = None

    def selector(self, setting: Setting) -> SageSelector:
        config = SageConfig(
            target_modules=targets(self.prepared.scorer, setting.depth),
            row_width=setting.row_width,
            sketch_size=setting.sketch_size,
            cache_gradients="float32",
            check_gradients=False,
            seed=self.seed,
        )
        prepared = self.prepared
        return SageSelector(
            prepared.scorer, data_collator=prepared.collator, config=config, progress=False, cache_dir=self.folder
        )

    def twin(self, setting: Setting, selector: SageSelector) -> str:
        """The first setting whose rows are the same; itself where it is the first."""
        key = (selector.collector.width, setting.sketch_size, *(block.name for block in selector.collector.blocks))
        return self.found.setdefault(key, setting.name)

    def gather(self, selector: SageSelector) -> RowSignals:
        """Signals of all rows; the first call's are the reference, whose embeddings all others have."""
        needs = set(needed(selector.config))
        if self.reference is None:
            self.reference = selector.gather(self.prepared.train, needs)
            return self.reference
        signals = selector.gather(self.prepared.train, needs - {"embeddings"})
        first = self.reference
        signals.embeddings, signals.el2n, signals.doubts = first.embeddings, first.el2n, first.doubts
        return signals


class Trainings:
    """Trainings of one task, share and seed; the same rows are never trained on twice."""

    def __init__(self, task: str, prepared: Prepared, seed: int) -> None:
        arguments = complete(TASKS[task].training, 32, True)
        metric = Accuracy() if LEARNED[task] == "accuracy" else None
        self.experiment = Experiment(
            prepared.build, prepared.train, prepared.test, arguments, metric, SageConfig(), None, prepared.collator
        )
        self.seed = seed
        self.known: dict[bytes, float] = {}

    def value(self, rows: np.ndarray) -> float:
        """What a training on these rows reaches."""
        key = rows.tobytes()
        if key not in self.known:
            judged = self.experiment.judge(*self.experiment.run(rows, self.seed))
            self.known[key] = next(iter(judged.values()))
        return self.known[key]


def agreement_with_power(signals: RowSignals, power: float) -> np.ndarray:
    """Agreement [N] with the singular values to a power, of signals that were gathered with the power 1."""
    assert signals.sketched is not None and signals.spectrum is not None
    z = signals.sketched[np.arange(len(signals.scores))] * spectrum_weights(signals.spectrum, power - 1.0)
    units, codes = unit_rows(z), signals.groups.codes
    sums = np.stack([z[codes == group].sum(0, dtype=np.float64) for group in range(signals.groups.count)])
    return (units * unit_rows(sums)[codes]).sum(1)


def measure(
    task: str, share: float, seed: int, settings: list[Setting], prepared: Prepared, trainings: Trainings
) -> Iterator[dict[str, Any]]:
    """A line for every setting; the first is what the others' rows are compared with."""
    lines: dict[str, dict[str, Any]] = {}
    first: dict[float, set[int]] = {}
    with tempfile.TemporaryDirectory(prefix="sage_hf-width-") as folder:
        scorings = Scorings(prepared, seed, folder)
        for setting in settings:
            selector = scorings.selector(setting)
            if (twin := scorings.twin(setting, selector)) != setting.name:
                yield {**lines[twin], "setting": setting.name, "same_as": twin}
                continue
            started = time.perf_counter()
            signals = scorings.gather(selector)
            line: dict[str, Any] = {"setting": setting.name, "width": selector.collector.width}
            line["gather_seconds"] = time.perf_counter() - started
            line["target_weights"] = selector.collector.num_target_weights
            scores = (signals.scores, agreement_with_power(signals, POWER))
            for name, found in zip(AREAS, scores, strict=True) if share else ():
                line[name] = float(roc_auc_score(prepared.spoilt, -np.nan_to_num(found)))
            line["values"], line["overlap"], line["spoilt_kept"] = {}, {}, {}
            for fraction in setting.fractions:
                config = replace(selector.config, fraction=fraction)
                rows = selector.choose(prepared.train, signals, config).indices
                kept = first.setdefault(fraction, set(rows.tolist()))
                line["values"][f"{fraction:g}"] = trainings.value(rows)
                line["overlap"][f"{fraction:g}"] = len(kept & set(rows.tolist())) / len(rows)
                line["spoilt_kept"][f"{fraction:g}"] = float(prepared.spoilt[rows].mean())
            lines[setting.name] = line
            yield line


def run(task: str, share: float, seed: int) -> Iterator[dict[str, Any]]:
    """Every line of a task, share and seed."""
    prepared = TASKS[task].prepare(seed, share)
    trainings = Trainings(task, prepared, seed)
    if task in QUICK:
        settings = [*WIDTHS, *DEPTHS[task]] if share else [each for each in (*WIDTHS, LAST) if each.name in CLEAN]
    else:
        settings = [each for each in WIDTHS if each.row_width in (16384, 4096, 1024)]
    for line in measure(task, share, seed, settings, prepared, trainings):
        yield {"scorer": "own", **line}
    if task not in QUICK:
        for line in measure(task, share, seed, [REFERENCE, *DEPTHS[task]], deeper(task, prepared), trainings):
            yield {"scorer": "deeper", **line}


# ------------------------------------------------------------------------- cost
def cost(rows: int, rounds: int) -> dict[str, Any]:
    """What a fit pass costs with each setting, as a share of a plain forward and backward pass over the same rows."""
    model = build_model()
    ids = torch.randint(0, VOCABULARY, (rows, LENGTH), generator=torch.Generator().manual_seed(0))
    batches = [
        {"input_ids": part, "attention_mask": torch.ones_like(part), "labels": part} for part in ids.split(BATCH)
    ]
    work: dict[str, Any] = {"plain": lambda batch: plain(model, batch), "forward": lambda batch: forward(model, batch)}
    for setting in (*(each for each in WIDTHS if each.fractions), HALF, THIRD, LAST, HEAD):
        chosen = "head" if setting is HEAD else targets(model, setting.depth)
        collector = GradientCollector(model, target_modules=chosen, row_width=setting.row_width)
        work[setting.name] = FitPass(collector, setting.sketch_size)
    seconds = race(work, batches, rounds, "cpu")
    ratios = {name: ratio(seconds, name, "plain") for name in work if name != "plain"}
    return {"rows": rows, "length": LENGTH, "batch": BATCH, "to_plain": ratios, "seconds": seconds}


def forward(model: nn.Module, batch: dict[str, Tensor]) -> None:
    """A forward pass alone."""
    with torch.no_grad():
        model(**batch)


# ----------------------------------------------------------------------- report
def told(found: Estimate) -> dict[str, Any]:
    """An estimate for JSON."""
    return {"mean": found.mean, "half_interval": found.half, "count": found.count}


def differences(lines: list[dict[str, Any]], setting: Setting, task: str) -> dict[tuple[float, int], dict[str, float]]:
    """By (share of spoilt rows, seed): what a setting reaches less what the reference does, over the shares kept."""
    found = {}
    own = [line for line in lines if line["task"] == task]
    by_key = {(line["share"], line["seed"], line["scorer"], line["setting"]): line for line in own}
    for line in own:
        reference = by_key.get((line["share"], line["seed"], line["scorer"], REFERENCE.name))
        if line["setting"] != setting.name or reference is None or (setting is REFERENCE and line["scorer"] != "own"):
            continue
        kept = [name for name in line["values"] if name in reference["values"]]
        one = {name: line[name] - reference[name] for name in AREAS if name in line}
        if kept:
            one["value"] = statistics.mean(line["values"][name] - reference["values"][name] for name in kept)
            one["overlap"] = statistics.mean(line["overlap"][name] for name in kept)
        found[line["share"], line["seed"]] = one
    return found


def summed_up(lines: list[dict[str, Any]], costs: dict[str, Any] | None) -> list[dict[str, Any]]:
    """One entry a setting: differences by task, over all tasks with accuracies, and the cost."""
    entries = []
    for setting in (REFERENCE, *WIDTHS[1:], HALF, LAST):
        by_task, accuracies = {}, []
        for task in TASKS:
            found = differences(lines, setting, task)
            seeds = sorted({seed for _, seed in found})
            parts: dict[str, Any] = {}
            for name in ("value", "overlap", *AREAS):
                by_seed = [
                    [each[name] for (_, own), each in found.items() if own == seed and name in each] for seed in seeds
                ]
                means = [statistics.mean(values) for values in by_seed if values]
                if means:
                    parts[name] = told(estimate(means))
            own = [line for line in lines if (line["task"], line["setting"]) == (task, setting.name)]
            own = [line for line in own if setting is not REFERENCE or line["scorer"] == "own"]
            parts["areas"] = {
                name: statistics.mean(line[name] for line in own if name in line)
                for name in AREAS
                if any(name in line for line in own)
            }
            if found:
                by_task[task] = parts
            if LEARNED[task] == "accuracy":
                accuracies += [each["value"] for each in found.values() if "value" in each]
        entry = {"setting": setting.name, "row_width": setting.row_width, "sketch_size": setting.sketch_size}
        entry |= {"tasks": by_task, "accuracies": told(estimate(accuracies)) if accuracies else None}
        entry["cost"] = costs["to_plain"].get(setting.name) if costs else None
        entries.append(entry)
    return entries


def table(entries: list[dict[str, Any]], costs: dict[str, Any] | None) -> str:
    """Quality by setting; and below it the costs of what has no row of its own."""
    lines = [
        "| setting | fit pass / plain pass | digits, points | text, points | tumours, points | all three, points "
        "| language, loss | same rows, % | AUC digits | AUC text | AUC tumours | AUC language |",
        f"|---|{'---|' * 11}",
    ]
    for entry in entries:
        cells = [f"{entry['cost']['mean']:.2f}" if entry["cost"] else ""]
        for task in ("digits", "text", "tumours", "", "language"):
            found = entry["tasks"].get(task, {}).get("value") if task else entry["accuracies"]
            scale, places = (1, 3) if task == "language" else (100, 1)
            half = None if found is None or found["half_interval"] is None else scale * found["half_interval"]
            text = "" if found is None else f"{scale * found['mean']:+.{places}f}"
            cells.append(
                "" if entry["setting"] == REFERENCE.name else text + ("" if half is None else f" ± {half:.{places}f}")
            )
        overlaps = [parts["overlap"]["mean"] for parts in entry["tasks"].values() if "overlap" in parts]
        cells.append(f"{100 * statistics.mean(overlaps):.0f}" if overlaps else "")
        for task in ("digits", "text", "tumours", "language"):
            areas = entry["tasks"].get(task, {}).get("areas", {})
            if entry["setting"] != REFERENCE.name:
                gained = entry["tasks"].get(task, {})
                cells.append(" / ".join(f"{gained[name]['mean']:+.3f}" for name in AREAS if name in gained))
            else:
                cells.append(" / ".join(f"{areas[name]:.3f}" for name in AREAS if name in areas))
        lines.append(f"| {entry['setting']} | {' | '.join(cells)} |")
    if costs:
        more = [f"{name} {costs['to_plain'][name]['mean']:.2f}" for name in ("forward", THIRD.name, HEAD.name)]
        lines += ["", f"Other passes / plain pass: {', '.join(more)}."]
    return "\n".join(lines)


def planned(seeds: list[int], tasks: list[str]) -> list[tuple[str, float, int]]:
    """Task, share of spoilt rows and seed of every measurement, seed by seed, so that a part is worth something."""
    return [(task, share, seed) for seed in seeds for task in tasks for share in SPOILT if share or task in QUICK]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(3)))
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--folder", type=Path, default=Path("out/width"), help="finished measurements")
    parser.add_argument("--cost", action="store_true", help="measure what each setting costs, and nothing else")
    parser.add_argument("--rows", type=int, default=256, help="rows a round of --cost")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of --cost")
    parser.add_argument("--report", action="store_true", help="only the tables of what is finished")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    # Costs of other settings are no part of a whole run.
    sizes = (arguments.rows, arguments.rounds)
    is_usual = sizes == (parser.get_default("rows"), parser.get_default("rounds"))
    costs = arguments.folder / ("cost.json" if is_usual else "cost-{}-{}.json".format(*sizes))
    if arguments.cost:
        costs.write_text(json.dumps(cost(arguments.rows, arguments.rounds)))
    path = arguments.folder / "lines.jsonl"
    read = path.read_text().splitlines() if path.exists() else []
    lines = [json.loads(line) for line in read if line.endswith("}")]
    done = {(line["task"], line["share"], line["seed"]) for line in lines}
    for task, share, seed in [] if arguments.report or arguments.cost else planned(arguments.seeds, arguments.task):
        if (task, share, seed) not in done:
            about = {"task": task, "share": share, "seed": seed}
            new = [{**about, **line} for line in run(task, share, seed)]
            with path.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in new)
            lines += new
            print(about, f"{time.perf_counter() - STARTED:.0f} s", flush=True)
    measured = json.loads(costs.read_text()) if costs.exists() else None
    entries = summed_up(lines, measured)
    found = {(line["task"], line["share"], line["seed"]) for line in lines}
    is_whole = measured is not None and found == set(planned(parser.get_default("seeds"), list(TASKS)))
    results = results_of(parser, arguments, free=("report", "cost"), is_whole=is_whole)
    write(results, "width", {"settings": entries, "cost": measured, "lines": lines}, table(entries, measured))


if __name__ == "__main__":
    main()
