"""The shell's `sage-hf report`: a selection as one page of HTML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, OutputError
from ..hub.files import read_scores
from .folders import open_selection
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
    if output.suffix not in (".html", ".htm"):
        raise OutputError(f"The file {output.name!r} is no page", where="--output", fix="End its name in .html.")
    if read_scores(options.folder)[1].get("kind") == "stream":
        if options.dataset is not None:
            raise ConfigError(
                "Of a selection from a stream only kept rows are shown", where="--dataset", fix="Leave it out."
            )
        from ..selection.stream_selection import StreamSelection

        StreamSelection.load_from_disk(options.folder).report(output)
    else:
        open_selection(options.folder, options.dataset).report(output)
    main_console(stderr=False).print(f"Written to {output}.", markup=False)
