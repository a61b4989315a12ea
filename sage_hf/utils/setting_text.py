"""Settings as text: what a shell or a YAML file gives for a field of `SageConfig`, and the other way round."""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Any

from ..config import AUTO, TARGET_KEYWORDS
from ..errors import ConfigError

# Settings that name modules or columns.
_NAMES = ("target_modules", "group_by", "text_columns")
# Settings that "none" turns off.
_NONE = ("projection", "group_by", "cache_gradients", "gate", "spectrum_power", "max_row_norm")
# Digits of the largest whole number that a setting can be.
_MOST_DIGITS = 19


def from_text(name: str, value: Any) -> Any:
    """The value of a field of `SageConfig`, given as text by a shell or a YAML file, or as it is.

    Names that the plain text cannot tell, such as one with a comma, are given as JSON: `["a,b"]`.

    Raises:
        ConfigError: The text says nothing that the field can be.
    """
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, str):
        return value
    if name in _NAMES and value[:1] in ("[", '"') and (names := _from_json(value)) is not None:
        return names
    if value == "none" and name in _NONE:
        return None
    if name in AUTO and value != "auto":
        if not value.isdecimal() or len(value) > _MOST_DIGITS:
            fix = "Use auto, none, or a whole number." if name == "projection" else "Use auto or a whole number."
            raise ConfigError(f"{name} is {value!r}", where=name, fix=fix)
        return int(value)
    if name == "target_modules":
        # Names have letters, digits, dots and underscores; anything else makes it a regular expression.
        return value if value in TARGET_KEYWORDS or re.search(r"[^\w.,-]", value) else value.split(",")
    if name in ("gate", "spectrum_power", "max_row_norm") and value != "auto":
        try:
            return float(value)
        except ValueError:
            raise ConfigError(f"{name} is {value!r}", where=name, fix="Give a number, or none.") from None
    if name == "text_columns":
        return value.split(",") if value else None
    return value


def to_text(name: str, value: Any) -> str:
    """What a shell is given for a field of `SageConfig`: `from_text` makes the same value of it."""
    if name == "text_columns" and value is None:
        return ""
    plain = "none" if value is None else ",".join(value) if isinstance(value, list) else str(value)
    return json.dumps(value) if name in _NAMES and from_text(name, plain) != value else plain


def _from_json(text: str) -> str | list[str] | None:
    """A name or a list of names; None where the text is no such JSON."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    is_list = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return value if is_list or isinstance(value, str) else None
