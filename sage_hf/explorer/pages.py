"""Parts of the explorer's page as HTML, with everything that comes from data escaped."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from ..report.contents import show
from ..report.environment import environment
from ..report.words import share_of
from ..selection.report import about_choice
from ..selection.rows import ShownRow
from .state import Change, Explored, GroupChange, Page, change_of, groups_of

# Groups that the table lists, the largest, and marks, the last.
_GROUPS, _MARKS = 200, 200


def style() -> str:
    """The style sheet of the parts below."""
    return (files("sage_hf.explorer") / "templates" / "style.css").read_text(encoding="utf-8")


def summary_html(state: Explored) -> str:
    """How many rows are kept, how many changed, and why."""
    change: Change = change_of(state)
    return _render(
        "summary.html", change=change, notes=about_choice(state.chosen), is_original=state.chosen is state.original
    )


def groups_html(state: Explored) -> str:
    """How many rows of each group are kept, before and now."""
    groups: list[GroupChange] = groups_of(state)
    listed = sorted(sorted(groups, key=lambda group: -group.rows)[:_GROUPS], key=groups.index)
    widest = max((share_of(each, group.rows) for group in listed for each in (group.before, group.now)), default=0)
    name = state.original.stats.group_by or "all rows"
    return _render("groups.html", groups=listed, more=len(groups) - len(listed), widest=widest or 1.0, name=name)


def card_html(row: ShownRow, has_groups: bool) -> str:
    """One row: its content, its label and what became of it."""
    shown = None if row.content is None else show(row.content, row.label is not None)
    return _render("card.html", row=row, shown=shown, has_groups=has_groups)


def place_html(page: Page) -> str:
    """Which rows of a view a page shows."""
    return _render("place.html", page=page)


def marks_html(state: Explored) -> str:
    """The marked labels, the last marked first."""
    marks = list(state.marks.values())[::-1]
    return _render("marks.html", marks=marks[:_MARKS], total=len(marks))


def message_html(text: str, is_error: bool = False) -> str:
    """A sentence to a person; nothing where it is empty."""
    return _render("message.html", text=text, is_error=is_error)


def link_html(text: str, address: str) -> str:
    """The same, with a link."""
    return _render("message.html", text=text, is_error=False, address=address)


def _render(template: str, **values: Any) -> str:
    return environment("sage_hf.explorer").get_template(template).render(**values)
