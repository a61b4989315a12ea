"""What a fit pass costs, as ratios to plain training passes over the same rows, in one process.

    python examples/benchmarks/speed.py                 # one core, about ten minutes
    python examples/benchmarks/speed.py --device cuda   # the same on a GPU

Every ratio is taken within a round, in which all contestants run one after the other over the same rows, in an order
that turns from round to round; the table shows the mean and the range over rounds.
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
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import write
from python_text import docstring_rows, train_tokenizer

from sage_hf import FrequentDirections, GradientCollector, SageConfig, SageSelector
from sage_hf.opening import open_source

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


def plain(model: LlamaForCausalLM, batches: list[Batch]) -> None:
    """Forward and backward of every batch, as training does it, without the optimizer."""
    model.train()
    for batch in batches:
        model(**batch).loss.backward()
        model.zero_grad(set_to_none=True)


def activations_only(model: LlamaForCausalLM, batches: list[Batch]) -> None:
    """Every weight frozen: the backward pass of the activations alone, from the embeddings up."""
    model.train()
    model.requires_grad_(False)
    for batch in batches:
        embedded = model.get_input_embeddings()(batch["input_ids"]).requires_grad_()
        rest = {key: value for key, value in batch.items() if key != "input_ids"}
        model(inputs_embeds=embedded, **rest).loss.backward()
    model.requires_grad_(True)


def loop(model: LlamaForCausalLM, batches: list[Batch]) -> None:
    """One row at a time, forward and backward; nothing is kept."""
    model.train()
    for batch in batches:
        for index in range(len(batch["input_ids"])):
            model(**{key: value[index : index + 1] for key, value in batch.items()}).loss.backward()
            model.zero_grad(set_to_none=True)


def loop_with_rows(model: LlamaForCausalLM, batches: list[Batch], sketch: FrequentDirections) -> None:
    """One row at a time to the same projected rows and sketch: what the loop costs that does the same job."""
    collector = GradientCollector(model)
    targets = dict(model.named_parameters())
    for batch in batches:
        rows = []
        for index in range(len(batch["input_ids"])):
            model(**{key: value[index : index + 1] for key, value in batch.items()}).loss.backward()
            rows.append(torch.cat([block.project(targets[block.name].grad).flatten() for block in collector.blocks]))
            model.zero_grad(set_to_none=True)
        sketch.update(torch.stack(rows))


def exact(collector: GradientCollector, batches: list[Batch]) -> None:
    """Exact rows of every Linear layer, not kept."""
    for batch in batches:
        collector(batch)


def race(contestants: dict[str, Callable[[], Any]], rounds: int, device: str) -> list[dict[str, float]]:
    """Seconds of every contestant in every round; the order turns, so that no one always follows the same."""
    names = list(contestants)
    results = []
    for number in range(rounds):
        turn = number % len(names)
        seconds = {}
        for name in names[turn:] + names[:turn]:
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            contestants[name]()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds[name] = time.perf_counter() - start
            print(f"  round {number + 1}: {name} {seconds[name]:.2f} s", file=sys.stderr, flush=True)
        results.append(seconds)
    return results


def ratio(seconds: list[dict[str, float]], one: str, other: str) -> dict[str, Any]:
    """Mean, lowest and highest of one / other over the rounds."""
    values = [each[one] / each[other] for each in seconds]
    return {"mean": statistics.mean(values), "low": min(values), "high": max(values), "rounds": len(values)}


def even_rows(model: LlamaForCausalLM, rows: int, rounds: int, device: str) -> dict[str, Any]:
    """Rows of one length: the fit pass against plain, activation-only and one-at-a-time passes."""
    ids = torch.randint(0, VOCABULARY, (rows, LENGTH), generator=torch.Generator().manual_seed(0))
    dataset = Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist()})
    batches = [
        {
            "input_ids": part.to(device),
            "attention_mask": torch.ones_like(part).to(device),
            "labels": part.to(device),
        }
        for part in ids.split(BATCH)
    ]
    few = batches[:8]
    config = SageConfig(fraction=0.1, batch_size=BATCH, check_gradients=False)
    # The fit pass is the whole of SageSelector.fit: encoding, collating, gradients, sketch, consensus, merge.
    seconds = race(
        {
            "plain": lambda: plain(model, batches),
            "activations only": lambda: activations_only(model, batches),
            "fit": lambda: SageSelector(model, config=config).fit(dataset),
        },
        rounds,
        device,
    )
    collector = GradientCollector(model, target_modules="all-linear", projection=None)
    sketch = FrequentDirections(256)
    short = race(
        {
            "plain, few": lambda: plain(model, few),
            "exact": lambda: exact(collector, few),
            "loop": lambda: loop(model, few),
            "loop with rows": lambda: loop_with_rows(model, few, sketch),
            "fit, few": lambda: SageSelector(model, config=config).fit(dataset.select(range(8 * BATCH))),
        },
        rounds + 1,
        device,
    )[1:]
    return {
        "rows": rows,
        "length": LENGTH,
        "batch": BATCH,
        "row_width": GradientCollector(model).width,
        "fit_to_plain": ratio(seconds, "fit", "plain"),
        "fit_to_activations_only": ratio(seconds, "fit", "activations only"),
        "exact_to_plain": ratio(short, "exact", "plain, few"),
        "loop_to_fit": ratio(short, "loop", "fit, few"),
        "loop_with_rows_to_fit": ratio(short, "loop with rows", "fit, few"),
        "loop_to_plain": ratio(short, "loop", "plain, few"),
        "seconds": seconds,
        "seconds_few": short,
    }


def uneven_rows(model: LlamaForCausalLM, rows: int, rounds: int, device: str) -> dict[str, Any]:
    """Docstrings, signatures as masked prompts: fit against the default batches of Trainer, 8 in random order."""
    dataset = docstring_rows().shuffle(seed=0).select(range(rows))
    tokenizer = train_tokenizer(dataset["completion"], VOCABULARY)
    config = SageConfig(fraction=0.1, batch_size=BATCH, max_length=256, check_gradients=False)
    encoder = open_source(model, dataset, config, tokenizer, None).encoder
    features = encoder.encode([dataset[index] for index in range(rows)])
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(1)).tolist()
    batches = [encoder.collate([features[index] for index in order[start : start + 8]]) for start in range(0, rows, 8)]
    batches = [{key: value.to(device) for key, value in batch.items()} for batch in batches]
    seconds = race(
        {
            "plain": lambda: plain(model, batches),
            "fit": lambda: SageSelector(model, processing_class=tokenizer, config=config).fit(dataset),
        },
        rounds,
        device,
    )
    lengths = [len(feature["input_ids"]) for feature in features]
    return {
        "rows": rows,
        "mean_length": statistics.mean(lengths),
        "longest": max(lengths),
        "tokens_with_padding_in_trainer_batches": sum(batch["input_ids"].numel() for batch in batches),
        "tokens": sum(lengths),
        "fit_to_plain": ratio(seconds, "fit", "plain"),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rows", type=int, default=512, help="rows a round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    model = build_model().to(arguments.device)
    warm = torch.zeros(BATCH, LENGTH, dtype=torch.long, device=arguments.device)
    plain(model, [{"input_ids": warm, "attention_mask": torch.ones_like(warm), "labels": warm}] * 2)
    even = even_rows(model, arguments.rows, arguments.rounds, arguments.device)
    uneven = uneven_rows(model, arguments.rows, arguments.rounds, arguments.device)

    lines = [("measured", "ratio", "range", "wanted")]
    for name, result, wanted in (
        ("fit pass / plain forward + backward", even["fit_to_plain"], "<= 0.86"),
        ("fit pass / activation-only backward", even["fit_to_activations_only"], "<= 1.06"),
        ("exact rows of all Linear / plain", even["exact_to_plain"], "<= 1.3"),
        ("one-at-a-time loop to the same sketch / fit pass", even["loop_with_rows_to_fit"], ">= 2.5"),
        ("one-at-a-time loop that keeps nothing / fit pass", even["loop_to_fit"], ""),
        ("uneven text, masked prompts: fit / Trainer's batches", uneven["fit_to_plain"], "clearly < 1"),
    ):
        lines.append((name, f"{result['mean']:.2f}", f"{result['low']:.2f} to {result['high']:.2f}", wanted))
    table = "\n".join(
        f"| {' | '.join(line)} |" + ("\n|---|---|---|---|" if number == 0 else "") for number, line in enumerate(lines)
    )
    suffix = "" if arguments.device == "cpu" else "_gpu"
    write(f"speed{suffix}", {"even": even, "uneven": uneven}, table)


if __name__ == "__main__":
    main()
