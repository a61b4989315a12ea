"""Markdown in which data stays text: no link, picture, heading, cell or comment, and no HTML, comes of a value."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from ..errors import printable

# What has a meaning in a line of Markdown or HTML, mathematics and mentions of the Hub among it.
_MARKS = re.compile(r"([\\|`*_<>\[\]&~$#@!])")
# What is made a link without any mark.
_LINKS = re.compile(r"(?i)(?<=https)(:)|(?<=http)(:)|(?<=ftp)(:)|(?<=mailto)(:)|(?<=xmpp)(:)|(?<=www)(\.)")
HUB = "https://huggingface.co"
_TICKS = re.compile("`+")


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def escaped(value: Any) -> Markdown:
    """A value as text on one line, which cannot become markup; Markdown stays as it is."""
    if isinstance(value, Markdown):
        return value
    text = re.sub(r"\s", " ", printable(str(value)))
    return Markdown(_LINKS.sub(lambda found: f"\\{found[0]}", _MARKS.sub(r"\\\1", text)))


def cell(value: Any) -> Markdown:
    """The same without spaces that say nothing, in a table's cell; a dash where it is empty."""
    return value if isinstance(value, Markdown) else escaped(" ".join(str(value).split())) or Markdown("-")


def code(value: Any) -> Markdown:
    """A value as code in a line."""
    text = " ".join(printable(str(value)).split()) or "-"
    fence = "`" * (1 + max(map(len, _TICKS.findall(text)), default=0))
    space = " " if len(fence) > 1 else ""
    # Tables are cut into cells before code is looked for.
    return Markdown(f"{fence}{space}{text}{space}{fence}".replace("|", "\\|"))


def block(text: str, language: str = "") -> Markdown:
    """Lines as a block of code."""
    fence = "`" * max(3, 1 + max(map(len, _TICKS.findall(text)), default=0))
    return Markdown(f"{fence}{language}\n{printable(text).strip()}\n{fence}")


def as_block(text: str) -> Markdown:
    """A stranger's Markdown as a block of code."""
    return block("\n".join(line for line in text.splitlines() if not re.match(r" {0,3}(```|~~~)", line)))


def quoted(value: Any) -> Markdown:
    """A value as a literal of Python, on one line, for a block of code."""
    return Markdown(json.dumps(printable(str(value)), ensure_ascii=False).replace("`", "\\x60"))


def link(text: Any, address: str) -> Markdown:
    """A link; the address is ours, but for names in it that are checked."""
    return Markdown(f"[{cell(text)}]({re.sub(r'[^A-Za-z0-9:/._~#-]', '', address)})")


def dataset_link(repo_id: str) -> Markdown:
    """A link to a dataset on the Hub."""
    return link(repo_id, f"{HUB}/datasets/{repo_id}")


def template(name: str) -> str:
    """The text of a packaged template."""
    return (files("sage_hf.hub") / "templates" / name).read_text(encoding="utf-8")


def fill(name: str, values: dict[str, Any]) -> Markdown:
    """A packaged template with its values filled in, each of them escaped unless it is Markdown.

    Facts of a card are kept as JSON, which does not know that a text is Markdown: templates say so by `| written`.

    Raises:
        jinja2.UndefinedError: A value is missing.
    """
    environment = Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False, finalize=_finalized
    )
    environment.filters |= {"count": _count, "cell": cell, "number": number, "code": code, "quoted": quoted}
    environment.filters |= {"block": block, "as_block": as_block, "dataset_link": dataset_link, "written": Markdown}
    return Markdown(environment.from_string(template(name)).render(**values))


def number(value: float | None) -> str:
    """A score with its sign and three digits."""
    return "-" if value is None else f"{value:+.3f}"


def _finalized(value: Any) -> Any:
    return escaped(value) if isinstance(value, str) else value


def _count(value: int) -> str:
    return f"{value:,}"
