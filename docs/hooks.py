"""Lets pages link to files of the repository: tables of results, scripts, the changelog.

On GitHub such a link is a path out of `docs/`. The site has no such folder, so the file is copied to
`repository/`, Markdown as a page, and the link points there. A link to a file that is not there stays, and stops the
build.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
COPIES = "repository"
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")


def on_files(files: Files, config: Any) -> Files:
    """Adds every file of the repository that a page links to, and those that these link to."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    while waiting:
        page = waiting.pop()
        for path in _linked(page, (ROOT / page).read_text(encoding="utf-8")):
            place = _place(path)
            if files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
                if path.endswith(".md"):
                    waiting.append(path)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Points links out of `docs/` to the copies."""
    here = page.file.src_uri
    source = here.removeprefix(f"{COPIES}/") if here.startswith(f"{COPIES}/") else f"docs/{here}"

    def moved(match: re.Match[str]) -> str:
        path = _resolved(source, match[1])
        return posixpath.relpath(_place(path), posixpath.dirname(here) or ".") if _is_there(path) else match[1]

    return _LINK.sub(moved, markdown)


def _linked(page: str, text: str) -> Iterator[str]:
    """The files outside `docs/` that a page of the repository links to."""
    for link in _LINK.findall(text):
        path = _resolved(page, link)
        if _is_there(path) and not path.startswith("docs/"):
            yield path


def _resolved(page: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _is_there(path: str) -> bool:
    return not path.startswith("..") and (ROOT / path).is_file()


def _place(path: str) -> str:
    """Where the site has a file of the repository."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{COPIES}/{path}"
