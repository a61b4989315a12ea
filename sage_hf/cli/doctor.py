"""The shell's `sage-hf doctor`: what would a selection with this model and these rows be like?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..config import SageConfig
from ..data.encoding import LABEL_COLUMNS
from ..errors import SageError
from ..passes.processes import launched
from .options import DoctorInputs, friendly, with_options

if TYPE_CHECKING:
    from datasets import Dataset

    from .loading import Loaded


@friendly
@with_options
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON instead.")] = False,
    *,
    inputs: DoctorInputs,
    config: SageConfig,
) -> None:
    """Look at a model, and a dataset if one is named, before a selection: what it takes, and what to change.

    Which weights are targeted by which rule, how wide rows are, memory, disk and time; what was found in the dataset;
    whether rows that share a batch can be told apart. Nothing is chosen or written. All faults are listed, not only
    the first; the exit code is 1 where one of them is an error.

    `sage-hf doctor distilbert-base-uncased reviews.jsonl --fraction 0.1`
    """
    from datasets import Dataset

    from ..diagnosis import Problem, diagnose
    from .loading import load_rows

    state = launched()
    rows = None
    if inputs.dataset is not None:
        found = load_rows(inputs.dataset, inputs.split, inputs.dataset_name, False, inputs.revision)
        assert isinstance(found, Dataset)
        rows = found
    loaded = _load(inputs, rows, config, Console(stderr=True, quiet=not state.is_main_process))
    diagnosis = diagnose(loaded.model, rows, processing_class=loaded.processing_class, config=config)
    if loaded.new_weights:
        names = ", ".join(loaded.new_weights[:4])
        what = (
            f"The checkpoint lacks {len(loaded.new_weights)} weights: they are random, and their gradients say nothing"
        )
        fix = "Add --warmup-steps or --warmup-fraction to select; or name a checkpoint that was trained on the task."
        diagnosis = diagnosis.with_problems([Problem("warning", what, names, fix)])
    if state.is_main_process:
        if as_json:
            typer.echo(json.dumps(diagnosis.to_dict(), indent=2))
        else:
            Console().print(diagnosis)
    state.wait_for_everyone()
    state.destroy_process_group()
    if not diagnosis.ok:
        raise typer.Exit(1)


def _load(inputs: DoctorInputs, rows: Dataset | None, config: SageConfig, console: Console) -> Loaded:
    """The model; with a head for the classes of the rows that have a label, where others have none."""
    state = launched()
    try:
        return inputs.load_model(rows, state.device, config.seed, console)
    except SageError:
        column = next((name for name in LABEL_COLUMNS if rows is not None and name in rows.column_names), None)
        if rows is None or column is None:
            raise
        labelled = [row for row, value in enumerate(rows.with_format(None)[column]) if value is not None]
        if len(labelled) in (0, len(rows)):
            raise
        return inputs.load_model(rows.select(labelled), state.device, config.seed, console)
