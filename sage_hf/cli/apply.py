"""The shell's `sage-hf apply`: a dataset with the labels that a person corrected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import OutputError
from ..hub.paths import check_list_file, check_new_rows
from .folders import holding
from .options import argument, main_console, option
from .paths import check_local

# Pairs of classes that are printed, the most frequent.
_SHOWN = 8


@dataclass(frozen=True)
class ApplyOptions:
    """See their help."""

    dataset: str = argument("The dataset that the list was made from: a file, a folder of data, or a Hub id.")
    issues: Path = argument("The edited list: .csv, .jsonl or .parquet, as `sage-hf label-issues` wrote it.")
    output: Path = option(..., "Folder for the rows, or a file: .csv, .jsonl or .parquet.", flags="--output -o")
    label_column: str | None = option(None, "Column of the class labels; label or labels by default.")
    split: str = option("train", "Split of the dataset.")
    dataset_config: str | None = option(None, "The dataset's configuration on the Hub.")
    dataset_revision: str | None = option(None, "Branch, tag or commit of the dataset on the Hub.")
    overwrite: bool = option(False, "Replace an existing file or saved dataset.")


def apply(options: ApplyOptions) -> None:
    """Relabel, drop or keep rows as an edited list of label issues says, and write a new dataset with a card.

    The column `sage_action` of the list decides: keep (or nothing) keeps the row, drop removes it, relabel gives it
    the suggested label, and the name of a class gives it that class. The other columns are only for reading.

    `sage-hf apply reviews.jsonl label_issues.csv --output reviews-clean`
    """
    check_list_file(options.issues)
    check_new_rows(options.output, options.overwrite)
    local = check_local(options.dataset)
    for taken in (options.issues, local):
        if taken is not None and options.output.exists() and options.output.samefile(taken):
            raise OutputError(
                "The output is also an input, and would be overwritten",
                where=str(options.output),
                fix="Choose another name.",
            )
    from datasets import Dataset

    from ..selector.cleaned_output import save_cleaned
    from ..selector.cleaning import cleaned, said_of_absent
    from .columns import with_whole_labels
    from .rows import load_rows

    rows = load_rows(options.dataset, options.split, options.dataset_config, revision=options.dataset_revision)
    assert isinstance(rows, Dataset)
    rows = with_whole_labels(rows, options.label_column)
    done = cleaned(rows, options.issues, options.label_column)
    console = main_console(stderr=False)
    if console.quiet:  # one process of a launch writes
        return
    with holding(options.output):
        card = save_cleaned(done, options.output, options.overwrite, Path(options.dataset).name)
    counts = f"{done.relabelled.total():,} relabelled, {done.dropped.total():,} dropped, {done.kept:,} kept"
    console.print(f"Of {done.listed:,} rows on the list: {counts}.{said_of_absent(done.absent)}")
    pairs = sorted(done.relabelled.items(), key=lambda item: (-item[1], item[0]))
    for (before, now), count in pairs[:_SHOWN]:
        console.print(f"  {before} -> {now}: {count:,}", markup=False)
    if len(pairs) > _SHOWN:
        console.print(f"  and {len(pairs) - _SHOWN:,} other pairs of classes")
    console.print(
        f"{len(done.dataset):,} of {len(rows):,} rows written to {options.output}; the card is {card}.", markup=False
    )
