"""What a report tells of a selection, gathered from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..data.status import OUTCOMES, REASONS
from ..report import ReportFacts, RowList
from .choice import about_lost
from .report import about_gate
from .rows import ShownRow, rows_of
from .selection import Selection
from .stream_selection import StreamSelection

# Rows that a list shows.
_LISTED, _LISTED_FEWER = 12, 8
_OF_STREAM = (
    "These rows were chosen from a stream: of those that were not kept, counts are known and no more. So there are "
    "no scores of theirs here, and no rows but kept ones."
)
_NO_ROWS = (
    "The rows that were selected from are not at hand, so only kept rows are shown as they are. Name them to see the "
    "others: Selection.load_from_disk(folder, source=dataset), or --dataset in the shell."
)


def report_facts(selection: Selection | StreamSelection) -> ReportFacts:
    """All that a report tells.

    Args:
        selection: What was chosen; its source is read for the rows that are shown, at most some dozens.
    """
    facts = brief_facts(selection)
    if isinstance(selection, StreamSelection):
        return replace(facts, note=_OF_STREAM)
    outcomes = np.bincount(selection.outcomes, minlength=len(OUTCOMES)).tolist()
    duplicates = None
    if selection.stats.gate is not None and selection.stats.gate.copies:
        duplicates = RowList(
            "Near-duplicates",
            "Rows that are the same to the model as another row, which may be kept; they stayed out.",
            rows_of(selection, "near-duplicates", limit=_LISTED_FEWER),
            outcomes[OUTCOMES.index("near-duplicate")],
        )
    return replace(
        facts,
        outcomes={name: number for name, number in zip(OUTCOMES, outcomes, strict=True) if number},
        typical=_lists(selection, outcomes[OUTCOMES.index("doubted")]),
        duplicates=duplicates,
        set_aside={reason: np.flatnonzero(selection.status == status).tolist() for status, reason in REASONS.items()},
        set_aside_rows=rows_of(selection, "set-aside", limit=_LISTED_FEWER),
        note="" if selection.source is not None else _NO_ROWS,
    )


def brief_facts(selection: Selection | StreamSelection) -> ReportFacts:
    """What the small form tells: no rows."""
    return ReportFacts(selection.stats, selection.config, selection.seen())


def _lists(selection: Selection, doubted: int) -> list[RowList]:
    return []
