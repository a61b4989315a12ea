"""Asking the Hub again where it fails for a moment, and where its own library does not do so by itself.

`huggingface_hub` asks again for what it lists and uploads, and goes on with a download. It does not for who is asking,
what a repository is, a new repository or branch, the check of a card, the beginning of a download and the commit
itself; and it waits for an answer for ever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import get_session

from .reach import is_asked_again, is_momentary, seconds_to_wait

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Seconds before the Hub is asked again; and the longest that it may ask for.
_WAITS, _LONGEST_WAIT = (1.0, 4.0, 16.0), 60.0
# Seconds in which the Hub is to say something, where its library sets no limit.
_SILENCE = 300.0


def persistently(ask: Callable[[], T], *, conflicts: bool = False) -> T:
    """What the Hub answers; asked again, a few times, while it fails for a moment.

    Args:
        ask: Asks; it must not matter whether it asks twice.
        conflicts: Whether `ask` begins with what is there now, so that it may be asked again, too, after somebody
            else's commit came first.
    """
    for wait in (*_WAITS, None):
        try:
            with _in_time():
                return ask()
        except (HTTPError, HfHubHTTPError, OSError) as error:
            if wait is None or not is_momentary(error, conflicts) or is_asked_again(error):
                raise
            wait = max(wait, seconds_to_wait(error))
            if wait > _LONGEST_WAIT:
                raise
            logger.warning("The Hub failed; it is asked again in %.0f seconds.", wait)
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


@contextmanager
def _in_time() -> Iterator[None]:
    """A limit for a Hub that says nothing, which would be waited for for ever."""
    session = get_session()
    before = session.timeout
    session.timeout = _SILENCE
    try:
        yield
    finally:
        session.timeout = before
