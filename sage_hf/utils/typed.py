"""Values that were read from JSON, held against the types that a dataclass declares."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

T = TypeVar("T")


def as_declared(made: T) -> T:
    """A dataclass whose fields hold what their types say.

    Raises:
        TypeError: Names the first field that does not.
    """
    for name, hint in get_type_hints(type(made)).items():
        if name in {each.name for each in dataclasses.fields(made)} and not fits(getattr(made, name), hint):  # type: ignore[arg-type]
            raise TypeError(f"{name} is a {type(getattr(made, name)).__name__}, or holds one")
    return made


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, and all that it holds; whole numbers are numbers, truths are not."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return value in inner
    if is_typeddict(hint):
        hints = get_type_hints(hint)
        return (
            isinstance(value, dict) and value.keys() == hints.keys() and all(fits(value[k], hints[k]) for k in hints)
        )
    if origin in (list, Sequence):
        return isinstance(value, list) and all(fits(each, inner[0]) for each in value)
    if origin is tuple:
        return isinstance(value, tuple | list)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, type(None) if hint is None else hint)
