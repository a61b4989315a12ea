"""A signal that ends a run: what is unfinished is put away as after Ctrl-C, and the exit code tells which it was."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType

# Of an interrupt, and of a scheduler that takes the machine back (SLURM, a spot machine) or a launcher that ends all.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_until_signal(app: Callable[[], None]) -> None:
    """Runs the shell; after a signal it ends with 128 and the signal's number: 130 of SIGINT, 143 of SIGTERM."""
    received: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        is_first = not received
        received.append(number)
        # What is put away may find its worker processes ended by the same signal, which is nothing to be told.
        sys.unraisablehook = lambda _: None
        # A second Ctrl-C means at once; launchers and schedulers say it twice, and must not break the tidying up.
        if is_first or number == signal.SIGINT:
            raise KeyboardInterrupt

    for number in _SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # else somebody has a reason
            signal.signal(number, end)
    try:
        app()
    except SystemExit as left:
        if received and left.code:
            sys.exit(128 + received[0])
        raise
    except (Exception, KeyboardInterrupt):
        if received:  # whatever it broke
            sys.exit(128 + received[0])
        raise
