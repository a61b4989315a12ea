"""The shell's `sage-hf label-issues`: which rows have a wrong label?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..config import SageConfig
from ..hub.files import check_table_file
from .options import Inputs, main_console, option


@dataclass(frozen=True)
class LabelIssuesOptions:
    """See their help."""

    output: Path | None = option(None, "File for all label issues: .csv, .jsonl or .parquet.", flags="--output -o")
    limit: int = option(20, "How many to show, the most doubted first.", min=0)


def label_issues(options: LabelIssuesOptions, inputs: Inputs, config: SageConfig) -> None:
    """List the rows whose class label is likely wrong, with the class that they rather look like.

    Takes one forward pass of a model that was trained on these labels for a little, and no gradients. How many labels
    are wrong is estimated, and as many are listed, the most doubted first; of clean labels none. Not every one is an
    error: on hard data some are only unusual.

    `sage-hf label-issues distilbert-base-uncased reviews.jsonl --warmup-steps 200 -o label_issues.csv`
    """
    if options.output is not None:
        check_table_file(options.output)
    from datasets import Dataset

    from ..selector.label_issues import find_label_issues

    rows = inputs.load_rows(config)
    assert isinstance(rows, Dataset)
    loaded = inputs.load_model(rows, config.seed)
    inputs.warm_up(loaded, rows, config)
    issues = find_label_issues(loaded.model, rows, processing_class=loaded.processing_class, config=config)
    console = main_console(stderr=False)
    console.print(issues.table(options.limit))
    if options.output is not None and not console.quiet:
        console.print(f"Written to {issues.save(options.output)}.", markup=False)
