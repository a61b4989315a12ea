"""How objects that hold columns show themselves: by the shape of an array, never by its numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

# Items of a list or a dict that are shown as they are, and characters of anything else.
_FEW, _LONGEST = 6, 80


class ShortRepr:
    """A dataclass whose repr fits a few lines; for `@dataclass(repr=False)`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __repr__(self) -> str:
        """Every field that is not None and that is not left out of the repr, short."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.repr}
        told = (f"{name}={short(value)}" for name, value in values.items() if value is not None)
        return f"{type(self).__name__}({', '.join(told)})"


def short(value: Any) -> str:
    """A value in a few words: arrays by shape and type, long lists and tables by what they hold."""
    kind = type(value).__name__
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        shape = ", ".join(map(str, value.shape))
        return f"<[{shape}] {str(value.dtype).removeprefix('torch.')}>" if value.shape else repr(value.item())
    if isinstance(value, list | tuple | set | frozenset | Mapping) and len(value) > _FEW:
        return f"<{kind} of {len(value):,}>"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{each!r}: {short(held)}" for each, held in value.items()) + "}"
    if isinstance(value, list | tuple):
        inside = ", ".join(map(short, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    if hasattr(value, "num_rows"):
        return f"<{kind} of {value.num_rows:,} rows>"
    text = repr(value)
    return text if len(text) <= _LONGEST or isinstance(value, ShortRepr) else f"<{kind}>"
