"""Shows the default of a setting, which the source keeps in one call with its help text, as a plain default."""

from __future__ import annotations

from typing import Any

from griffe import Attribute, ExprCall, Extension

from sage_hf.config import SageConfig

_FIELDS = SageConfig.__dataclass_fields__


class PlainDefaults(Extension):
    """Writes the default of a field of `SageConfig`, or of `SageArguments`, in the place of `_knob(...)`."""

    def on_attribute_instance(self, *, attr: Attribute, **_: Any) -> None:
        """Runs on every attribute that is read."""
        if isinstance(attr.value, ExprCall) and str(attr.value.function) == "_knob":
            attr.value = repr(_FIELDS[attr.name.removeprefix("sage_")].default)
