"""The shell's `sage-hf explore`: a selection in a browser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..explorer.server import Offers, check_installed, launch
from .folders import open_selection, pass_source_on
from .options import argument, main_console, option

# Addresses that this machine alone can open.
_LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class ExploreOptions:
    """See their help."""

    folder: Path = argument("Folder that `sage-hf select` wrote.")
    dataset: str | None = option(
        None, "File, folder or Hub id of all rows; by default, the dataset that `sage-hf select` read."
    )
    port: int | None = option(None, "Port to listen on; the first free one from 7860 on by default.", min=1, max=65535)
    host: str = option(
        "127.0.0.1", "Address to listen on. If other machines can open it, saving and pushing are switched off."
    )


def explore(options: ExploreOptions) -> None:
    """Open a selection in a browser: try other settings, look at rows, mark wrong labels, save or push.

    Needs gradio: `pip install "sage-hf[explore]"`. No model is loaded, and nothing is sent anywhere but what you push.

    `sage-hf explore imdb-10pct`
    """
    check_installed()
    selection = open_selection(options.folder, options.dataset)
    offers = Offers(
        writes=options.host in _LOCAL,
        folder=str(options.folder),
        on_saved=lambda output: pass_source_on(options.folder, output, options.dataset),
    )
    console = main_console(stderr=False)
    launch(
        selection,
        host=options.host,
        port=options.port,
        offers=offers,
        say=lambda text: console.print(text, markup=False, soft_wrap=True),
    )
