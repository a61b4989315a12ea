"""Copies the tables of `results/*.md` into README and docs, between their markers; a test holds them equal."""

from __future__ import annotations

import re
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[2]


def pages() -> list[Path]:
    """The README and the pages of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def with_tables(text: str) -> str:
    """A page's text with every table as measured last."""

    def replace(match: re.Match[str]) -> str:
        table = (RESULTS / f"{match['name']}.md").read_text(encoding="utf-8").strip()
        return f"<!-- results: {match['name']} -->\n{table}\n<!-- /results -->"

    return re.sub(r"<!-- results: (?P<name>\w+) -->\n.*?<!-- /results -->", replace, text, flags=re.DOTALL)


if __name__ == "__main__":
    for page in pages():
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
