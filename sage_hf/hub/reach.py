"""Why something of the Hub could not be had: offline on purpose, no network, nobody logged in, not there, not now."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import constants, get_token, try_to_load_from_cache
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
from huggingface_hub.utils import get_session

LOGIN = "Log in with `hf auth login`, set HF_TOKEN, or pass a token."
# What libraries raise that wrap the Hub's errors without naming them as their cause.
_UNREACHED = ("Couldn't reach", "couldn't connect to", "Max retries exceeded")
_REFUSED = (
    "doesn't exist on the Hub or cannot be accessed",
    "is not a valid model identifier",
    "not found on the Hub",
)
_GATED = ("gated repo", "is a gated dataset")
_UNAUTHORIZED, _FORBIDDEN, _TOO_MANY = 401, 403, 429
# Answers that are others a moment later, and those after somebody else's commit.
_MOMENTARY, _CONFLICTS = (408, _TOO_MANY, 500, 502, 503, 504), (409, 412)
# What the Hub's library asks again for by itself.
_ASKED_AGAIN = ("/preupload/", "/info/lfs/", "/tree/", "/paths-info/", "/blob/")
# Seconds that the Hub has for a first answer, and before it is asked for one again.
_PATIENCE, _PAUSE = 10.0, 1.0


class Obstacle(NamedTuple):
    """What is in the way.

    Attributes:
        what: One sentence without the final full stop.
        fix: What to do about it.
        is_no_answer: Whether the Hub was not asked, or did not answer: then nothing follows for what was to be done.
    """

    what: str
    fix: str
    is_no_answer: bool = False


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
        return Obstacle(f"HF_HUB_OFFLINE is set{held}", f"Unset HF_HUB_OFFLINE to ask the Hub{local}.", True)
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
            f"The Hub cannot be reached at {constants.ENDPOINT}{'' if is_push else _not_here(name)}",
            f"Check the network (a proxy, a firewall, HF_ENDPOINT) and try again{local}.",
            True,
        )
    status = _status(chain)
    if status == _TOO_MANY:
        wait = seconds_to_wait(error)
        return Obstacle(
            "The Hub takes no more requests for now (429)",
            f"Wait {f'{wait:.0f} seconds' if wait else 'some minutes'}, and run the same again.",
        )
    if status in _MOMENTARY:
        return Obstacle(f"The Hub has an error of its own ({status})", "Run the same again a little later.")
    if is_push:
        if status == _UNAUTHORIZED:
            return Obstacle("The Hub does not accept the token, or not any more (401)", LOGIN)
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


def check_reachable(name: str, revision: str | None = None) -> None:
    """Asks whether the Hub answers, for what is not on this machine: its library would ask for a minute.

    Args:
        name: A folder, or the id of a repository.
        revision: Branch, tag or commit.

    Raises:
        ConnectionError: The Hub cannot be reached.
    """
    if constants.HF_HUB_OFFLINE or Path(name).exists():
        return
    if any(
        isinstance(try_to_load_from_cache(name, file, revision=revision), str)
        for file in (constants.CONFIG_NAME, "adapter_config.json")
    ):
        return
    for pause in (_PAUSE, None):
        try:
            get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
            return
        except HTTPError as error:
            if pause is None:
                raise ConnectionError(str(error)) from error
            time.sleep(pause)


def _not_here(name: str) -> str:
    return "" if Path(name).exists() else f", and there is no {name!r} here"


def is_momentary(error: BaseException, conflicts: bool = False) -> bool:
    """Whether the Hub may answer otherwise when it is asked again: an error of its own, or no answer at all.

    Args:
        error: What its library raised.
        conflicts: Whether somebody else's commit, which came first, counts.
    """
    chain = list(_causes(error))
    status = _status(chain)
    if status is not None:
        return status in _MOMENTARY or (conflicts and status in _CONFLICTS)
    if any(isinstance(each, OfflineModeIsEnabled) for each in chain):
        return False
    return any(isinstance(each, HTTPError | ConnectionError | TimeoutError) for each in chain)


def is_asked_again(error: BaseException) -> bool:
    """Whether the Hub's library has asked again already, for as long as it does."""
    for each in _causes(error):
        answer = getattr(each, "response", None)
        request = getattr(answer, "request", None) or getattr(each, "_request", None)
        if request is not None:
            return request.method == "PUT" or any(part in str(request.url) for part in _ASKED_AGAIN)
    return False


def seconds_to_wait(error: BaseException) -> float:
    """For how long the Hub asks to be left alone; 0 where it does not say."""
    for each in _causes(error):
        headers = getattr(getattr(each, "response", None), "headers", None) or {}
        try:
            return max(0.0, float(headers.get("Retry-After", "")))
        except ValueError:
            continue
    return 0.0


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(chain: list[BaseException]) -> int | None:
    """The HTTP status of the Hub's answer; None where it gave none."""
    answers = (getattr(each, "response", None) for each in chain if isinstance(each, HTTPError | HfHubHTTPError))
    return next((answer.status_code for answer in answers if answer is not None), None)
