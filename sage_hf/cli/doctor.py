"""The shell's `sage-hf doctor`: what would a selection with this model and these rows be like?"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import typer

from ..config import SageConfig
from ..errors import SageError
from .options import DATASET, Sources, argument, main_console, option
from .wording import in_the_shell, name_of_column

if TYPE_CHECKING:
    from datasets import Dataset

    from ..diagnosis.findings import RowFindings
    from .models import Loaded


@dataclass(frozen=True)
class DoctorInputs(Sources):
    """A model, which may come without a dataset."""

    dataset: str | None = argument(  # type: ignore[assignment]
        f"{DATASET[:-1]}; may be left out.", None
    )
    as_json: bool = option(False, "Print everything as JSON instead.", flags="--json")


def doctor(inputs: DoctorInputs, config: SageConfig) -> bool:
    """Check a model, and a dataset if one is named, before a selection: what it will cost, and what to change.

    Shows which weights the gradients are of, how wide gradient rows are, memory, disk and time, what was found in the
    dataset, and whether each row of a batch has a gradient of its own. Nothing is chosen or written. All faults are
    listed, not only the first; the exit code is 1 if one of them is an error.

    `sage-hf doctor distilbert-base-uncased reviews.jsonl --fraction 0.1`
    """
    from datasets import Dataset

    from ..diagnosis import Problem, diagnose

    rows = None if inputs.dataset is None else inputs.load_rows(config, allow_missing=True)
    assert rows is None or isinstance(rows, Dataset)
    loaded = _load(inputs, rows, config.seed)
    diagnosis = diagnose(loaded.model, rows, processing_class=loaded.processing_class, config=config)
    if loaded.new_weights:
        names = ", ".join(loaded.new_weights[:4])
        count = len(loaded.new_weights)
        what = f"The checkpoint lacks {count} weights: they are random, and their gradients say nothing"
        fix = "Add --warmup-steps or --warmup-fraction to select; or name a checkpoint that was trained on the task."
        diagnosis = diagnosis.with_problems([Problem("warning", what, names, fix)])
    console = main_console(stderr=False)
    if not inputs.as_json:
        problems = [Problem(each.severity, *in_the_shell(each)) for each in diagnosis.problems]
        console.print(replace(diagnosis, rows=_as_named(diagnosis.rows), problems=tuple(problems)))
    elif not console.quiet:
        typer.echo(json.dumps(diagnosis.to_dict(), indent=2))
    return diagnosis.ok


def _as_named(rows: RowFindings | None) -> RowFindings | None:
    """What was found of rows, with columns as the user names them."""
    if rows is None:
        return None
    read, unread = (tuple(map(name_of_column, names)) for names in (rows.read, rows.unread))
    label = None if rows.label_column is None else name_of_column(rows.label_column)
    return replace(rows, read=read, unread=unread, label_column=label)


def _load(inputs: DoctorInputs, rows: Dataset | None, seed: int) -> Loaded:
    """The model; with a head for the classes of the rows that have a label, where others have none."""
    from .models import label_column

    try:
        loaded = inputs.load_model(rows, seed, quiet=True)
    except SageError:
        if rows is None or (column := label_column(rows)) is None:
            raise
        labelled = [row for row, value in enumerate(rows.with_format(None)[column]) if value is not None]
        if len(labelled) in (0, len(rows)):
            raise
        loaded = inputs.load_model(rows.select(labelled), seed, quiet=True)
    inputs.say_loaded(rows, loaded)
    return loaded
