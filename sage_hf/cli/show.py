"""The shell's `sage-hf show`: rows of a selection, as they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import printable
from .folders import open_selection
from .options import argument, main_console, option

if TYPE_CHECKING:
    from rich.table import Table

    from ..selection.rows import ShownRow

# Letters of a name that are shown at most, and of a content at least.
_WIDEST, _LEAST = 20, 10
# Letters of a row's content that are given to the table, which shows as many as fit.
_LETTERS = 300


@dataclass(frozen=True)
class ShowOptions:
    """See their help."""

    folder: Path = argument("Folder that `sage-hf select` wrote.")
    rows: str = option(
        "kept", "Which rows: kept, dropped, doubted, near-duplicates, set-aside, highest or lowest (by score)."
    )
    group: str | None = option(None, "Show only rows of this group.")
    limit: int = option(20, "Largest number of rows to show.", min=1)
    dataset: str | None = option(
        None, "File, folder or Hub id of all rows; by default, the dataset that `sage-hf select` read."
    )


def show(options: ShowOptions) -> None:
    """Show rows of a selection: their text or the file of their image, their label, score and doubt.

    `sage-hf show imdb-10pct --rows doubted --limit 10`
    """
    from ..selection.rows import numbers_of, rows_of

    selection = open_selection(options.folder, options.dataset)
    found = rows_of(selection, options.rows, group=options.group, limit=options.limit)
    console = main_console(stderr=False)
    if not found:
        console.print(f"There are no rows to show: {options.rows}.", markup=False)
        return
    console.print(table_of(found, console.width))
    total = len(numbers_of(selection, options.rows, options.group))
    console.print(f"{len(found):,} of {total:,} rows.")


def table_of(rows: list[ShownRow], width: int) -> Table:
    """The rows as something `rich` prints; columns that say nothing are left out.

    Args:
        rows: The rows.
        width: Columns of the terminal. The content has what the others leave.
    """
    from rich.table import Table
    from rich.text import Text

    columns: dict[str, list[str]] = {
        "row": [f"{each.row:,}" for each in rows],
        "outcome": [each.outcome for each in rows],
        "score": ["" if each.score is None else f"{each.score:.3f}" for each in rows],
        "label": [each.label or "" for each in rows],
        "doubt": ["" if each.doubt is None else f"{each.doubt:.2f}" for each in rows],
        "suggested": [each.suggestion or "" for each in rows],
        "content": ["" if each.content is None else content_text(each.content) for each in rows],
    }
    if len(set(columns["outcome"])) == 1:
        del columns["outcome"]
    texts = {  # Text, not str: content may hold "[b]"
        name: [Text(printable(cell)) for cell in cells]
        for name, cells in columns.items()
        if name == "row" or any(cells)
    }
    widths = {name: min(_WIDEST, max(cell.cell_len for cell in [Text(name), *cells])) for name, cells in texts.items()}
    if "content" in widths:
        taken = sum(widths[name] for name in widths if name != "content")
        widths["content"] = max(_LEAST, width - taken - 3 * len(widths) - 1)
    table = Table()
    for name, cells in texts.items():
        table.add_column(name, justify="right" if name in ("row", "score", "doubt") else "left", no_wrap=True)
        for cell in cells:
            cell.truncate(widths[name], overflow="ellipsis")
    for line in zip(*texts.values(), strict=True):
        table.add_row(*line)
    return table


def content_text(content: dict[str, Any]) -> str:
    """A row on one line: texts as they are, an image by its file or size, a recording by its length.

    Labels are left out, which have a column of their own.
    """
    from ..data.encoding import LABEL_COLUMNS

    parts = {name: value_text(value) for name, value in content.items() if name not in LABEL_COLUMNS}
    parts = {name: text for name, text in parts.items() if text}
    if len(parts) == 1:
        return next(iter(parts.values()))[:_LETTERS]
    return " | ".join(f"{name}: {text}" for name, text in parts.items())[:_LETTERS]


def value_text(value: Any) -> str:
    """One value on one line."""
    if value is None:
        return ""
    if hasattr(value, "filename") or hasattr(value, "getbands"):  # an image
        name = getattr(value, "filename", "")
        # With its folder, which is the class in a folder of images.
        return str(Path(*Path(name).parts[-2:])) if name else f"image, {value.width} x {value.height}"
    if isinstance(value, dict) and "array" in value and "sampling_rate" in value:
        return f"sound, {len(value['array']) / value['sampling_rate']:.1f} s"
    if isinstance(value, dict) and {"role", "content"} <= set(value):
        return f"{value['role']}: {value_text(value['content'])}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {value_text(each)}" for name, each in value.items())
    if isinstance(value, list) and value and not isinstance(value[0], (dict, str)):
        return f"{len(value):,} values"
    if isinstance(value, list):
        return " / ".join(map(value_text, value))
    return " ".join(str(value).split())
