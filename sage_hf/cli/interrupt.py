"""Signals that end a command (Ctrl-C, SIGTERM): it says how it goes on, and its exit code tells which signal it was.

What is unfinished is put away; a second Ctrl-C ends at once.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType

import typer

# What a command that takes long says of its own line, once it was interrupted.
_SAID = {"select": "Go on with", "compare": "Go on with", "push": "Go on with", "label-issues": "Start again with"}
# Of an interrupt, and of a scheduler that takes the machine back (SLURM, a spot machine) or a launcher that ends all.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Exit code of an interrupted command.
INTERRUPTED = 128 + signal.SIGINT
# Seconds in which a launcher may pass on the Ctrl-C that its processes had from the terminal, too.
_LAUNCHER = 2.0
_TOKEN = re.compile(r"hf_\w{8,}")
_LINE: ContextVar[list[str] | None] = ContextVar("line", default=None)


def run_until_signal(app: Callable[[], None]) -> None:
    """Runs the shell; after a signal it ends with 128 and the signal's number: 130 of SIGINT, 143 of SIGTERM."""
    received: list[int] = []
    first = 0.0

    def end(number: int, _: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if not received:
            received.append(number)
            first = now
            # What is put away may find its worker processes ended by the same signal, which is nothing to be told.
            sys.unraisablehook = lambda _: None
            raise KeyboardInterrupt
        # Launchers and schedulers say it twice, and must not break the tidying up.
        is_echo = "RANK" in os.environ and now - first <= _LAUNCHER
        if number == signal.SIGINT and not is_echo:
            os._exit(INTERRUPTED)

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


@contextmanager
def interruptible(words: Sequence[str]) -> Iterator[None]:
    """Around a command: where a user interrupts it, its line is told, and it ends with exit code 130.

    Args:
        words: The words of the line, without the program.
    """
    _LINE.set([*words])
    try:
        yield
    except KeyboardInterrupt as error:
        if os.environ.get("RANK", "0") == "0":
            if not hasattr(error, "sage_hf_told"):
                typer.echo("Interrupted.", err=True)
            if text := about_going_on(_LINE.get() or []):
                typer.echo(text, err=True)
        raise typer.Exit(INTERRUPTED) from None


def go_on_with(words: Sequence[str]) -> None:
    """Which line goes on from now on, in the place of the one that was given."""
    _LINE.set([*words])


def about_going_on(words: Sequence[str]) -> str:
    """The line that goes on with an interrupted command, for people; empty where none does.

    Tokens are left out.
    """
    if not words or words[0] not in _SAID:
        return ""
    line, has_token = without_tokens(words)
    if words[0] == "push" and "--overwrite" not in line:
        line.append("--overwrite")
    is_launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    is_module = is_launched or Path(sys.argv[0]).name == "__main__.py"
    program = ["-m", "sage_hf"] if is_module else ["sage-hf"]
    launcher = "the same launcher and " if is_launched else ""
    start = ["python"] if is_module and not is_launched else []
    note = " (and your token, by HF_TOKEN)" if has_token else ""
    return f"{_SAID[words[0]]} {launcher}{shlex.join([*start, *program, *line])}{note}".replace(" with ", " with: ", 1)


def without_tokens(words: Sequence[str]) -> tuple[list[str], bool]:
    """The words without `--token` and what looks like a token, and whether there was one."""
    kept: list[str] = []
    is_value = has_token = False
    for word in words:
        if is_value or word == "--token" or word.startswith("--token="):
            is_value, has_token = word == "--token" and not is_value, True
        elif _TOKEN.search(word):
            has_token = True
            kept.append(_TOKEN.sub("TOKEN", word))
        else:
            kept.append(word)
    return kept, has_token
