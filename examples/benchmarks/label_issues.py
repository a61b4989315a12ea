"""How well wrong labels are found: planted ones, by chance or always the next class, against clean data.

    python examples/benchmarks/label_issues.py            # about an hour on one core; goes on where it stopped
    python examples/benchmarks/label_issues.py --report   # the table of what is finished

For each task, kind and share of wrong labels and seed, a model is warmed up on the rows as they are, and rows are
doubted. "Called wrong" is the share of rows that the gate takes out and `sage-hf label-issues` lists; precision and
recall are of these. The area under the ROC curve compares the doubts with what they are made of, with the loss, and
with agreement. Intervals are Student's t over seeds, 95 %. Writes results/label_issues.json and label_issues.md.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import torch
from machine import results_of, write
from quality_tasks import digits, text
from sklearn.metrics import average_precision_score, roc_auc_score
from transformers.utils import logging as transformers_logging

from sage_hf import SageConfig, SageSelector
from sage_hf.comparison.intervals import estimate
from sage_hf.selection.doubts import cross_fold
from sage_hf.selection.gate import label_doubts

TASKS = {"digits, ViT": digits, "documentation topics, MiniLM": text}
PLANTED = [("clean", 0.0), *((kind, share) for kind in ("uniform", "class") for share in (0.05, 0.1, 0.2, 0.4))]
KINDS = {"clean": "none", "uniform": "any other class", "class": "always the next class"}


def measure(task: str, kind: str, share: float, seed: int) -> dict[str, float]:
    """One warm-up, and all detectors."""
    prepared = TASKS[task](seed, share, "uniform" if kind == "clean" else kind)
    wrong = prepared.spoilt
    scores = {}
    for power in (None, 0.25):
        config = SageConfig(seed=seed, spectrum_power=power)
        selector = SageSelector(prepared.scorer, config=config, progress=False)
        signals = selector.gather(prepared.train, {"embeddings"} if power is None else ())
        scores[f"agreement, power {power or 1:g}"] = -signals.scores
        if power is None:
            assert signals.embeddings is not None and signals.inputs is not None
            assert signals.labels is not None and signals.doubts is not None
            views = [signals.embeddings, signals.inputs]
            all_of = label_doubts(views, signals.labels, signals.doubts, seed)
            scores |= {"loss": signals.losses, "the model": signals.doubts, "both folds": all_of.folds.doubts}
            scores["embeddings"] = cross_fold(views[:1], signals.labels, seed).doubts
            scores["inputs"] = cross_fold(views[1:], signals.labels, seed).doubts
    doubts, listed = all_of.doubts, all_of.wrong
    found = {"listed": float(listed.mean())}
    if share:
        found |= {
            "precision": float(wrong[listed].mean()) if listed.any() else 0.0,
            "recall": float(listed[wrong].mean()),
            "average_precision": float(average_precision_score(wrong, doubts)),
            "auc": float(roc_auc_score(wrong, doubts)),
        }
        found |= {f"auc, {name}": float(roc_auc_score(wrong, np.nan_to_num(each))) for name, each in scores.items()}
    return found


def summed_up(lines: list[dict]) -> list[dict]:
    """For every task, kind and share of wrong labels, all that was measured and its means."""
    rows = []
    for task in TASKS:
        for kind, share in PLANTED:
            runs = [
                line["found"] for line in lines if (line["task"], line["kind"], line["share"]) == (task, kind, share)
            ]
            if runs:
                means = {name: estimate([run[name] for run in runs]) for name in runs[0]}
                told = {name: {"mean": each.mean, "half_interval": each.half} for name, each in means.items()}
                rows.append(
                    {"task": task, "kind": kind, "share": share, "seeds": len(runs), "found": told, "runs": runs}
                )
    return rows


def table(rows: list[dict]) -> str:
    """As the README has it."""
    shares = ("listed", "precision", "recall", "average_precision")
    areas = ("auc", *(f"auc, {name}" for name in ("embeddings", "inputs", "the model", "agreement, power 1")))
    lines = [
        "| task | wrong labels | called wrong, % | precision, % | recall, % | average precision, % "
        "| AUC | by embeddings alone | by inputs alone | by the model alone | of agreement |",
        f"|---|---|{'---|' * 9}",
    ]
    for row in rows:
        cells = []
        for name in (*shares, *areas):
            scale, digits = (100, int(name == "listed")) if name in shares else (1, 3)
            found = row["found"].get(name)
            half = found["half_interval"] if found else None
            spread = "" if half is None else f" ± {scale * half:.{digits}f}"
            cells.append(f"{scale * found['mean']:.{digits}f}{spread}" if found else "")
        what = f"{row['share']:.0%}, {KINDS[row['kind']]}" if row["share"] else "none"
        lines.append(f"| {row['task']} | {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def planned(seeds: list[int], tasks: list[str]) -> list[tuple[str, str, float, int]]:
    """Every measurement, as `key_of` tells it, in its order."""
    return [(task, kind, share, seed) for seed in seeds for task in tasks for kind, share in PLANTED]


def key_of(line: dict) -> tuple[str, str, float, int]:
    """Which measurement a line is."""
    return line["task"], line["kind"], line["share"], line["seed"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--folder", type=Path, default=Path("out/label_issues"), help="finished measurements")
    parser.add_argument("--report", action="store_true", help="only the table of what is finished")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    wanted = planned(arguments.seeds, arguments.task)
    lines = []
    for path in sorted(arguments.folder.glob("*.jsonl")):
        lines += [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    done = {key_of(line) for line in lines}
    for each in [] if arguments.report else [each for each in wanted if each not in done]:
        line = {**dict(zip(("task", "kind", "share", "seed"), each, strict=True)), "found": measure(*each)}
        with (arguments.folder / f"{each[0].split(',')[0].replace(' ', '-')}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        lines.append(line)
        print(line, flush=True)
    rows = summed_up(lines)
    is_whole = {key_of(line) for line in lines} == set(planned(parser.get_default("seeds"), list(TASKS)))
    write(results_of(parser, arguments, is_whole=is_whole), "label_issues", {"rows": rows}, table(rows))


if __name__ == "__main__":
    main()
