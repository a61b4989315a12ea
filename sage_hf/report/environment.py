"""Templates of HTML that escape every value, and show no control characters."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from .words import count, percent, printable, seconds, share_of, shortened, signed

# Letters of a name that are shown at most.
_LONGEST_NAME = 80


@cache
def environment(package: str) -> Environment:
    """The templates of a package, in its folder `templates`."""

    def template(name: str) -> str:
        return (files(package) / "templates" / name).read_text(encoding="utf-8")

    made = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(template),
        finalize=_clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"count": count, "percent": percent, "signed": signed, "seconds": seconds, "name": _name}
    made.globals["share_of"] = share_of
    return made


def _clean(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _name(text: Any) -> str:
    """A name on one line, cut where it is long."""
    return shortened(" ".join(str(text).split()), _LONGEST_NAME) or "(empty)"
