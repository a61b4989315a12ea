"""The shell's `sage-hf report`: a selection as one page of HTML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..hub.files import read_scores
from .options import argument, main_console, option


@dataclass(frozen=True)
class ReportOptions:
    """See their help."""

    folder: Path = argument("What `sage-hf select` or `Selection.save_to_disk` wrote.")
    output: Path | None = option(
        None, "File to write, ending in .html; report.html in the folder by default.", flags="--output -o"
    )
    dataset: str | None = option(
        None, "File, folder or Hub id of the rows that were selected from, where they are not found again."
    )


def report(options: ReportOptions) -> None:
    """Write a report of a selection: one HTML file that opens without network.

    It tells what was chosen and why, draws the scores and the spectrum, and shows rows as they are: the highest, the
    lowest, the doubted, near-duplicates, and those that were set aside.

    `sage-hf report imdb-10pct --output report.html`
    """
    output = options.output or options.folder / "report.html"
    check_page(output)
    kind = read_scores(options.folder)[1].get("kind")
    from ..selection.stream_selection import StreamSelection
    from .folders import open_selection

    if kind == "stream":
        StreamSelection.load_from_disk(options.folder).report(output)
    else:
        open_selection(options.folder, options.dataset).report(output)
    main_console(stderr=False).print(f"Written to {output}.", markup=False)
