"""Arguments of the front doors, looked at before anything is done with them."""

from __future__ import annotations

import math
import operator
import os
from numbers import Real
from pathlib import Path
from typing import Any

from ..config import SageConfig
from ..errors import ConfigError
from .files import check_name


def given_config(config: Any) -> SageConfig:
    """The settings that were given, or the defaults where none were.

    Raises:
        ConfigError: They are no `SageConfig`.
    """
    if config is None:
        return SageConfig()
    if isinstance(config, SageConfig):
        return config
    is_dict = isinstance(config, dict)
    raise ConfigError(
        f"config is a {type(config).__name__}, and a SageConfig is needed",
        where="config",
        fix="Pass SageConfig(**config) or SageConfig.from_dict(config)." if is_dict else "Pass SageConfig(...).",
    )


def check_callable(function: Any, name: str) -> None:
    """Refuses what is given for a function and cannot be called; None is none.

    Raises:
        ConfigError: It is such.
    """
    if function is not None and not callable(function):
        raise ConfigError(f"{name} is a {type(function).__name__}", where=name, fix="Give a function, or None.")


def whole_number(value: Any, name: str, least: int = 1) -> int:
    """A whole number of Python's or NumPy's as Python's.

    Raises:
        ConfigError: It is none, or a smaller one.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ConfigError(f"{name} is {value!r}", where=name, fix=f"Give a whole number of at least {least}.")
    return number


def real_number(value: Any, name: str, fix: str) -> float:
    """A finite number from 0 on as Python's.

    Raises:
        ConfigError: It is none; says what to give by `fix`.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    try:
        number = float(value) if is_number else math.nan
    except OverflowError:
        number = math.inf
    if not 0.0 <= number < math.inf:
        raise ConfigError(f"{name} is {value!r}", where=name, fix=fix)
    return number


def given_folder(path: str | os.PathLike[str] | None, name: str) -> Path | None:
    """A folder for what a run keeps, as an argument of this name gave it.

    Raises:
        ConfigError: It is no path.
        OutputError: It is one that no file system takes.
    """
    if path is None:
        return None
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"{name} is a {type(path).__name__}", where=name, fix="Give a folder, or None.")
    check_name(Path(path), name)
    return Path(path)
