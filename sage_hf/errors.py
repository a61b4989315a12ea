"""The errors of sage_hf: one family, each says what is wrong, where, and what to do."""

from __future__ import annotations

from typing import Any


class SageError(Exception):
    """Base of every error that sage_hf raises on purpose.

    Args:
        what: What is wrong, one sentence without the final full stop.
        where: The argument, column, row or module concerned.
        fix: What the user can do about it, one sentence.
    """

    def __init__(self, what: str, *, where: str, fix: str) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(f"{what} [{where}]. {fix}")

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
