"""Rows of a selection as a person looks at them: kept, dropped, doubted, with the highest scores, and so on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import ClassLabel, Features

from ..data.encoding import LABEL_COLUMNS
from ..data.status import (
    DOUBTED,
    KEPT,
    LOSS_COLUMN,
    NEAR_DUPLICATE,
    OUTCOMES,
    REASONS,
    ROW_COLUMN,
    SCORE_COLUMN,
    SET_ASIDE,
)
from ..errors import ConfigError
from .selection import Selection

# What can be looked at, and which comes first.
ROW_VIEWS = {
    "kept": "by row number",
    "dropped": "by row number",
    "doubted": "the most doubted first",
    "near-duplicates": "by row number",
    "set-aside": "by row number",
    "highest": "the highest score first",
    "lowest": "the lowest score first",
}
_OUTCOME_OF = {"kept": KEPT, "near-duplicates": NEAR_DUPLICATE, "set-aside": SET_ASIDE}
# Doubt above which another class is likelier.
_LIKELIER = 0.5


@dataclass(frozen=True)
class ShownRow:
    """One row, and what became of it.

    Attributes:
        row: Its number in the source; of `rows_of` that which the source's column `sage_row` has, where there is one.
        outcome: One of `sage_hf.data.status.OUTCOMES`; of a row that was set aside, with the reason.
        score: Agreement in [-1, 1]; None where the row was set aside.
        loss: Its own loss; None where the row was set aside.
        group: Name of its group.
        label: Its class by name; None where rows have no class, or the row is not at hand.
        doubt: How likely the label is wrong, in [0, 1]; None where it was not judged.
        suggestion: The likeliest other class, where that is likelier than its own.
        content: Its columns in the source, but for those of sage_hf; None where the source is not at hand.
    """

    row: int
    outcome: str
    score: float | None
    loss: float | None
    group: str
    label: str | None
    doubt: float | None
    suggestion: str | None
    content: dict[str, Any] | None


def rows_of(selection: Selection, view: str, *, group: str | None = None, limit: int = 20) -> list[ShownRow]:
    """Some of the rows of a selection.

    Args:
        selection: The selection. Rows that were not kept show their content where the source is attached.
        view: One of `ROW_VIEWS`.
        group: Name of a group; rows of all groups by default.
        limit: Number of rows at most.

    Returns:
        The rows; numbered as in the file that they came from, where rows were left out of that before.

    Raises:
        ConfigError: There is no such view or group.
    """
    places = numbers_of(selection, view, group)[:limit]
    rows = rows_at(selection, places)
    return [replace(row, row=number) for row, number in zip(rows, source_numbers(selection, places), strict=True)]


def source_numbers(selection: Selection, rows: Sequence[int] | npt.NDArray[np.int64]) -> list[int]:
    """Numbers of rows as the column `sage_row` of the source has them; as they are where it says nothing of a row.

    Of a selection without its source, kept rows say it.

    Args:
        selection: The selection.
        rows: Their numbers in the source.
    """
    if selection.source is not None:
        known, places = selection.source, dict(zip(rows, rows, strict=True))
    elif "dataset" in selection.__dict__:
        known = selection.dataset
        among = np.searchsorted(selection.indices, np.asarray(rows, dtype=np.int64))
        kept = selection.indices
        pairs = zip(rows, among.tolist(), strict=True)
        places = {row: place for row, place in pairs if place < len(kept) and kept[place] == row}
    else:
        return [int(row) for row in rows]
    if ROW_COLUMN not in known.column_names or not places:
        return [int(row) for row in rows]
    stored = known.select_columns(ROW_COLUMN).with_format(None).select([*places.values()])[ROW_COLUMN][:]
    told = {row: number for row, number in zip(places, stored, strict=True) if isinstance(number, int)}
    return [told.get(row, int(row)) for row in rows]


def rows_at(selection: Selection, numbers: npt.NDArray[np.int64]) -> list[ShownRow]:
    """The rows of these numbers, in this order."""
    outcomes, contents = selection.outcomes, _contents(selection, numbers)
    features = None  # read once: datasets copies them, names of thousands of classes among them
    if any(content is not None for content in contents):
        features = (selection.source if selection.source is not None else selection.dataset).features
    return [
        _shown(selection, row, int(outcomes[row]), content, features)
        for row, content in zip(numbers.tolist(), contents, strict=True)
    ]


def numbers_of(selection: Selection, view: str, group: str | None = None) -> npt.NDArray[np.int64]:
    """Numbers of all rows of a view, in its order; arguments and errors as of `rows_of`."""
    if view not in ROW_VIEWS:
        raise ConfigError(f"There is no view {view!r}", where="view", fix=f"Use one of {', '.join(ROW_VIEWS)}.")
    outcomes, scores = selection.outcomes, selection.scores
    if view in ("highest", "lowest"):
        rows = np.flatnonzero(outcomes != SET_ASIDE)
        rows = rows[np.argsort(scores[rows] if view == "lowest" else -scores[rows], kind="stable")]
    elif view == "doubted":
        rows = np.flatnonzero(outcomes == DOUBTED)
        doubts = selection.label_doubts
        rows = rows if doubts is None else rows[np.argsort(-doubts[rows], kind="stable")]
    elif view == "dropped":
        rows = np.flatnonzero(outcomes != KEPT)
    else:
        rows = np.flatnonzero(outcomes == _OUTCOME_OF[view])
    if group is not None:
        if group not in selection.group_names:
            named = ", ".join(selection.group_names[:20])
            raise ConfigError(f"There is no group {group!r}", where="group", fix=f"Use one of {named}.")
        rows = rows[selection.groups[rows] == selection.group_names.index(group)]
    return rows.astype(np.int64)


def _shown(
    selection: Selection, row: int, outcome: int, content: dict[str, Any] | None, features: Features | None
) -> ShownRow:
    doubt = None if selection.label_doubts is None else float(selection.label_doubts[row])
    suggestion = None
    if doubt is not None and doubt > _LIKELIER and selection.suggested_labels is not None and selection.label_names:
        code = int(selection.suggested_labels[row])
        suggestion = selection.label_names[code] if code >= 0 else None
    reason = f" ({REASONS[int(selection.status[row])]})" if outcome == SET_ASIDE else ""
    return ShownRow(
        row,
        OUTCOMES[outcome] + reason,
        None if outcome == SET_ASIDE else float(selection.scores[row]),
        None if outcome == SET_ASIDE else float(selection.losses[row]),
        selection.group_names[int(selection.groups[row])],
        _label(content, features),
        None if doubt is None or np.isnan(doubt) else doubt,
        suggestion,
        content,
    )


def _contents(selection: Selection, rows: npt.NDArray[np.int64]) -> list[dict[str, Any] | None]:
    """The rows as the source has them; of a selection without its source, those that were kept."""
    found: list[dict[str, Any] | None] = []
    if selection.source is not None:
        found = [dict(row) for row in selection.source.with_format(None).select(rows)]
    elif "dataset" in selection.__dict__:
        kept = selection.dataset.with_format(None)
        for row in rows:
            place = int(np.searchsorted(selection.indices, row))
            is_kept = place < len(selection.indices) and selection.indices[place] == row
            found.append(dict(kept[place]) if is_kept else None)
    else:
        found = [None] * len(rows)
    own = (ROW_COLUMN, SCORE_COLUMN, LOSS_COLUMN)
    return [each and {name: value for name, value in each.items() if name not in own} for each in found]


def _label(content: dict[str, Any] | None, features: Features | None) -> str | None:
    column = next((name for name in LABEL_COLUMNS if name in (content or {})), None)
    if content is None or features is None or column is None:
        return None
    if isinstance(content[column], list) or content[column] is None:
        return None
    feature, value = features.get(column), content[column]
    is_known = isinstance(feature, ClassLabel) and isinstance(value, int) and 0 <= value < feature.num_classes
    return str(feature.int2str(value)) if is_known else str(value)
