"""What trust costs: the check before the first pass, in seconds, and what `recheck_every` takes of a pass.

    python examples/benchmarks/check.py     # one core, some minutes

The check takes four rows of a sample from the whole dataset, in a batch and each alone, on a new collector every time.
A pass sketches all rows with the defaults; the clock of `Recheck` runs in the same process and the same pass, so that
the share holds on a noisy machine, too. Means with 95 % intervals over repeats; results are check.json and check.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import results_of, write
from python_text import docstring_rows, train_tokenizer

from sage_hf import Consensus, FrequentDirections, GradientCollector, SageConfig
from sage_hf.comparison.intervals import Estimate, estimate
from sage_hf.data.batches import CHECKED_ROWS
from sage_hf.data.columns import open_source
from sage_hf.demo import build_vit, load_noisy_digits
from sage_hf.passes.extractor import GradientExtractor
from sage_hf.passes.job import Pass, PassSettings
from sage_hf.passes.merge_tree import Partial
from sage_hf.passes.run import Passes

VOCABULARY, ROWS = 2048, 4096
WANTED = {"check_seconds": "< 1", "recheck_share": "< 0.01"}


def repeated(rows: Dataset, count: int) -> Dataset:
    """The rows again and again, until there are so many."""
    return concatenate_datasets([rows] * (-(-count // len(rows)))).select(range(count))


def digits() -> tuple[nn.Module, Dataset, Any]:
    """A vision transformer of 0.1 million weights, images of 8 x 8."""
    return build_vit(), repeated(load_noisy_digits().train, ROWS), None


def docstrings() -> tuple[nn.Module, Dataset, Any]:
    """A Llama of 2 layers, 64 wide, and the standard library's docstrings."""
    torch.manual_seed(0)
    rows = docstring_rows()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
        )
    )
    return model, repeated(rows, ROWS), train_tokenizer(rows["completion"], VOCABULARY)


def check_seconds(model: nn.Module, rows: Dataset, processor: Any, config: SageConfig) -> tuple[float, float]:
    """Seconds of the check alone, and with the reading and encoding of its sample."""
    collector = GradientCollector(model)
    source = open_source(model, rows, config, processor, None)
    started = time.perf_counter()
    sample = source.sample(CHECKED_ROWS)
    assert collector.check(sample.batch, sample.alone)
    return collector.check_seconds, time.perf_counter() - started


def recheck_share(model: nn.Module, rows: Dataset, processor: Any, config: SageConfig) -> tuple[float, float]:
    """The recheck's share of a pass, and the pass's seconds."""
    collector = GradientCollector(model)
    source = open_source(model, rows, config, processor, None)
    extractor = GradientExtractor(collector, config.recheck_every)
    passes = Passes(extractor, PassSettings(progress=False))

    def new_partial() -> Partial:
        sketch = FrequentDirections(config.sketch_size, collector.width, device=collector.device)
        return Partial(sketch, Consensus(1, collector.width, device=collector.device))

    def add(partial: Partial, numbers: torch.Tensor, codes: torch.Tensor, gradients: torch.Tensor) -> None:
        assert partial.sketch is not None
        assert partial.consensus is not None
        partial.sketch.update(gradients)
        partial.consensus.update(gradients, codes)

    started = time.perf_counter()
    passes.run_whole(source, Pass("sketching gradients", add, new_partial))
    seconds = time.perf_counter() - started
    assert extractor.rechecked.rows == len(rows) // config.recheck_every
    return extractor.rechecked.seconds / seconds, seconds


def told(found: Estimate, digits: int) -> str:
    """A mean and its interval."""
    half = f" ± {found.half:.{digits}f}" if found.half is not None else ""
    return f"{found.mean:.{digits}f}{half}"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checks", type=int, default=10, help="repeats of the check")
    parser.add_argument("--passes", type=int, default=3, help="repeats of the pass")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = SageConfig(fraction=0.1, max_length=128)
    result: dict[str, Any] = {"rows": ROWS, "recheck_every": config.recheck_every, "wanted": WANTED}
    lines = [
        "| model | weights | the check, seconds | with its sample | recheck, share of a pass |",
        "|---|---|---|---|---|",
    ]
    for title, make in (("digits, ViT", digits), ("docstrings, small Llama", docstrings)):
        about = make()
        weights = sum(parameter.numel() for parameter in about[0].parameters())
        check_seconds(*about, config)  # imports and first allocations are no part of it
        checks = [check_seconds(*about, config) for _ in range(arguments.checks)]
        passes = [recheck_share(*about, config) for _ in range(arguments.passes)]
        print(f"  {title}: {checks}, {passes}", file=sys.stderr, flush=True)
        result[title] = {
            "weights": weights,
            "check_seconds": [alone for alone, _ in checks],
            "check_seconds_with_sample": [whole for _, whole in checks],
            "recheck_share": [share for share, _ in passes],
            "pass_seconds": [seconds for _, seconds in passes],
        }
        cells = [told(estimate([each[place] for each in checks]), 3) for place in (0, 1)]
        share = told(estimate([share for share, _ in passes]), 5)
        lines.append(f"| {title} | {weights:,} | {' | '.join(cells)} | {share} |")
    lines.append(f"| wanted | | {WANTED['check_seconds']} | {WANTED['check_seconds']} | {WANTED['recheck_share']} |")
    write(results_of(parser, arguments), "check", result, "\n".join(lines))


if __name__ == "__main__":
    main()
