"""Values of JSON are held against the types that a dataclass declares."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from sage_hf.utils.typed import as_declared, fits


@dataclass
class Declared:
    name: str
    share: float | None
    parts: dict[str, list[int]]


@pytest.mark.parametrize(
    ("value", "hint", "wanted"),
    [
        *((1, int, True), (True, int, False), (1, float, True), ("x", float, False), (None, None, True)),
        *(([1, 2], list[int], True), ([1, "x"], list[int], False), ({"a": [1]}, dict[str, list[int]], True)),
        *(({1: []}, dict[str, list[int]], False), ("a", Literal["a", "b"], True), ("c", Literal["a"], False)),
        *((object(), Any, True), (None, str | None, True), (3, str | None, False)),
    ],
)
def test_a_value_is_of_a_type_or_not(value, hint, wanted):
    assert fits(value, hint) == wanted


def test_the_first_field_of_another_type_is_named():
    assert as_declared(Declared("a", 1, {"b": [2]})).name == "a"
    with pytest.raises(TypeError, match="parts"):
        as_declared(Declared("a", None, {"b": None}))
