"""What a training on a subset costs and reaches: warm-up, selection and passes over 10 %, against all rows.

    python examples/benchmarks/trainer.py

For every task and seed, three trainings of as many epochs from the same weights take turns in one process on one
thread: Trainer on all rows; SageTrainer, which sees all rows in its warm-up and then a tenth; and the same with random
rows of the same quotas. The time is that of `trainer.train()`, selection included. Settings were fixed before the
first run. Writes results/trainer.json and results/trainer.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from machine import results_of, write
from torch import nn
from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging

from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.comparison.intervals import estimate
from sage_hf.demo import build_vit, load_noisy_digits

sys.path.insert(0, str(Path(__file__).parents[1]))
from python_text import build_llama, topic_rows, train_tokenizer

FRACTION = 0.1
ARMS = {
    "all rows": None,
    "selected": {"sage_strategy": "agreement"},
    "random": {"sage_strategy": "random"},
}


@dataclass
class Task:
    """One thing to learn.

    Attributes:
        epochs: Of every arm.
        warmup: Of these, over all rows before the selection.
        learning_rate: At the start.
        metric: What is reported of the test rows, and whether more of it is better.
        make: seed -> (model, training rows, test rows, collator).
    """

    epochs: int
    warmup: float
    learning_rate: float
    metric: str
    make: Callable[[int], tuple[nn.Module, Dataset, Dataset, Any]]


def digits(wrong_share: float) -> Callable[[int], tuple[nn.Module, Dataset, Dataset, Any]]:
    def make(seed: int) -> tuple[nn.Module, Dataset, Dataset, Any]:
        data = load_noisy_digits(seed, wrong_share)
        return build_vit(seed), data.train, data.test, None

    return make


def text(seed: int) -> tuple[nn.Module, Dataset, Dataset, Any]:
    """Paragraphs of the language reference, and held-out ones."""
    rows = topic_rows().remove_columns("topic").train_test_split(test_size=0.2, seed=seed)
    tokenizer = train_tokenizer(list(rows["train"]["text"]))
    tokenizer.pad_token = tokenizer.eos_token

    def encode(batch: dict) -> dict:
        ids = [each[:128] for each in tokenizer(batch["text"]).input_ids]
        return {"input_ids": ids, "labels": ids}

    rows = rows.map(encode, batched=True, remove_columns="text")
    return build_llama(len(tokenizer), seed=seed), rows["train"], rows["test"], DataCollatorForSeq2Seq(tokenizer)


TASKS = {
    "digits, ViT": Task(20, 4, 2e-3, "accuracy", digits(0.0)),
    "digits with 20 % wrong labels, ViT": Task(20, 4, 2e-3, "accuracy", digits(0.2)),
    "Python reference, small Llama": Task(6, 1, 2e-3, "loss", text),
}


def run(task: Task, seed: int, arm: dict[str, Any] | None) -> dict[str, float]:
    """One training: seconds, optimizer steps and the metric."""
    model, train, test, collator = task.make(seed)
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "output_dir": folder,
            "num_train_epochs": task.epochs,
            "learning_rate": task.learning_rate,
            "per_device_train_batch_size": 32,
            "per_device_eval_batch_size": 64,
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "seed": seed,
            "use_cpu": True,
        }
        if arm is None:
            args, kind = TrainingArguments(**settings), Trainer
        else:
            settings |= {"sage_fraction": FRACTION, "sage_warmup_epochs": task.warmup, "sage_seed": seed, **arm}
            args, kind = SageTrainingArguments(**settings), SageTrainer
        trainer = kind(
            model=model,
            args=args,
            train_dataset=train,
            data_collator=collator,
            compute_metrics=_accuracy if task.metric == "accuracy" else None,
        )
        trainer.remove_callback(PrinterCallback)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        metrics = trainer.evaluate(test)
        result = {"seconds": seconds, "steps": trainer.state.global_step, task.metric: metrics[f"eval_{task.metric}"]}
        if arm is not None:
            used = trainer.selection.stats
            result["selection_seconds"] = used["fit_seconds"] + used["score_seconds"]
        return result


def _accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="trainings of every arm")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    tasks = {}
    lines = [
        f"| task | time, selected / all rows | {' | '.join(ARMS)} |",
        f"|---|---|{'---|' * len(ARMS)}",
    ]
    for name, task in TASKS.items():
        runs: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
        for seed in range(arguments.seeds):
            for arm, changes in ARMS.items():
                runs[arm].append(run(task, seed, changes))
                print(name, seed, arm, runs[arm][-1], flush=True)
        ratios = [
            one["seconds"] / all_rows["seconds"]
            for one, all_rows in zip(runs["selected"], runs["all rows"], strict=True)
        ]
        reached = {arm: estimate([each[task.metric] for each in results]) for arm, results in runs.items()}
        tasks[name] = {
            "epochs": task.epochs,
            "warmup_epochs": task.warmup,
            "metric": task.metric,
            "time_ratio": {"mean": float(np.mean(ratios)), "least": min(ratios), "most": max(ratios)},
            "reached": {arm: {"mean": each.mean, "half_interval": each.half} for arm, each in reached.items()},
            "runs": runs,
        }
        scale, unit = (100, " %") if task.metric == "accuracy" else (1, "")
        cells = [f"{scale * each.mean:.3g} ± {scale * (each.half or 0):.2g}{unit}" for each in reached.values()]
        ratio = f"{np.mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {name}: {task.metric} | {ratio} | {' | '.join(cells)} |")
    result = {"fraction": FRACTION, "seeds": arguments.seeds, "tasks": tasks}
    write(results_of(parser, arguments), "trainer", result, "\n".join(lines))


if __name__ == "__main__":
    main()
