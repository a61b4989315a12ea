"""What is told when a user interrupts a long process (Ctrl-C): one line of what is kept; the interrupt passes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .bars import is_main, stage_of_plan

logger = logging.getLogger(__name__)


@contextmanager
def told_if_interrupted(tell: Callable[[], str]) -> Iterator[None]:
    """Logs a warning if the block is interrupted; the innermost block that tells anything speaks for all around it.

    Args:
        tell: What is kept and how to go on, whole sentences; empty where an outer block knows better.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        text = "" if hasattr(error, "sage_hf_told") else tell()
        if text:
            error.sage_hf_told = True  # type: ignore[attr-defined]
            if is_main():
                where = stage_of_plan()
                logger.warning("Interrupted%s: %s", f" in {where}" if where else "", text)
        raise
