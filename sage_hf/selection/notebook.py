"""A selection as HTML, for notebooks."""

from __future__ import annotations

import base64
from html import escape

from ..data.stats import SelectionStats
from ..hub.cards import GROUP_HEAD, group_cells, largest_groups
from ..hub.pictures import Seen, can_draw, draw, render


def as_html(stats: SelectionStats, seen: Seen) -> str:
    """Kept rows by group, what the sketch holds, and the picture of the scores where matplotlib is installed."""
    listed, others = largest_groups(stats.groups)
    head = [stats.group_by or "group", *GROUP_HEAD]
    lines = [group_cells(group) for group in listed]
    more = f"<p>and {len(others):,} smaller groups</p>" if others else ""
    picture = ""
    if can_draw():
        data = base64.b64encode(render(draw(seen, "scores"), "png")).decode()
        picture = f'<img alt="Agreement of the rows by group, kept and not kept" src="data:image/png;base64,{data}">'
    return (
        f"<p><b>Kept {stats.kept:,} of {stats.rows:,} rows.</b> The sketch holds {stats.energy:.1%} of the "
        f"gradients' energy; {stats.set_aside:,} rows were set aside.</p>"
        f"<table><thead>{_row(head, 'th')}</thead><tbody>{''.join(_row(line, 'td') for line in lines)}</tbody></table>"
        f"{more}{f'<p><b>{escape(stats.warning)}</b></p>' if stats.warning else ''}{picture}"
    )


def _row(values: list[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(str(value))}</{tag}>' for value in values)}</tr>"
