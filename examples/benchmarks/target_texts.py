"""Real texts of five sources, without a download: what three libraries document, a language reference, and code.

They overlap on purpose: all speak of Python, and the libraries of each other's arrays.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from python_text import topic_rows

LIBRARIES = ("scipy", "sklearn", "matplotlib")
SOURCES = (*LIBRARIES, "reference", "code")
_FEWEST_WORDS, _MOST_WORDS = 10, 80
_LINES = (4, 14)
_NOT_READ = ("test", "idlelib", "lib2to3", "site-packages", "dist-packages", "pydoc_data", "encodings")


@functools.cache
def texts_of(source: str) -> list[str]:
    """All texts of a source, each once, in an order that is the same everywhere."""
    if source == "reference":
        found = (" ".join(text.split()) for text in topic_rows()["text"])
        kept = (text for text in found if len(text.split()) >= _FEWEST_WORDS)
    else:
        kept = functions() if source == "code" else paragraphs(source)
    return sorted(set(kept))


def paragraphs(package: str) -> Iterator[str]:
    """Paragraphs of the docstrings of an installed package, without importing it; no code and no tables."""
    for tree, _ in trees(Path(str(importlib.util.find_spec(package).origin)).parent):
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and (docstring := ast.get_docstring(node)):
                for paragraph in docstring.split("\n\n"):
                    words = paragraph.split()
                    is_prose = not any(mark in paragraph for mark in (">>>", "---", "===", "|"))
                    if is_prose and _FEWEST_WORDS <= len(words) <= _MOST_WORDS:
                        yield " ".join(words)


def functions() -> Iterator[str]:
    """Bodies of short functions of the standard library, without their docstrings."""
    for tree, text in trees(Path(sysconfig.get_path("stdlib"))):
        lines = text.splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None and ast.get_docstring(node) is None:
                body = lines[node.lineno - 1 : node.end_lineno]
                if _LINES[0] <= len(body) <= _LINES[1]:
                    yield "\n".join(line.removeprefix(" " * node.col_offset) for line in body)


def trees(root: Path) -> Iterator[tuple[ast.Module, str]]:
    """The parsed files under a folder, with their text."""
    for path in sorted(root.rglob("*.py")):
        if any(word in part for part in path.relative_to(root).parts for word in _NOT_READ):
            continue
        try:
            text = path.read_text(encoding="utf-8")
            yield ast.parse(text), text
        except (SyntaxError, ValueError):
            continue


def split(seed: int, rows: int, held: int, few: int) -> dict[str, dict[str, list[str]]]:
    """For each source, `train` (so many rows), `test` and `target`, none of which shares a text with another."""
    rng = np.random.default_rng(seed)
    parts = {}
    for source in SOURCES:
        texts = texts_of(source)
        drawn = [texts[place] for place in rng.permutation(len(texts))[: rows + held + few]]
        assert len(drawn) == rows + held + few, (source, len(texts))
        parts[source] = {"target": drawn[:few], "test": drawn[few : few + held], "train": drawn[few + held :]}
    return parts
