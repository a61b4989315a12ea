"""What a whole default selection costs on small models, in epochs of training, in one process with one thread.

    python examples/benchmarks/small.py                 # three minutes

Where a forward pass takes a millisecond, what is around it shows: encoding, checks, the sketch, the choice. An epoch
is forward, backward and zero_grad over all rows, 32 a batch: once with batches that are ready, once with batches that
are read, encoded and joined for it; and one of transformers' Trainer over encoded rows. Selection and epochs take
turns, in an order that turns, too; a ratio is of one round, and the table shows the mean and the range over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainingArguments

sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import results_of, write
from python_text import build_bert, topic_classes, train_tokenizer
from quality_tasks import tumours

from sage_hf import SageConfig, SageSelector, warm_up
from sage_hf.data.batches import read_rows
from sage_hf.data.columns import open_source
from sage_hf.demo import build_vit, load_noisy_digits

BATCH, FRACTION, WANTED = 32, 0.1, 1.5
TRAINER = {
    "num_train_epochs": 1,
    "learning_rate": 0.0,
    "use_cpu": True,
    "report_to": [],
    "disable_tqdm": True,
    "save_strategy": "no",
    "logging_strategy": "no",
    "remove_unused_columns": False,
}
WARM_UP = {"steps": 100, "learning_rate": 2e-3, "batch_size": BATCH}


@dataclass(frozen=True)
class Task:
    """A model that has learned a little, and the rows to choose from."""

    title: str
    model: nn.Module
    rows: Dataset
    processing_class: Any = None
    data_collator: Callable[[list[dict[str, Any]]], dict[str, Tensor]] | None = None


def digits() -> Task:
    """Images of 8 x 8; a vision transformer of 3 layers, 64 wide."""
    model, rows = build_vit(), load_noisy_digits().train
    warm_up(model, rows, **WARM_UP)
    return Task("ViT, images of digits", model, rows)


def topics() -> Task:
    """Paragraphs of Python's language reference; a BERT of 2 layers, 64 wide."""
    rows = topic_classes()
    tokenizer = train_tokenizer(rows["text"])
    tokenizer.pad_token = tokenizer.eos_token
    model = build_bert(len(tokenizer), 8)
    warm_up(model, rows, processing_class=tokenizer, **WARM_UP)
    return Task("BERT, paragraphs by topic", model, rows, tokenizer)


def numbers() -> Task:
    """30 numbers of tumours; a perceptron with two hidden layers of 64."""
    prepared = tumours(0, 0.2)
    return Task("MLP, numbers of tumours", prepared.scorer, prepared.train, None, prepared.collator)


TASKS = {"digits": digits, "topics": topics, "numbers": numbers}


class Epoch:
    """An epoch of training without the optimizer, rows in random order."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.source = open_source(
            task.model, task.rows, SageConfig(fraction=FRACTION), task.processing_class, task.data_collator
        )
        order = torch.randperm(len(task.rows), generator=torch.Generator().manual_seed(0)).tolist()
        self.shuffled = task.rows.select(order).flatten_indices()
        self.parts = [range(start, min(start + BATCH, len(order))) for start in range(0, len(order), BATCH)]
        self.ready = [self.batch(part) for part in self.parts]
        self.encoded = self.source.encoder.encode(read_rows(task.rows, range(len(task.rows))))

    def batch(self, part: range) -> dict[str, Any]:
        """Rows as a batch."""
        encoder = self.source.encoder
        return encoder.collate(encoder.encode(read_rows(self.shuffled, part)))

    def train(self, batch: dict[str, Any]) -> None:
        """Forward and backward, as training does it."""
        outputs = self.task.model(**batch)
        (outputs["loss"] if isinstance(outputs, dict) else outputs.loss).backward()
        self.task.model.zero_grad(set_to_none=True)

    def from_ready(self) -> None:
        """With batches that are there."""
        self.task.model.train()
        for batch in self.ready:
            self.train(batch)

    def from_rows(self) -> None:
        """With batches that are made."""
        self.task.model.train()
        for part in self.parts:
            self.train(self.batch(part))

    def by_trainer(self) -> None:
        """Trainer's, with its optimizer, dataloader and callbacks; encoding is left out."""
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(folder, per_device_train_batch_size=BATCH, **TRAINER)
            collate = self.source.encoder.collate
            trainer = Trainer(self.task.model, arguments, train_dataset=self.encoded, data_collator=collate)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        self.task.model.zero_grad(set_to_none=True)


def measure(task: Task, rounds: int) -> dict[str, Any]:
    """Seconds of every round, and what they come to."""
    epoch, stages = Epoch(task), []

    def select() -> None:
        started = time.perf_counter()
        selector = SageSelector(
            task.model,
            processing_class=task.processing_class,
            data_collator=task.data_collator,
            config=SageConfig(fraction=FRACTION),
            progress=False,
        )
        stats = selector.select(task.rows).stats
        whole = time.perf_counter() - started
        rest = whole - stats.fit_seconds - stats.score_seconds
        stages.append({"fit": stats.fit_seconds, "score": stats.score_seconds, "choose": rest})

    work = {
        "selection": select,
        "epoch": epoch.from_ready,
        "epoch with encoding": epoch.from_rows,
        "Trainer's epoch": epoch.by_trainer,
    }
    for each in work.values():
        each()
    stages.clear()
    seconds = []
    for number in range(rounds):
        order = [*work][number % len(work) :] + [*work][: number % len(work)]
        seconds.append({})
        for name in order:
            started = time.perf_counter()
            work[name]()
            seconds[-1][name] = time.perf_counter() - started
        print(f"  {task.title}, round {number + 1}: {seconds[-1]}", file=sys.stderr, flush=True)
    whole = sum(each["selection"] for each in seconds)
    return {
        "rows": len(task.rows),
        "weights": sum(parameter.numel() for parameter in task.model.parameters()),
        "selection_to_epoch": ratio(seconds, "epoch"),
        "selection_to_epoch_with_encoding": ratio(seconds, "epoch with encoding"),
        "selection_to_trainers_epoch": ratio(seconds, "Trainer's epoch"),
        "shares": {name: sum(each[name] for each in stages) / whole for name in ("fit", "score", "choose")},
        "seconds": seconds,
    }


def ratio(seconds: list[dict[str, float]], epoch: str) -> dict[str, float]:
    """Mean, lowest and highest of a selection's seconds to an epoch's over the rounds."""
    values = [each["selection"] / each[epoch] for each in seconds]
    return {"mean": statistics.mean(values), "low": min(values), "high": max(values)}


def table(found: dict[str, dict[str, Any]]) -> str:
    """The results as Markdown."""
    heads = (
        "model and rows",
        "weights",
        "rows",
        "epochs",
        "range",
        "wanted",
        "with encoding",
        "of Trainer",
        "fit, score, choose",
    )
    lines = [heads, ("---",) * len(heads)]
    for title, each in found.items():
        one, others = (
            each["selection_to_epoch"],
            [f"{each[f'selection_to_{name}']['mean']:.2f}" for name in ("epoch_with_encoding", "trainers_epoch")],
        )
        shares = ", ".join(f"{share:.0%}" for share in each["shares"].values())
        spread = f"{one['low']:.2f} to {one['high']:.2f}"
        counts = (f"{each['weights']:,}", f"{each['rows']:,}")
        wanted = f"<= {WANTED}" if "ViT" in title else ""
        lines.append((title, *counts, f"{one['mean']:.2f}", spread, wanted, *others, shares))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name in arguments.task:
        task = TASKS[name]()
        found[task.title] = measure(task, arguments.rounds)
    write(results_of(parser, arguments), "small", {"models": found}, table(found))


if __name__ == "__main__":
    main()
