"""Errors of the library in the words of the shell: `overwrite=True` is `--overwrite` there."""

from __future__ import annotations

import re
from dataclasses import fields

from ..config import SageConfig
from ..errors import SageError

_SETTINGS = frozenset(each.name for each in fields(SageConfig))
# Arguments of Python and the shell's options for them, where the names differ, or are no settings.
_OPTIONS = {
    **{
        name: "--" + name.replace("_", "-")
        for name in (*_SETTINGS, "overwrite", "license", "scores_only", "config_name")
    },
    "overwrite_output_dir": "--overwrite",
    "output": "--output",
    "view": "--rows",
    "group": "--group",
    "label column": "--label-column",
    "repo_id": "REPOSITORY",
}
_ASSIGNMENT = re.compile(r"""\b([a-z_]+)=("[^"]*"|'[^']*'|\w+(?:\.\w+)*)""")


def in_the_shell(error: SageError) -> tuple[str, str, str]:
    """What is wrong, where, and what to do, with options in the place of Python's arguments."""
    names = error.where.split(", ")
    where = ", ".join(_OPTIONS[name] for name in names) if all(name in _OPTIONS for name in names) else error.where
    return options_for(error.what), where, options_for(error.fix)


def options_for(text: str) -> str:
    """A text with options in the place of Python's arguments."""
    return _ASSIGNMENT.sub(_option, text)


def _option(match: re.Match[str]) -> str:
    name, value = match.groups()
    if name not in _OPTIONS:
        return match.group()
    if value == "True":
        return _OPTIONS[name]
    if value == "False":
        return f"--no-{_OPTIONS[name][2:]}"
    word = value.strip("\"'")
    return f"{_OPTIONS[name]} {'none' if value == 'None' else word}"
