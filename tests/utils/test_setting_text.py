"""Settings as text, there and back; what chance finds is in tests/trust."""

import pytest

from sage_hf.errors import ConfigError
from sage_hf.utils.setting_text import from_text, to_text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("target_modules", ["query", "value"], "query,value"),
        ("target_modules", ["all"], '["all"]'),  # layers that are called so, and not the word
        ("target_modules", "lm_head", '"lm_head"'),  # an expression for a whole name, and not an ending
        ("target_modules", r".*\.(q|v)_proj", r".*\.(q|v)_proj"),
        ("text_columns", ["question, answer"], '["question, answer"]'),
        ("text_columns", None, ""),
        ("group_by", "none", '"none"'),  # a column that is called so
        ("group_by", None, "none"),
        ("group_by", "label", "label"),
        ("projection", None, "none"),
        ("sketch_size", 7, "7"),
        ("gate", 0.25, "0.25"),
    ],
)
def test_text_that_could_mean_something_else_is_json(name, value, text):
    assert to_text(name, value) == text
    assert from_text(name, text) == value


def test_a_regular_expression_may_begin_with_a_bracket():
    assert from_text("target_modules", "[qv]_proj") == "[qv]_proj"
    assert from_text("text_columns", "[text") == ["[text"]


@pytest.mark.parametrize("text", ["-1", "1e3", "9" * 5000, "²"])
def test_what_is_no_whole_number_is_refused(text):
    with pytest.raises(ConfigError) as caught:
        from_text("sketch_size", text)
    assert caught.value.where == "sketch_size"
