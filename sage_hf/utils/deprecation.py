"""Names that changed, and still work for one version."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from ..errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")
Change = str | tuple[str, Callable[[Any], Any]]


def renamed_arguments(**changes: Change) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator of a function some of whose keyword arguments had other names.

    Args:
        changes: {old name: new name}, or {old name: (new name, old value -> new value)}.

    Raises:
        ConfigError: A call gives both names.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> R:
            for old in [name for name in kwargs if name in changes]:
                change = changes[old]
                new, convert = (change, lambda value: value) if isinstance(change, str) else change
                if new in kwargs:
                    raise ConfigError(
                        f"Both {new} and {old} were given", where=new, fix=f"Leave out {old}, its old name."
                    )
                warnings.warn(f"{function.__qualname__}({old}=) is now {new}=", DeprecationWarning, stacklevel=2)
                kwargs[new] = convert(kwargs.pop(old))
            return function(*args, **kwargs)

        return call

    return decorate
