"""Values in Markdown stay text."""

from sage_hf.hub.markdown import as_block, block, cell, code, escaped, link, quoted


def test_marks_are_escaped_once_and_markdown_stays():
    assert escaped("a|b <i> [x](y) https://h") == r"a\|b \<i\> \[x\](y) https\://h"
    assert escaped(escaped("*")) == r"\*"
    assert cell("  a\n b ") == "a b" and cell("") == "-"


def test_code_and_blocks_have_longer_fences_than_what_is_in_them():
    assert code("a`b") == "`` a`b ``" and code("a|b") == r"`a\|b`"
    assert block("x\n```\ny").startswith("````\n") and block("x\n```\ny").endswith("\n````")
    assert as_block("```bibtex\n@misc{a}\n```") == "```\n@misc{a}\n```"


def test_literals_stay_on_their_line_and_links_have_plain_addresses():
    assert quoted('a"\n`') == r'"a\"\n\x60"'
    assert link("a", 'https://huggingface.co/a") [x](y') == "[a](https://huggingface.co/axy)"
