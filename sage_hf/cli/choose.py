"""The shell's `sage-hf choose`: another share of the rows of a selection, without a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..hub.files import check_rows_output, is_row_file
from ..utils.setting_text import from_text
from .folders import holding, pass_source_on, print_kept, with_rows
from .options import argument, option


@dataclass(frozen=True)
class ChooseOptions:
    """See their help."""

    folder: Path = argument("Folder that `sage-hf select` wrote.")
    output: Path = option(
        ..., "Folder for the rows that are kept now, or a file: .csv, .jsonl or .parquet.", flags="--output -o"
    )
    fraction: float | None = option(None, "Share of the rows to keep; by default, as in the first selection.")
    num_examples: int | None = option(None, "Number of rows to keep, instead of a fraction.")
    strategy: str | None = option(None, "Rule that chooses rows, as in `sage-hf select`; by default, unchanged.")
    gate: str | None = option(None, "Rows taken out before the choice: auto, a share, or none; by default, unchanged.")
    balance: str | None = option(None, "How the groups share the budget; by default, unchanged.")
    min_per_group: int | None = option(None, "Fewest rows that a group keeps; by default, unchanged.")
    dataset: str | None = option(
        None, "File, folder or Hub id of all rows; by default, the dataset that `sage-hf select` read."
    )
    keep_signals: bool = option(True, "Write the signals of all rows, too: 1 to 3 kB a row.")
    overwrite: bool = option(False, "Replace an existing selection.")


def choose(options: ChooseOptions) -> None:
    """Choose again from an earlier selection, with other settings: in seconds, without the model.

    `sage-hf choose imdb-10pct --fraction 0.05 -o imdb-5pct`
    """
    check_rows_output(options.output, options.overwrite)
    changes: dict[str, Any] = {} if options.gate is None else {"gate": from_text("gate", options.gate)}
    for name in ("fraction", "num_examples", "strategy", "balance", "min_per_group"):
        changes[name] = getattr(options, name)
    with holding(options.output):
        chosen = with_rows(options.folder, options.dataset).choose(**changes)
        if is_row_file(options.output):
            chosen.save_rows(options.output, overwrite=options.overwrite)
        else:
            chosen.save_to_disk(options.output, keep_signals=options.keep_signals, overwrite=options.overwrite)
            pass_source_on(options.folder, options.output, options.dataset)
    print_kept(chosen, options.output)
