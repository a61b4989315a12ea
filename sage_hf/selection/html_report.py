"""What a report tells of a selection, gathered from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..data.status import DOUBTED, NEAR_DUPLICATE, OUTCOMES, REASONS, ROW_COLUMN
from ..report import ReportFacts, RowList
from .base import SelectionBase
from .report import about_choice
from .rows import ShownRow, rows_of, source_numbers
from .selection import Selection
from .stream_selection import StreamSelection

# Rows that a list shows.
_LISTED, _LISTED_FEWER = 12, 8
_OF_STREAM = (
    "These rows were chosen from a stream. Only counts are known of the rows that were not kept, so neither these "
    "rows nor their scores are shown."
)
_NO_SOURCE = (
    "The original dataset is not available, so only kept rows are shown with their content. To see the "
    "others, name its file, folder or Hub id with --dataset, or load "
    "with Selection.load_from_disk(folder, source=dataset)."
)


def report_facts(selection: SelectionBase) -> ReportFacts:
    """All that a report tells.

    Args:
        selection: What was chosen. Of its source some dozens of rows are read, those that are shown.
    """
    if isinstance(selection, StreamSelection):
        return _of_stream(selection)
    assert isinstance(selection, Selection)
    counts = np.bincount(selection.outcomes, minlength=len(OUTCOMES)).tolist()
    facts = brief_facts(selection)
    listed = dict.fromkeys(("kept", "highest", "lowest", "doubted"), _LISTED)
    listed |= dict.fromkeys(("near-duplicates", "set-aside"), _LISTED_FEWER)
    note = "" if selection.source is not None else _NO_SOURCE
    try:
        rows = {view: rows_of(selection, view, limit=limit) for view, limit in listed.items()}
    except (OSError, ValueError) as error:  # an image whose file is gone, for one
        unread = replace(selection, source=None)
        rows = {}
        for view, limit in listed.items():
            found = rows_of(unread, view, limit=limit)
            numbers = source_numbers(selection, [row.row for row in found])
            rows[view] = [replace(row, row=number) for row, number in zip(found, numbers, strict=True)]
        # Not the error's own words, which may name a folder of this machine.
        reason = getattr(error, "strerror", None) or type(error).__name__
        note = f"The rows cannot be shown as they are, because reading them failed: {reason}."
    gate, config = selection.stats.gate, selection.config
    typical = [
        RowList(
            "Highest agreement", "The rows whose gradients point most in their group's direction.", rows["highest"]
        ),
        RowList(
            "Lowest agreement",
            "The rows whose gradients point least in their group's direction, or against it.",
            rows["lowest"],
        ),
    ]
    if selection.source is None:
        typical.insert(0, RowList("Kept rows", "The first of them.", rows["kept"], len(selection)))
    if gate is not None:
        typical.append(RowList("Doubted rows", _about_doubts(gate.method), rows["doubted"], counts[DOUBTED]))
    duplicates = None
    if gate is not None and config.gate == "auto":
        about = "Rows that look the same to the model as another row. They were left out; the other row could be kept."
        if not counts[NEAR_DUPLICATE]:
            about = "None: no row looks the same to the model as another row."
        duplicates = RowList("Near-duplicates", about, rows["near-duplicates"], counts[NEAR_DUPLICATE])
    aside = {reason: np.flatnonzero(selection.status == status).tolist() for status, reason in REASONS.items()}
    return replace(
        facts,
        why=about_choice(selection),
        outcomes={name: number for name, number in zip(OUTCOMES, counts, strict=True) if number},
        typical=typical,
        duplicates=duplicates,
        set_aside={reason: source_numbers(selection, numbers) for reason, numbers in aside.items() if numbers},
        set_aside_rows=rows["set-aside"],
        note=note,
    )


def brief_facts(selection: SelectionBase) -> ReportFacts:
    """What the small form tells, for which no row is read."""
    return ReportFacts(selection.stats, selection.config, selection.seen())


def _of_stream(selection: StreamSelection) -> ReportFacts:
    stats, aside = selection.stats, {}  # type: ignore[var-annotated]
    for row, reason in selection.set_aside.items():
        aside.setdefault(reason, []).append(row)
    outcomes = {"kept": stats.kept, "not kept": stats.rows - stats.kept - stats.set_aside}
    order = np.argsort(-selection.kept_scores, kind="stable")
    typical = [
        RowList("Highest agreement", "Of the kept rows.", _kept_rows(selection, order[:_LISTED])),
        RowList("Lowest agreement", "Of the kept rows.", _kept_rows(selection, order[::-1][:_LISTED])),
    ]
    return replace(
        brief_facts(selection),
        why=about_choice(selection),
        outcomes=outcomes | ({"set aside": stats.set_aside} if stats.set_aside else {}),
        typical=typical if selection.saved is not None else [],
        set_aside=aside,
        note=_OF_STREAM,
    )


def _kept_rows(selection: StreamSelection, places: npt.NDArray[np.int64]) -> list[ShownRow]:
    """Kept rows of a stream, at places among them; none where they are not in a folder."""
    if selection.saved is None:
        return []
    names, groups = selection.group_names, selection.kept_groups
    return [
        ShownRow(
            row=content.get(ROW_COLUMN, int(selection.indices[place])),
            outcome="kept",
            score=float(selection.kept_scores[place]),
            loss=None,
            group=names[int(groups[place])],
            label=None,
            doubt=None,
            suggestion=None,
            content={name: value for name, value in content.items() if name != ROW_COLUMN},
        )
        for place, content in zip(places.tolist(), selection.saved.with_format(None).select(places), strict=True)
    ]


def _about_doubts(method: str) -> str:
    if method == "cross-fold":
        return (
            "Rows whose label may be wrong, the most doubted first. Above 0.5, another class is likelier than the "
            "given one."
        )
    return "Rows that were left out because they may be wrong, the most doubted first."
