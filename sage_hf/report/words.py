"""Numbers and text as a report writes them."""

from __future__ import annotations

import re
import unicodedata

# A no-break space, so that a number and its sign stay on one line.
_SPACE = "\u00a0"
# Controls but tab and line feed, what turns the direction of all text behind it, and halves of surrogate pairs, which
# no file can hold.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e\ud800-\udfff\ufffe\uffff]")


def count(number: float) -> str:
    """A whole number with commas."""
    return f"{int(number):,}"


def share_of(part: float, whole: float) -> float:
    """A share in [0, 1]; 0 of nothing."""
    return part / whole if whole else 0.0


def percent(share: float, least_digits: bool = False) -> str:
    """A share as per cent: with one digit, or with as few as it needs; of small shares with two that count."""
    value = 100.0 * share
    if least_digits:
        return f"{value:.10f}".rstrip("0").rstrip(".") + f"{_SPACE}%"
    if 0 < value < 0.001:
        return f"<{_SPACE}0.001{_SPACE}%"
    return f"{value:.1f}{_SPACE}%" if value >= 1 or value == 0 else f"{value:.2g}{_SPACE}%"


def signed(value: float | None) -> str:
    """A score with its sign and three digits; a dash where there is none."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "\u2212")  # noqa: RUF001  # a dash, not a minus


def seconds(value: float) -> str:
    """A time as people say it."""
    if value < 60:
        return f"{value:.1f}{_SPACE}s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{_SPACE}h {minutes}{_SPACE}min" if hours else f"{minutes}{_SPACE}min {rest}{_SPACE}s"


def printable(text: str) -> str:
    """Text with a mark in the place of what cannot be shown."""
    return _UNPRINTABLE.sub("\ufffd", text)


def shortened(text: str, limit: int) -> str:
    """Text of at most `limit` characters; no letter loses its accents, and an ellipsis tells what is cut."""
    if len(text) <= limit:
        return text
    end = limit - 1
    while end > 1 and unicodedata.combining(text[end]):
        end -= 1
    return text[:end].rstrip() + "…"
