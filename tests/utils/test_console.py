"""Nothing that is printed moves a cursor, and no word becomes a picture."""

import io

from rich.table import Table
from rich.text import Text

from sage_hf.utils.console import PlainConsole


def test_controls_are_marks_and_styles_are_kept():
    file = io.StringIO()
    console = PlainConsole(file=file, force_terminal=True, color_system="standard", width=60)
    table = Table()
    table.add_column(Text("a\x1b[2Jb"))
    table.add_row(Text("c\x07"), style="bold")
    console.print(table)
    console.print("x\x1b]0;title :skull:", markup=False)
    text = file.getvalue()
    assert "a\ufffd[2J" in text and "x\ufffd" in text and ":skull:" in text
    assert "\x1b[1m" in text and "\x1b[2J" not in text and "\x07" not in text
