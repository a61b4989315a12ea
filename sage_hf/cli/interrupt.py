"""Ctrl-C in the shell: the first one stops a command, which says how it goes on; the second ends it at once."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

import typer

# What a command that takes long says of its own line, once it was interrupted.
_SAID = {"select": "Go on with", "compare": "Go on with", "push": "Go on with", "label-issues": "Start again with"}
# Exit code of an interrupted command.
INTERRUPTED = 130
# Seconds in which a launcher may pass on the Ctrl-C that its processes had from the terminal, too.
_LAUNCHER = 2.0
_TOKEN = re.compile(r"hf_\w{8,}")
_LINE: ContextVar[list[str] | None] = ContextVar("line", default=None)


@contextmanager
def interruptible(words: Sequence[str]) -> Iterator[None]:
    """Around a command: where a user interrupts it, its line is told, and it ends with exit code 130.

    Args:
        words: The words of the line, without the program.
    """
    _LINE.set([*words])
    before = _listen()
    try:
        yield
    except KeyboardInterrupt as error:
        if os.environ.get("RANK", "0") == "0":
            if not hasattr(error, "sage_hf_told"):
                typer.echo("Interrupted.", err=True)
            if text := about_going_on(_LINE.get() or []):
                typer.echo(text, err=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


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


def _listen() -> Any:
    """Takes Ctrl-C over where Python has it; returns what had it, None where it stays as it is."""
    if threading.current_thread() is not threading.main_thread():
        return None
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored in the background of a script, or a host's own
        return None
    first = 0.0
    is_launched = "RANK" in os.environ

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if first:
            if not is_launched or now - first > _LAUNCHER:
                os._exit(INTERRUPTED)
            return
        first = now
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    return before
