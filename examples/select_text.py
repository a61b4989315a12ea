"""Selects a tenth of real text for a small causal language model, without network, in under two minutes.

    python examples/select_text.py --output out/text

The rows are paragraphs of the Python language reference, grouped by the topic that they come from or all together; the
model is a small Llama built from a config, trained for a moment so that its gradients mean something.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from python_text import build_llama, topic_rows, train_tokenizer
from rich.console import Console

from sage_hf import SageConfig, SageSelector
from sage_hf.selection.report import summary
from sage_hf.training.warmup import warm_up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=float, default=0.1, help="share of the rows to keep")
    parser.add_argument("--rows", type=int, default=None, help="use only so many rows")
    parser.add_argument("--warmup-steps", type=int, default=150, help="training steps before the selection")
    parser.add_argument("--group-by-topic", action="store_true", help="a consensus and a quota for every topic")
    parser.add_argument("--output", type=Path, default=None, help="folder for the kept rows and all scores")
    arguments = parser.parse_args()

    dataset = topic_rows().shuffle(seed=0)
    if arguments.rows is not None:
        dataset = dataset.select(range(arguments.rows))
    tokenizer = train_tokenizer(dataset["text"])
    model = build_llama(len(tokenizer))
    config = SageConfig(
        fraction=arguments.fraction,
        group_by="topic" if arguments.group_by_topic else None,
        max_length=256,
    )
    done = warm_up(
        model,
        dataset,
        steps=arguments.warmup_steps,
        learning_rate=2e-3,
        processing_class=tokenizer,
        config=config,
    )
    print(f"{len(dataset)} paragraphs; warm-up of {done.steps} steps, mean loss {done.loss:.2f}.")

    selection = SageSelector(model, processing_class=tokenizer, config=config).select(dataset)

    Console().print(summary(selection))
    order = np.argsort(selection.scores)  # rows without a score come last
    scored = order[: len(order) - selection.stats.set_aside]
    for title, rows in (("Highest agreement", scored[::-1][:3]), ("Lowest agreement", scored[:3])):
        print(f"\n{title}:")
        for row in rows.tolist():
            print(f"  {selection.scores[row]:+.3f}  {' '.join(dataset[row]['text'].split())[:90]}")
    if arguments.output is not None:
        selection.save_to_disk(arguments.output)
        print(f"\nWritten to {arguments.output}.")


if __name__ == "__main__":
    main()
