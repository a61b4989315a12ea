"""How much is tried: a part in every test run, all of it by `make trust`."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

# Where the report goes; set by `make trust` alone.
REPORT = os.environ.get("SAGE_TRUST_REPORT")
# Cases by test file.
TRIED: Counter[str] = Counter()


def cases(few: int, many: int) -> int:
    """Number of cases of a test: in every run, and by `make trust`."""
    return many if REPORT else few


def some(values: Sequence[T], few: int) -> list[T]:
    """All of them by `make trust`; otherwise `few`, from the first to the last at even distances."""
    if REPORT or few >= len(values):
        return list(values)
    return [values[round(place * (len(values) - 1) / max(1, few - 1))] for place in range(few)]


def tried(count: int = 1) -> None:
    """So many more cases were tried by the test that runs; a test that never says so is one case."""
    TRIED[os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]] += count
