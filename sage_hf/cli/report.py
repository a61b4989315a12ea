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

    folder: Path = argument("Folder that `sage-hf select` or `Selection.save_to_disk` wrote.")
    output: Path | None = option(
        None, "File to write, ending in .html; report.html in the folder by default.", flags="--output -o"
    )
    dataset: str | None = option(
        None, "File, folder or Hub id of all rows; by default, the dataset that `sage-hf select` read."
    )


def report(options: ReportOptions) -> None:
    """Write a report of a selection: one HTML file that opens without network.

    It tells what was chosen and why, draws the scores and the spectrum, and shows rows as they are: the highest, the
    lowest, the doubted, near-duplicates, and those that were set aside.

    `sage-hf report imdb-10pct --output report.html`
    """
    output = options.output or options.folder / "report.html"
    if output.suffix not in (".html", ".htm"):
        raise OutputError(
            f"The name {output.name!r} does not end in .html",
            where="--output",
            fix="Choose a name that ends in .html.",
        )
    if read_scores(options.folder)[1].get("kind") == "stream":
        if options.dataset is not None:
            raise ConfigError(
                "A report on a stream shows only kept rows, so it takes no dataset",
                where="--dataset",
                fix="Leave it out.",
            )
        from ..selection.stream_selection import StreamSelection

        StreamSelection.load_from_disk(options.folder).report(output)
    else:
        open_selection(options.folder, options.dataset).report(output)
    main_console(stderr=False).print(f"Written to {output}.", markup=False, soft_wrap=True)
