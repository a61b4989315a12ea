"""Why something of the Hub could not be had: offline on purpose, no network, nobody logged in, or not there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

LOGIN = "Log in with `hf auth login`, set HF_TOKEN, or pass a token."
# What libraries raise that wrap the Hub's errors without naming them as their cause.
_UNREACHED = ("Couldn't reach", "couldn't connect to", "Max retries exceeded")
_REFUSED = (
    "doesn't exist on the Hub or cannot be accessed",
    "is not a valid model identifier",
    "not found on the Hub",
)
_GATED = ("gated repo", "is a gated dataset")
_UNAUTHORIZED, _FORBIDDEN = 401, 403


class Obstacle(NamedTuple):
    """What is in the way.

    Attributes:
        what: One sentence without the final full stop.
        fix: What to do about it.
    """

    what: str
    fix: str


def obstacle(error: BaseException, name: str, *, is_push: bool = False) -> Obstacle | None:
    """What is in the way of the Hub; None where an error is of something else.

    Args:
        error: What was raised, by the Hub's library or one that calls it.
        name: What was asked for.
        is_push: Whether something was to be sent, for which what is on this machine is no way out.
    """
    chain = list(_causes(error))
    texts = " ".join(str(each) for each in chain)
    is_lost = any(isinstance(each, ConnectionError | TimeoutError | LocalEntryNotFoundError) for each in chain)
    # The HTTP library's own errors are of a connection, where the Hub has not answered.
    is_lost |= any(isinstance(each, HTTPError) and not isinstance(each, HfHubHTTPError) for each in chain)
    is_lost |= any(words in texts for words in _UNREACHED)
    is_lost &= _status(chain) is None  # an answer is no lost network
    has_no_token = any(isinstance(each, LocalTokenNotFoundError) for each in chain)
    is_offline = any(isinstance(each, OfflineModeIsEnabled) for each in chain) or "OfflineModeIsEnabled" in texts
    if is_offline or (constants.HF_HUB_OFFLINE and (is_lost or has_no_token)):
        held = "" if is_push else f", and {name!r} is not on this machine"
        local = "" if is_push else ", or name a file or folder"
        return Obstacle(f"HF_HUB_OFFLINE is set{held}", f"Unset HF_HUB_OFFLINE to ask the Hub{local}.")
    is_gated = any(isinstance(each, GatedRepoError) for each in chain) or any(words in texts for words in _GATED)
    if is_gated and not is_push:
        return Obstacle(
            f"{name!r} may be read only by those who have agreed to its terms",
            f"Agree on its page at {constants.ENDPOINT}, then log in with `hf auth login` or set HF_TOKEN.",
        )
    if has_no_token or (is_push and _status(chain) == _UNAUTHORIZED and get_token() is None):
        return Obstacle("Nobody is logged in to the Hub", LOGIN)
    if is_lost:
        local = "" if is_push else ", or name a file or folder"
        return Obstacle(
            f"The Hub cannot be reached at {constants.ENDPOINT}",
            f"Check the network (a proxy, a firewall, HF_ENDPOINT) and try again{local}.",
        )
    if is_push:
        return None
    if any(isinstance(each, RevisionNotFoundError) for each in chain):
        return Obstacle(f"{name!r} has no such revision on the Hub", "Name a branch, tag or commit that it has.")
    is_missing = any(isinstance(each, RepositoryNotFoundError) for each in chain)
    if is_missing or _status(chain) in (_UNAUTHORIZED, _FORBIDDEN) or any(words in texts for words in _REFUSED):
        if get_token() is None:
            return Obstacle(
                f"There is no such file or folder, and nothing public on the Hub is called {name!r}",
                "Check the name; for what is private, log in with `hf auth login` or set HF_TOKEN.",
            )
        return Obstacle(
            f"There is no such file or folder, and nothing on the Hub that you may read is called {name!r}",
            "Check the name, and that your token may read it.",
        )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(chain: list[BaseException]) -> int | None:
    """The HTTP status of the Hub's answer; None where it gave none."""
    answers = (each.response for each in chain if isinstance(each, HfHubHTTPError) and each.response is not None)
    return next((answer.status_code for answer in answers), None)
