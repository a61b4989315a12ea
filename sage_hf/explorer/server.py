"""The explorer as it is started: by the shell, in a Space, or from Python."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    import gradio

    from ..selection.selection import Selection

INSTALL = 'pip install "sage-hf[explore]"'


@dataclass(frozen=True)
class Offers:
    """What the explorer offers besides looking.

    Attributes:
        writes: Whether selections may be saved to folders of this machine and pushed with its login.
        folder: The folder that the selection was loaded from, for the line of the shell that makes a choice again.
        on_saved: Called with each folder that a selection was saved to.
    """

    writes: bool = True
    folder: str | None = None
    on_saved: Callable[[Path], None] | None = None


def check_installed() -> None:
    """Refuses to go on without gradio.

    Raises:
        ConfigError: It is not installed.
    """
    if find_spec("gradio") is None:
        raise ConfigError("The explorer needs gradio, which is not installed", where="gradio", fix=f"Run {INSTALL}.")


def build_app(selection: Selection, offers: Offers | None = None) -> gradio.Blocks:
    """The explorer as a gradio app, not started yet.

    Args:
        selection: The selection. Strategies that compare rows need its signals, and rows that were not kept are shown
            where its source is attached.
        offers: What can be done besides looking. Nothing is written by default: whoever opens the app could write to
            this machine and push with its login.

    Raises:
        ConfigError: Gradio is not installed.
    """
    check_installed()
    # Nothing is asked for or sent elsewhere, and the browser keeps no copies of what was shown.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
    from .app import make_app

    return make_app(selection, offers or Offers(writes=False))


def launch(
    selection: Selection,
    *,
    host: str | None = "127.0.0.1",
    port: int | None = None,
    offers: Offers | None = None,
    say: Callable[[str], None] = print,
    block: bool = True,
) -> gradio.Blocks:
    """Starts the explorer.

    Args:
        selection: As of `build_app`.
        host: Address to listen on; this machine alone can open it by default. None takes GRADIO_SERVER_NAME, which a
            Space sets.
        port: Port; the first free one from 7860 on by default, or GRADIO_SERVER_PORT.
        offers: As of `build_app`.
        say: Is told the address.
        block: Whether to wait until the explorer is stopped.

    Raises:
        ConfigError: Gradio is not installed, or the address cannot be listened on.
    """
    app = build_app(selection, offers)
    from .app import LAUNCH

    try:
        _, address, _ = app.launch(server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, **LAUNCH)
    except (OSError, ValueError) as error:
        place = f"{host or 'this machine'}, port {port}" if port else str(host or "this machine")
        raise ConfigError(
            f"The explorer cannot listen on {place}: {' '.join(str(error).split())}",
            where="host, port",
            fix="Choose another port, or leave it out for the first free one.",
        ) from error
    say(f"Open {address} in a browser. Ctrl-C stops the explorer.")
    if block:
        app.block_thread()
    return app
