"""Progress: one line that tells the stage, how far it is, how fast and how long yet; or nothing.

    [2 of 4] sketching gradients:  43 %|#####     | 4,300 of 10,000 rows, 120 rows/s, 0:47 left

On a terminal and in a notebook the line stands still and changes (tqdm); elsewhere it is written anew every half
minute. A run of a few seconds shows none. The main process alone speaks.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

logger = logging.getLogger(__name__)

# How progress is shown; "auto" is bars on a terminal and in a notebook, else lines.
Progress = Literal["auto", "bars", "lines", "nothing"]

# Seconds of a run before a bar appears, of a stage before it does, and from one line to the next.
BAR_DELAY, STAGE_DELAY, LINE_DELAY = 2.0, 0.5, 30.0
# Seconds between two looks at whether there is something to show, which a stage that counts nothing needs.
_TICK = 0.5
# What is done is timed over so many seconds, or marks where these are rarer, and not before so many seconds.
_WINDOW, _MARKS, _LEAST = 30.0, 8, 2.0
_SHOWN_AS: ContextVar[Progress] = ContextVar("progress", default="auto")
_BAR = "{desc}: {percentage:3.0f} %|{bar}| {n:,.0f} of {total:,.0f} {unit}{postfix}"


@dataclass
class Plan:
    """The stages of a long process in their order.

    Attributes:
        names: Names of the stages; one may come several times.
        shown: Whether they are shown.
        place: Place of the stage that was begun last, from 1.
        began: When the process began.
        said: When a line was written last.
    """

    names: list[str]
    shown: bool = True
    place: int = 0
    began: float = field(default_factory=lambda: time.monotonic())
    said: float = field(default_factory=lambda: time.monotonic())

    def begin(self, name: str) -> str:
        """What stands before a stage's name, "[2 of 4] ": nothing where the plan does not know it.

        A stage that is begun again, with no other since, has the number that it had.
        """
        following = [place for place, each in enumerate(self.names, 1) if each == name and place > self.place]
        is_again = self.place > 0 and self.names[self.place - 1] == name and self.place + 1 not in following
        if not is_again:
            if not following:
                return ""
            self.place = following[0]
        return f"[{self.place} of {len(self.names)}] "

    @property
    def where(self) -> str:
        """The stage that was begun last, as a sentence has it: "stage 2 of 4 (sketching gradients)"."""
        if not self.place:
            return "the beginning"
        return f"stage {self.place} of {len(self.names)} ({self.names[self.place - 1]})"


_PLAN: ContextVar[Plan | None] = ContextVar("plan", default=None)
_STAGE: ContextVar[Stage | None] = ContextVar("stage", default=None)


@contextmanager
def progress_as(kind: Progress) -> Iterator[None]:
    """How progress is shown inside."""
    token = _SHOWN_AS.set(kind)
    try:
        yield
    finally:
        _SHOWN_AS.reset(token)


@contextmanager
def planned(names: Sequence[str], *, shown: bool = True) -> Iterator[None]:
    """Numbers the stages that are begun inside; in a plan that is larger, its numbers stay.

    Args:
        names: All stages in their order.
        shown: Whether they are shown.
    """
    outer = _PLAN.get()
    token = _PLAN.set(Plan([*names], shown) if outer is None else outer)
    try:
        yield
    finally:
        _PLAN.reset(token)


def replan(names: Sequence[str], others: Sequence[str]) -> None:
    """Puts other stages in the place of some that follow each other in the plan."""
    plan, length = _PLAN.get(), len(names)
    if plan is None:
        return
    for start in range(len(plan.names) - length + 1):
        if plan.names[start : start + length] == [*names]:
            plan.names[start : start + length] = others
            return


def stage_of_plan() -> str:
    """Which stage of the plan was begun last, for people; empty without a plan."""
    plan = _PLAN.get()
    return plan.where if plan is not None and plan.names else ""


def is_wanted() -> bool:
    """Whether progress is shown of what has no switch of its own: as in a plan, else as bars of `datasets`."""
    plan, datasets = _PLAN.get(), sys.modules.get("datasets")
    return plan.shown if plan is not None else datasets is None or bool(datasets.is_progress_bar_enabled())


@contextmanager
def stage(name: str, total: float | None = None, unit: str = "rows", *, shown: bool = True) -> Iterator[Stage]:
    """Shows the progress of what is done inside, on the main process.

    Args:
        name: Name of the stage, as in the plan.
        total: How much there is to do; None where nobody knows.
        unit: What is counted, in the plural.
        shown: Whether to show it.
    """
    plan, outer = _PLAN.get(), _STAGE.get()
    plan = plan or Plan([], shown)
    kind = _SHOWN_AS.get() if shown and plan.shown and is_main() else "nothing"
    if outer is not None:
        outer.hide()
    made = Stage(plan.begin(name) + name, total, unit, kind=kind, plan=plan)
    token = _STAGE.set(made)
    try:
        yield made
    finally:
        _STAGE.reset(token)
        made.close()


def at(what: str, total: float | None = None, unit: str = "rows") -> None:
    """What the stage that is under way does now; counts begin anew. Nothing where there is no stage."""
    current = _STAGE.get()
    if current is not None:
        current.at(what, total, unit)


def advance(count: float = 1) -> None:
    """So much more of it is done."""
    current = _STAGE.get()
    if current is not None:
        current.update(count)


class Stage:
    """A stage that is under way.

    Args:
        name: Its name, with its number.
        total: How much there is to do.
        unit: What is counted.
        kind: How it is shown.
        plan: What it is a part of.
    """

    def __init__(self, name: str, total: float | None, unit: str, *, kind: Progress, plan: Plan) -> None:
        self.name, self.total, self.unit, self._plan = name, total, unit, plan
        self._what, self._speed = "", Speed()
        self._bar: Any = None
        self.done = 0.0
        self._began = self._looked = time.monotonic()
        self._kind = _resolved(kind)
        self._lock, self._closed = threading.Lock(), threading.Event()
        # A notebook's line is drawn by the thread that its cell runs in.
        if self._kind == "lines" or (self._kind == "bars" and not _in_notebook()):
            threading.Thread(target=self._tick, daemon=True, name="sage_hf progress").start()

    def at(self, what: str, total: float | None = None, unit: str = "rows") -> None:
        """See the function."""
        with self._lock:
            self._what, self.total, self.unit, self.done, self._speed = what, total, unit, 0.0, Speed()
            self._drop()

    def note(self, what: str) -> None:
        """What it does now; counts go on."""
        self._what = what

    def update(self, count: float = 1) -> None:
        """So much more is done."""
        self.done += count
        now = time.monotonic()
        self._speed.add(now, count)
        if now - self._looked >= _TICK:
            self._show(now)

    def skip(self, count: float) -> None:
        """So much was done before: it counts as done, but not for the speed."""
        self.done += count

    def hide(self) -> None:
        """Takes the line away, until there is news."""
        with self._lock:
            self._drop()

    def close(self) -> None:
        """Takes the line away."""
        self._closed.set()
        with self._lock:
            self._drop()

    def text(self, now: float) -> str:
        """The line."""
        count = "" if not self.done and self.total is None else f": {self.done:,.0f}"
        count += f" of {self.total:,.0f}" if self.total is not None and count else ""
        count += f" {self.unit}" if count else ""
        return ", ".join([self._head + count, *self._speed_and_left(now)])

    @property
    def _head(self) -> str:
        return f"{self.name} ({self._what})" if self._what else self.name

    def _speed_and_left(self, now: float) -> list[str]:
        rate = self._speed.rate()
        if rate is None:
            return [f"{_span(now - self._began)} so far"]
        told = [f"{_number(rate)} {self.unit}/s" if rate >= 0.5 else f"{_span(1 / rate)} each"]
        if self.total is not None:
            told.append(f"{_span(max(0.0, (self.total - self.done) / rate - (now - self._speed.last)))} left")
        return told

    def _tick(self) -> None:
        while not self._closed.wait(_TICK):
            self._show(time.monotonic())

    def _show(self, now: float) -> None:
        # Whoever comes while the line is drawn goes on: it is drawn again soon.
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._looked = now
            if self._closed.is_set():
                return
            if self._kind == "lines" and now - self._plan.said >= LINE_DELAY:
                self._plan.said = now
                _say(self.text(now))
            elif self._kind == "bars" and now - self._plan.began >= BAR_DELAY and now - self._began >= STAGE_DELAY:
                self._draw(now)
        finally:
            self._lock.release()

    def _draw(self, now: float) -> None:
        from accelerate.utils import tqdm  # here, because the shell imports this file before anything slow

        told = ", ".join(self._speed_and_left(now))
        if self._bar is None:
            shape = "{desc}" if self.total is None else _BAR
            settings = {"total": self.total, "unit": self.unit, "bar_format": shape, "dynamic_ncols": True}
            # With a delay, tqdm does not draw the line before it is told what stands there.
            self._bar = tqdm(main_process_only=False, initial=self.done, leave=False, delay=1e-9, **settings)
        self._bar.n = self.done
        self._bar.set_description_str(self.text(now) if self.total is None else self._head, refresh=False)
        self._bar.set_postfix_str("" if self.total is None else told, refresh=False)
        self._bar.refresh()

    def _drop(self) -> None:
        if self._bar is not None:
            self._bar.last_print_t = time.time()  # else tqdm leaves what was drawn soon after the start
            self._bar.close()
            self._bar = None


class Speed:
    """How much is done a second, by the last half minute; the first step, which sets things up, does not count.

    Attributes:
        last: When something was done last.
    """

    def __init__(self) -> None:
        self.last = 0.0
        self._done = 0.0
        self._marks: deque[tuple[float, float]] = deque()

    def add(self, now: float, count: float) -> None:
        """So much was done by now."""
        self.last, self._done = now, self._done + count
        if not self._marks or now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, self._done))
        while len(self._marks) > _MARKS and now - self._marks[0][0] > _WINDOW:
            self._marks.popleft()

    def rate(self) -> float | None:
        """How much a second; None while too little is known."""
        if not self._marks:
            return None
        start, before = self._marks[0]
        if self.last - start < _LEAST or self._done <= before:
            return None
        return (self._done - before) / (self.last - start)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _span(seconds: float) -> str:
    """Hours, minutes and seconds: "0:47", "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _say(text: str) -> None:
    """A line: logged where somebody listens to such lines, else written to standard error as tqdm's would be."""
    text = text[0].upper() + text[1:] + "."
    if logger.isEnabledFor(logging.INFO) and logger.hasHandlers():
        logger.info("%s", text)
    else:
        print(text, file=sys.stderr, flush=True)


def is_main() -> bool:
    """Whether this is the main process of a launch; libraries that know are not imported for it."""
    if "accelerate.state" in sys.modules:
        from accelerate.state import PartialState

        if PartialState._shared_state:
            return bool(PartialState().process_index == 0)
    return os.environ.get("RANK", "0") == "0"


def _resolved(kind: Progress) -> Progress:
    if kind != "auto":
        return kind
    return "bars" if _in_notebook() or (sys.stderr is not None and sys.stderr.isatty()) else "lines"


def _in_notebook() -> bool:
    """Whether tqdm would draw in a notebook."""
    library = sys.modules.get("IPython")
    running = library.get_ipython() if library is not None else None
    return running is not None and "IPKernelApp" in running.config
