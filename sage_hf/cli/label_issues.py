"""The shell's `sage-hf label-issues`: which rows have a wrong label?"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ..config import SageConfig
from ..hub.files import check_table_output
from ..utils.bars import planned, stage
from .folders import holding
from .options import LOADING, Inputs, main_console, option
from .output import is_quiet


@dataclass(frozen=True)
class LabelIssuesOptions:
    """See their help."""

    output: Path | None = option(None, "File for all label issues: .csv, .jsonl or .parquet.", flags="--output -o")
    overwrite: bool = option(False, "Replace an existing list, along with any actions filled in there.")
    limit: int = option(20, "Number of rows to show, the most doubted first.", min=0)


def label_issues(options: LabelIssuesOptions, inputs: Inputs, config: SageConfig) -> None:
    """List the rows whose class label is likely wrong, with the class that is likelier.

    Takes one forward pass over the rows and no gradients; the model must have been trained on these labels for a
    little. The number of wrong labels is estimated, and as many rows are listed, the most doubted first; few or none
    if the labels are clean and the model knows them. Not every listed label is wrong: in hard data, and with a model
    that has learned little, many rows are only unusual. Look at a few before you believe the list. Write drop, relabel
    or the name of a class into the column sage_action of the file. Then `sage-hf apply` makes a corrected dataset, and
    `sage-hf select --exclude` leaves out the rows to drop.

    `sage-hf label-issues distilbert-base-uncased reviews.jsonl --warmup-steps 200 -o label_issues.csv`
    """
    if options.output is not None:
        check_table_output(options.output, options.overwrite)
    with nullcontext() if options.output is None else holding(options.output):
        _list(options, inputs, config)


def _list(options: LabelIssuesOptions, inputs: Inputs, config: SageConfig) -> None:
    from datasets import Dataset

    from ..selector.label_issues import ISSUE_STAGES, find_label_issues
    from ..training.warmup import WARMING_UP

    with planned([LOADING, *([WARMING_UP] if inputs.warms_up else []), *ISSUE_STAGES]):
        with stage(LOADING):
            rows = inputs.load_rows(config)
            assert isinstance(rows, Dataset)
            loaded = inputs.load_model(rows, config.seed)
        inputs.warm_up(loaded, rows, config)
        issues = find_label_issues(loaded.model, rows, processing_class=loaded.processing_class, config=config)
    console = main_console(stderr=False)
    if is_quiet():
        console.print(f"{len(issues):,} of {len(issues.label_doubt):,} labels are likely wrong.")
    elif not len(issues):
        table = issues.table()
        console.print(f"{table.title}. {table.caption or ''}", markup=False)
    else:
        console.print(issues.table(options.limit))
    if options.output is not None and not console.quiet:
        console.print(f"Written to {issues.save(options.output)}.", markup=False, soft_wrap=True)
        if left_out := issues.left_out:
            told = ", ".join(f"{name} ({why})" for name, why in left_out.items())
            console.print(
                f"Columns left out of the file: {told}. Find the rows in the dataset by their number, sage_row.",
                markup=False,
            )
