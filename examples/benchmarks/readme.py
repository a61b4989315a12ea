"""Copies the tables of `results/*.md` into the README, between its markers; a test holds that they are equal."""

from __future__ import annotations

import re
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[2] / "README.md"


def with_tables(text: str) -> str:
    """The README's text with every table as measured last."""

    def replace(match: re.Match[str]) -> str:
        table = (RESULTS / f"{match['name']}.md").read_text().strip()
        return f"<!-- results: {match['name']} -->\n{table}\n<!-- /results -->"

    return re.sub(r"<!-- results: (?P<name>\w+) -->\n.*?<!-- /results -->", replace, text, flags=re.DOTALL)


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
