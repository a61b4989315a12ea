"""Errors of the library in the words of the shell: `overwrite=True` is `--overwrite` there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import fields
from typing import Protocol

from ..config import SageConfig

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
# Settings by name alone, where the name is no word of plain text: no `gate`, but `text_columns`.
_NAMES = "|".join(sorted(name for name in _OPTIONS if "_" in name)) + "|fraction(?= (?:and|nor|or) num_examples)"
_NAME = re.compile(rf"(?<![\w.\"'`(=-])({_NAMES})(?!\.?\w|[=('\"`-])")
# What a text says for both: `warm_up(model, dataset, steps=200), --warmup-steps 200 in the shell`.
_CALL_OR_OPTION = re.compile(r"[\w.]+\([^()]*\), (--[^;,()]+?) in the shell")
_ARGUMENT_OR_OPTION = re.compile(r"\b[a-z_]+=(\S+), (--[\w-]+ \1)(?=[);,. ])")
# An option that is named twice: `--gate none (--gate none)`.
_TWICE = re.compile(r"(--[\w-]+(?: [\w.]+)?)(?:, \1(?=\))| \(\1\))")
# Advice of Python for which the shell has an option.
_FILL = re.compile(r"Filter or fill such rows(?=[.,])")
_FILL_HERE = "Fill in such rows, or add --drop-missing to leave out those without a value"
_COLUMN = re.compile(r"\b(column) '([^']*)'")
_ASSIGNMENT = re.compile(r"""\b([a-z_]+)=("[^"]*"|'[^']*'|\w+(?:\.\w+)*)""")
# Rows that an error names: `row 7`, `rows 3, 8`, `2 rows: 7, 9`, `100 rows among 0 to 511, first 1, 2`.
_ROWS = re.compile(r"\brow \d+|\brows(?: among \d+ to \d+)?(?::|, first)? \d+(?:, \d+)*")
# The user's names of columns that have others now: {now: then}.
_COLUMNS: ContextVar[Mapping[str, str] | None] = ContextVar("columns", default=None)
# Of every row that is left, its number in the file; None where none was left out.
_NUMBERS: ContextVar[Sequence[int] | None] = ContextVar("numbers", default=None)


def number_rows(numbers: Sequence[int] | None) -> None:
    """From now on errors name rows by these numbers, those of the file, and not by their places among what is left."""
    _NUMBERS.set(numbers)


def name_columns(renamed: Mapping[str, str] | None) -> None:
    """From now on what is said names columns as the user does; `renamed` is {the user's name: the name here}."""
    _COLUMNS.set({new: old for old, new in (renamed or {}).items()})


def name_of_column(name: str) -> str:
    """A column as the user names it."""
    return (_COLUMNS.get() or {}).get(name, name)


def in_the_file(text: str) -> str:
    """A text with the numbers that rows have in the file; as it is where it may speak of other rows."""
    numbers = _NUMBERS.get()
    if numbers is None:
        return text
    found = [int(number) for words in _ROWS.findall(text) for number in re.findall(r"\d+", words)]
    if not found or max(found) >= len(numbers):
        return text
    return _ROWS.sub(lambda words: re.sub(r"\d+", lambda number: str(numbers[int(number[0])]), words[0]), text)


class Told(Protocol):
    """What an error says, or a problem that the doctor found."""

    @property
    def what(self) -> str:
        """What is wrong."""

    @property
    def where(self) -> str:
        """The argument, column, rows or modules concerned."""

    @property
    def fix(self) -> str:
        """What to do."""


def in_the_shell(error: Told) -> tuple[str, str, str]:
    """What is wrong, where, and what to do, with options in the place of Python's arguments."""
    names = error.where.split(", ")
    where = ", ".join(_OPTIONS[name] for name in names) if all(name in _OPTIONS for name in names) else error.where
    return options_for(error.what), _columns_of_the_user(in_the_file(where)), options_for(error.fix)


def options_for(text: str) -> str:
    """A text with options in the place of Python's arguments, and the user's names of columns."""
    text = _ARGUMENT_OR_OPTION.sub(r"\2", _CALL_OR_OPTION.sub(r"\1", _FILL.sub(_FILL_HERE, text)))
    text = _NAME.sub(lambda match: _OPTIONS[match[1]], _ASSIGNMENT.sub(_option, text))
    text = text.replace(" or None.", " or none.")
    return _columns_of_the_user(_TWICE.sub(r"\1", text))


def _columns_of_the_user(text: str) -> str:
    return _COLUMN.sub(lambda match: f"{match[1]} {name_of_column(match[2])!r}", text)


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
