"""Progress: a bar on a terminal or in a notebook, a plain line now and then where there is none, or nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

logger = logging.getLogger(__name__)

Progress = Literal["bars", "lines", "nothing"]

# A bar appears, and a line is said, after so many seconds.
BAR_DELAY, LINE_DELAY = 2.0, 30.0
_SHOWN_AS: ContextVar[Progress] = ContextVar("progress", default="bars")


@contextmanager
def progress_as(kind: Progress) -> Iterator[None]:
    """How progress is shown inside: lines are logged with the level INFO."""
    token = _SHOWN_AS.set(kind)
    try:
        yield
    finally:
        _SHOWN_AS.reset(token)


def progress_bar(of: Iterable[Any] | None = None, *, disable: bool = False, **settings: Any) -> Any:
    """What shows progress, of the main process alone.

    Args:
        of: What to go through; None where `update` tells.
        disable: Whether nothing is shown.
        settings: As of `tqdm`.
    """
    from accelerate.state import PartialState  # here, because the shell imports this file before anything slow
    from accelerate.utils import tqdm

    kind = _SHOWN_AS.get()
    if kind == "lines" and not disable:
        disable = PartialState().local_process_index != 0
        return ProgressLines(of, disable=disable, **settings)
    return tqdm(of, disable=disable or kind == "nothing", **{"delay": BAR_DELAY, **settings})


class ProgressLines:
    """What of `tqdm` is used here, as lines of a log."""

    def __init__(
        self,
        of: Iterable[Any] | None = None,
        *,
        desc: str = "",
        unit: str = "step",
        total: float | None = None,
        initial: float = 0,
        disable: bool = False,
        **_: Any,
    ) -> None:
        self.of, self.desc, self.unit, self.total, self.done = of, desc, unit, total, initial
        self._said = None if disable else time.monotonic()

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        """Through what it was given."""
        for each in self.of or ():
            yield each
            self.update()

    def set_postfix_str(self, *_: Any) -> None:
        """Nothing: a line tells how far it is."""

    def update(self, count: float = 1) -> None:
        """So much more is done."""
        self.done += count
        now = time.monotonic()
        if self._said is not None and now - self._said >= LINE_DELAY:
            self._said = now
            total = "" if self.total is None else f" of {self.total:,}"
            logger.info("%s: %s%s %ss.", self.desc.capitalize(), f"{self.done:,}", total, self.unit)
