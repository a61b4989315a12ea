"""What somebody else may have made: names and texts that would be markup, and pickles that leave a trace."""

import os

from datasets import ClassLabel
from hypothesis import strategies as st

from sage_hf import SageConfig, SageSelector

from ..cases import bert, token_rows

MARKUP = [
    *(
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(2)>",
        "</td></tr></table><b>",
        "<!-- -->",
        "--> <b>x</b>",
    ),
    *("[a](https://evil.example)", "![a](https://evil.example/x.png)", "https://evil.example", "www.evil.example"),
    *(
        "a | b | c",
        "|---|",
        "# heading",
        "\n# heading\n",
        "\n---\nlicense: mit\n---\n",
        "\n```\n<b>x</b>\n",
        "`a`",
        "``",
    ),
    *(
        "**bold**",
        "_i_",
        "~~~",
        "<a@b.example>",
        "mailto:a@b.example",
        "a@b.example",
        "&lt;b&gt;",
        "$$x$$",
        "\\",
        "\\`",
        "\\|",
        "\\[",
    ),
    *(
        "<!-- /sage_hf: default -->",
        "{{ 7 * 7 }}",
        "{% raw %}",
        "[red]x[/red]",
        "[/]",
        r"\[link=https://evil.example]x",
        ":skull:",
    ),
    *(
        "\x1b[31m",
        "\x1b]0;title\x07",
        "\x1b]8;;https://evil.example\x1b\\x",
        "\x9b31m",
        "\x07\x08",
        "\u202eabc",
        "\u2066x",
        "\r\nError: no",
    ),
    *(
        "'",
        '"',
        "\x00",
        "\ufeff",
        "\u2028",
        "=HYPERLINK(1)",
        "+1",
        "@SUM(1)",
        "../../x",
        "C:\\x",
        "a: b",
        "- x",
        "? x",
        "!!python/object:x",
    ),
]
# Names by chance, of letters that mean something to somebody.
NAMES = st.lists(
    st.sampled_from(MARKUP) | st.text("<>[]()`|*_#~!&\\\n\x1b\x07\u202e{}%:-\"'ab", max_size=6), min_size=1, max_size=3
).map("".join)


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return os.mkdir, (self.canary,)


def small_selection():
    """6 of 12 rows in three classes."""
    config = SageConfig(num_examples=6, strategy="agreement", sketch_size=4, batch_size=4, check_gradients=False)
    rows = token_rows(12).add_column("label", [row % 3 for row in range(12)])
    rows = rows.cast_column("label", ClassLabel(names=["a", "b", "c"]))
    return SageSelector(bert(), config=config, progress=False).select(rows)
