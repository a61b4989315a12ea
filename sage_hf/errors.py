"""The errors of sage_hf: one family, each says what is wrong, where, and what to do.

Whatever they say may come from data, and goes to terminals, logs and bug reports: it moves no cursor and holds no
secret.
"""

from __future__ import annotations

import os
import re
from typing import Any

# Controls but tab and line feed, what turns the direction of text, and halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
# Tokens of the Hub, names and passwords in addresses, and what is called a secret in an address or an option.
_SECRETS = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|(?<=://)[^\s/@]+(?=@)"
    r"|(?i:(?<![a-z_])(?:(?:hub|access|auth|api)_?)?(?:token|password|secret|api_?key|signature)=)['\"]?[^\s&'\",;)\]}]+"
)
# Variables of the environment that hold one.
_KEYS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "ARGILLA_API_KEY", "AWS_SECRET_ACCESS_KEY")
_LEAST_KEY = 6
_HIDDEN = "***"


def printable(text: str) -> str:
    """Text that a terminal shows as it stands: with a mark in the place of controls and turns of direction."""
    return _UNPRINTABLE.sub("\ufffd", text)


def without_secrets(text: str) -> str:
    """Text with stars in the place of tokens and passwords, as far as their form or the environment tells them."""
    for key in _KEYS:
        value = os.environ.get(key, "")
        if len(value) >= _LEAST_KEY:
            text = text.replace(value, _HIDDEN)
    return _SECRETS.sub(lambda found: found[0][: found[0].find("=") + 1] + _HIDDEN, text)


class SageError(Exception):
    """Base of every error that sage_hf raises on purpose.

    Args:
        what: What is wrong, one sentence without the final full stop.
        where: The argument, column, row or module concerned.
        fix: What the user can do about it, one sentence.
    """

    def __init__(self, what: str, *, where: str, fix: str) -> None:
        self.what, self.where, self.fix = (without_secrets(printable(part)) for part in (what, where, fix))
        super().__init__(f"{self.what} [{self.where}]. {self.fix}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Travels between processes as it is, which an exception with named arguments would not."""
        return _again, (type(self), self.what, self.where, self.fix)


def _again(kind: type[SageError], what: str, where: str, fix: str) -> SageError:
    return kind(what, where=where, fix=fix)


class ConfigError(SageError, ValueError):
    """A setting has a value that cannot work, or two settings contradict each other."""


class DatasetError(SageError, ValueError):
    """The dataset is empty, lacks a column, or cannot be turned into batches."""


class BudgetError(SageError, ValueError):
    """The number of rows asked for is impossible."""


class GroupError(SageError, ValueError):
    """The column to group by is missing, holds nulls, or is no scalar."""


class TargetError(SageError, ValueError):
    """`target_modules` matches nothing that per-example gradients can be taken of."""


class LabelError(SageError, ValueError):
    """The batch or the dataset has no labels, so no loss and no gradient exist."""


class BatchAxisError(SageError, ValueError):
    """The batch has no axis that separates the examples (packing, padding-free collation)."""


class GradientError(SageError, RuntimeError):
    """Per-example gradients could not be taken, or failed the check against one row at a time."""


class SketchError(SageError, RuntimeError):
    """The sketch was read before it saw a row, or was given rows or a state that do not fit."""


class HubError(SageError, OSError):
    """The Hub does not answer, does not know who is asking, or refuses what is asked."""


class OutputError(SageError, OSError):
    """A folder cannot be written to or read from as a selection."""
