"""Label issues as records of Argilla, where people check labels together."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from datasets import Dataset, Image

from ..data.status import ROW_COLUMN
from ..errors import ConfigError
from .issue_list import DOUBT_COLUMN, LABEL_COLUMN, SUGGESTION_COLUMN


def argilla_records(issues: Dataset, rows: Dataset, fields: list[str], question: str) -> list[Any]:
    """A record a label issue; see `LabelIssues.to_argilla`.

    Args:
        issues: The list, [S].
        rows: The rows themselves, [S], for images that no path leads to.
        fields: Columns that tell what a row is.
        question: Name of the label question.

    Raises:
        ConfigError: Argilla is not installed.
    """
    try:
        argilla = import_module("argilla")
    except ModuleNotFoundError as error:
        if error.name != "argilla":  # an installation that lacks something says so itself
            raise
        fix = "Install it with pip install argilla."
        raise ConfigError("Argilla is not installed", where="to_argilla", fix=fix) from error
    images = [name for name, feature in rows.features.items() if isinstance(feature, Image) and feature.decode]
    records = []
    for place, issue in enumerate(issues):
        content = {name: issue[name] for name in fields if issue[name] is not None}
        for name in images:
            if not Path(content.get(name, "")).is_file():
                content[name] = rows[place][name]
        suggestion = argilla.Suggestion(
            question, issue[SUGGESTION_COLUMN], score=issue[DOUBT_COLUMN], agent="sage_hf", type="model"
        )
        told = {ROW_COLUMN: issue[ROW_COLUMN], DOUBT_COLUMN: issue[DOUBT_COLUMN], LABEL_COLUMN: issue[LABEL_COLUMN]}
        records.append(
            argilla.Record(id=str(issue[ROW_COLUMN]), fields=content, metadata=told, suggestions=[suggestion])
        )
    return records
