"""How much the shell says: its own lines, warnings among them; of other libraries' bars and reports what fits.

In a file or a pipe there are no bars. Standard output holds the result, standard error all else.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from typing import Any

from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from rich.text import Text

from ..errors import ConfigError, printable, without_secrets
from ..utils.bars import Progress, progress_as
from ..utils.console import PlainConsole
from .wording import options_for

# What `datasets` reads when it is imported.
_BARS_OF_DATASETS = "HF_DATASETS_DISABLE_PROGRESS_BARS"
# The logger of the two lines before a pass, which are said without --verbose, too.
_BRIEF = "sage_hf.selector.brief"
_PROGRESS = "sage_hf.utils.bars"
# transformers' table of weights that a checkpoint lacks: the shell says so itself.
_REPORTS = ("transformers.modeling_utils", "transformers.utils.loading_report")
# The Hub's library of every try that failed: what came of them is an error or nothing.
_TRIES = "huggingface_hub.utils._http"
_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)
# What was printed so far.
_SAID: ContextVar[set[str] | None] = ContextVar("said", default=None)


@contextmanager
def speaking(quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """Inside, a command says as much as it was asked to.

    Args:
        quiet: Only warnings, errors and the result.
        verbose: What is logged with the level INFO as well.

    Raises:
        ConfigError: Both.
    """
    if quiet and verbose:
        raise ConfigError("Both --quiet and --verbose were given", where="--quiet, --verbose", fix="Give one of them.")
    ours, brief, progress, tries = (logging.getLogger(name) for name in ("sage_hf", _BRIEF, _PROGRESS, _TRIES))
    levels = {each: each.level for each in (ours, brief, progress, tries)}
    handler, filters = Lines(), [logging.getLogger(name) for name in _REPORTS]
    token, said = _QUIET.set(quiet), _SAID.set(set())
    ours.addHandler(handler)
    ours.setLevel(logging.INFO if verbose else logging.WARNING)
    for logger in (brief, progress):
        logger.setLevel(logging.ERROR if quiet else logging.INFO)
    if not verbose:
        tries.setLevel(logging.ERROR)
        for logger in filters:
            logger.addFilter(_is_no_report)
    try:
        has_bars = _has_bars()
        shown: Progress = "bars" if has_bars else "nothing" if quiet else "lines"
        with progress_as(shown), _plain_lines(), nullcontext() if has_bars else _without_bars():
            yield
    finally:
        for logger in filters:
            logger.removeFilter(_is_no_report)
        for logger, level in levels.items():
            logger.setLevel(level)
        ours.removeHandler(handler)
        _QUIET.reset(token)
        _SAID.reset(said)


@contextmanager
def _plain_lines() -> Iterator[None]:
    """Inside, what any library logs moves no cursor and holds no secret: file names and rows come from data."""
    make = logging.getLogRecordFactory()

    def made(*args: Any, **options: Any) -> logging.LogRecord:
        record = make(*args, **options)
        with suppress(Exception):  # a line that cannot be formatted is its logger's fault, and told by logging
            record.msg, record.args = without_secrets(printable(record.getMessage())), ()
        return record

    logging.setLogRecordFactory(made)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)


def was_said(text: str) -> bool:
    """Whether this command has printed a text as a warning."""
    return text in (_SAID.get() or ())


@contextmanager
def _above_bars() -> Iterator[None]:
    """Inside, bars of tqdm are off the screen."""
    library = sys.modules.get("tqdm")
    with library.tqdm.external_write_mode(sys.stderr) if library is not None else nullcontext():
        yield


def is_quiet() -> bool:
    """Whether --quiet was given."""
    return _QUIET.get()


def _has_bars() -> bool:
    """Whether progress is shown by bars: on a terminal, without --quiet."""
    return sys.stderr.isatty() and not is_quiet()


class Lines(logging.Handler):
    """Prints what is logged as lines of the shell, on standard error; in a launch mostly of the main process."""

    def filter(self, record: logging.LogRecord) -> bool:
        """What the main process says, and what another has to say of itself: the rest each of them would say."""
        is_own = record.levelno >= logging.ERROR or hasattr(record, "of_this_process")
        return super().filter(record) and (is_own or os.environ.get("RANK", "0") == "0")

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record; a warning after the word."""
        try:
            said = _SAID.get()
            if said is not None:
                said.add(record.getMessage())
            head = {logging.WARNING: ("Warning: ", "bold yellow"), logging.ERROR: ("Error: ", "bold red")}
            text = options_for(without_secrets(self.format(record)))
            with _above_bars():
                PlainConsole(stderr=True).print(Text.assemble(head.get(record.levelno, ""), text))
        except Exception:
            self.handleError(record)


def _is_no_report(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return not ("LOAD REPORT" in text or "newly initialized" in text)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Bars of the Hub, of transformers and of datasets are off inside, whether these are imported by now or later."""
    was_off, before = are_progress_bars_disabled(), os.environ.get(_BARS_OF_DATASETS)
    disable_progress_bars()  # transformers asks for this when it is imported
    os.environ[_BARS_OF_DATASETS] = "1"
    imported = [sys.modules[name] for name in ("datasets", "transformers.utils.logging") if name in sys.modules]
    switched = [each for each in imported if each.is_progress_bar_enabled()]
    for each in switched:
        each.disable_progress_bar()
    try:
        yield
    finally:
        for each in switched:
            each.enable_progress_bar()
        if not was_off:
            enable_progress_bars()
        os.environ.pop(_BARS_OF_DATASETS)
        if before is not None:
            os.environ[_BARS_OF_DATASETS] = before
