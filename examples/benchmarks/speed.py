"""What a fit pass costs, as ratios to plain training passes over the same batches, in one process.

    python examples/benchmarks/speed.py                 # one core, about ten minutes
    python examples/benchmarks/speed.py --device cuda   # the same on a GPU

These machines are shared and noisy: the contestants take turns batch by batch, in an order that turns, too; a ratio is
that of their summed seconds in a round, and the table shows the mean and the range over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import results_of, write
from python_text import docstring_rows, train_tokenizer

from sage_hf import Consensus, FrequentDirections, GradientCollector, SageConfig, SageSelector
from sage_hf.data.columns import open_source
from sage_hf.passes.extractor import GradientExtractor
from sage_hf.passes.job import PassSettings
from sage_hf.passes.run import Passes

VOCABULARY, LENGTH, BATCH = 8192, 128, 16
Batch = dict[str, torch.Tensor]


def build_model() -> LlamaForCausalLM:
    """6 layers, 256 wide, 8,192 words; 10.5 million weights."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=6,
            num_attention_heads=4,
            max_position_embeddings=512,
        )
    )


def plain(model: LlamaForCausalLM, batch: Batch) -> None:
    """Forward and backward, as training does it, without the optimizer."""
    model.train()
    model(**batch).loss.backward()
    model.zero_grad(set_to_none=True)


def activations_only(model: LlamaForCausalLM, batch: Batch) -> None:
    """Every weight frozen: the backward pass of the activations alone, from the embeddings up."""
    model.train()
    model.requires_grad_(False)
    embedded = model.get_input_embeddings()(batch["input_ids"]).requires_grad_()
    rest = {key: value for key, value in batch.items() if key != "input_ids"}
    model(inputs_embeds=embedded, **rest).loss.backward()
    model.requires_grad_(True)


def loop(model: LlamaForCausalLM, batch: Batch) -> None:
    """One row at a time, forward and backward; nothing is kept."""
    for index in range(len(batch["input_ids"])):
        plain(model, {key: value[index : index + 1] for key, value in batch.items()})


class FitPass:
    """What `SageSelector.fit` does with a batch: gradients, rows set aside, sketch with its shrinks, consensus."""

    def __init__(self, collector: GradientCollector, sketch_size: int = 256) -> None:
        self.passes = Passes(GradientExtractor(collector), PassSettings())
        self.sketch = FrequentDirections(sketch_size, collector.width, device=collector.device)
        self.consensus = Consensus(1, collector.width, device=collector.device)
        # From here on a shrink comes every `sketch_size` rows, as in the middle of a long pass.
        self.sketch.update(torch.randn(2 * sketch_size, collector.width, device=collector.device))

    def __call__(self, batch: Batch) -> None:
        gradients = self.passes.extract(batch).vectors
        self.sketch.update(gradients)
        self.consensus.update(gradients, torch.zeros(len(gradients), dtype=torch.long))


class LoopFit:
    """The same result one row at a time: autograd's gradient, projected to the same row, into the same sketch."""

    def __init__(self, collector: GradientCollector) -> None:
        self.collector = collector
        self.weights = dict(collector.model.named_parameters())
        self.sketch = FrequentDirections(256, collector.width, device=collector.device)

    def __call__(self, batch: Batch) -> None:
        model, rows = self.collector.model, []
        for index in range(len(batch["input_ids"])):
            model(**{key: value[index : index + 1] for key, value in batch.items()}).loss.backward()
            parts = [block.project(self.weights[block.name].grad).flatten() for block in self.collector.blocks]
            rows.append(torch.cat(parts))
            model.zero_grad(set_to_none=True)
        self.sketch.update(torch.stack(rows))


def race(
    contestants: dict[str, Callable[[Batch], Any]], batches: list[Batch], rounds: int, device: str
) -> list[dict[str, float]]:
    """Summed seconds of every contestant in every round."""
    names = list(contestants)
    for name in names:
        contestants[name](batches[0])
    results = []
    for number in range(rounds):
        seconds = dict.fromkeys(names, 0.0)
        for position, batch in enumerate(batches):
            turn = position % len(names)
            for name in names[turn:] + names[:turn]:
                seconds[name] += timed(lambda name=name, batch=batch: contestants[name](batch), device)
        print(f"  round {number + 1}: {seconds}", file=sys.stderr, flush=True)
        results.append(seconds)
    return results


def timed(work: Callable[[], Any], device: str) -> float:
    """Seconds of a call, the device's included."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ratio(seconds: list[dict[str, float]], one: str, other: str) -> dict[str, Any]:
    """Mean, lowest and highest of one / other over the rounds."""
    values = [each[one] / each[other] for each in seconds]
    return {"mean": statistics.mean(values), "low": min(values), "high": max(values), "rounds": len(values)}


def even_rows(model: LlamaForCausalLM, rows: int, rounds: int, device: str) -> dict[str, Any]:
    """Rows of one length: the fit pass against plain, activation-only and one-at-a-time passes."""
    ids = torch.randint(0, VOCABULARY, (rows, LENGTH), generator=torch.Generator().manual_seed(0)).to(device)
    batches = [
        {"input_ids": part, "attention_mask": torch.ones_like(part), "labels": part} for part in ids.split(BATCH)
    ]
    collector = GradientCollector(model)
    seconds = race(
        {
            "plain": lambda batch: plain(model, batch),
            "activations only": lambda batch: activations_only(model, batch),
            "fit": FitPass(collector),
        },
        batches,
        rounds,
        device,
    )
    short = race(
        {
            "plain": lambda batch: plain(model, batch),
            "exact": GradientCollector(model, target_modules="all-linear", projection=None),
            "loop": lambda batch: loop(model, batch),
            "loop fit": LoopFit(collector),
            "fit": FitPass(collector),
        },
        batches[:4],
        rounds,
        device,
    )
    return {
        "rows": rows,
        "length": LENGTH,
        "batch": BATCH,
        "row_width": collector.width,
        "fit_to_plain": ratio(seconds, "fit", "plain"),
        "fit_to_activations_only": ratio(seconds, "fit", "activations only"),
        "exact_to_plain": ratio(short, "exact", "plain"),
        "loop_fit_to_fit": ratio(short, "loop fit", "fit"),
        "loop_to_fit": ratio(short, "loop", "fit"),
        "loop_to_plain": ratio(short, "loop", "plain"),
        "seconds": seconds,
        "seconds_short": short,
    }


def uneven_rows(model: LlamaForCausalLM, rows: int, rounds: int, device: str) -> dict[str, Any]:
    """Docstrings, signatures as masked prompts: a selection against Trainer's default batches, 8 in random order."""
    dataset = docstring_rows().shuffle(seed=0).select(range(rows))
    tokenizer = train_tokenizer(dataset["completion"], VOCABULARY)
    config = SageConfig(fraction=0.1, batch_size=BATCH, max_length=256)
    encoder = open_source(model, dataset, config, tokenizer, None).encoder
    features = encoder.encode([dataset[index] for index in range(rows)])
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(1)).tolist()
    batches = [encoder.collate([features[index] for index in order[start : start + 8]]) for start in range(0, rows, 8)]
    batches = [{key: value.to(device) for key, value in batch.items()} for batch in batches]
    seconds = []
    for number in range(rounds):
        work = {
            "plain": lambda: [plain(model, batch) for batch in batches],
            "selection": lambda: SageSelector(model, processing_class=tokenizer, config=config).select(dataset),
        }
        order = sorted(work, reverse=number % 2 == 0)
        seconds.append({name: timed(work[name], device) for name in order})
        print(f"  uneven, round {number + 1}: {seconds[-1]}", file=sys.stderr, flush=True)
    lengths = [len(feature["input_ids"]) for feature in features]
    return {
        "rows": rows,
        "mean_length": statistics.mean(lengths),
        "longest": max(lengths),
        "tokens_with_padding_in_trainer_batches": sum(batch["input_ids"].numel() for batch in batches),
        "tokens": sum(lengths),
        "selection_to_plain": ratio(seconds, "selection", "plain"),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rows", type=int, default=256, help="rows a round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    model = build_model().to(arguments.device)
    even = even_rows(model, arguments.rows, arguments.rounds, arguments.device)
    uneven = uneven_rows(model, arguments.rows, arguments.rounds, arguments.device)

    lines = [("measured", "ratio", "range", "wanted")]
    for name, result, wanted in (
        ("fit pass / plain forward + backward", even["fit_to_plain"], "<= 0.86"),
        ("fit pass / activation-only backward", even["fit_to_activations_only"], "<= 1.06"),
        ("exact rows of all Linear / plain", even["exact_to_plain"], "<= 1.3"),
        ("one-at-a-time loop to the same sketch / fit pass", even["loop_fit_to_fit"], ">= 2.5"),
        ("one-at-a-time loop that keeps nothing / fit pass", even["loop_to_fit"], ""),
        ("uneven text, masked prompts: whole selection / Trainer's batches", uneven["selection_to_plain"], "<= 0.5"),
    ):
        lines.append((name, f"{result['mean']:.2f}", f"{result['low']:.2f} to {result['high']:.2f}", wanted))
    table = "\n".join(
        f"| {' | '.join(line)} |" + ("\n|---|---|---|---|" if number == 0 else "") for number, line in enumerate(lines)
    )
    suffix = "" if arguments.device == "cpu" else "_cuda"
    write(results_of(parser, arguments, free=("device",)), f"speed{suffix}", {"even": even, "uneven": uneven}, table)


if __name__ == "__main__":
    main()
