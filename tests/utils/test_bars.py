"""Progress is a bar, or a line now and then, or nothing."""

import logging

import pytest

from sage_hf.utils import bars
from sage_hf.utils.bars import progress_as, progress_bar


@pytest.mark.parametrize(
    ("kind", "lines"), [("lines", ["Warm-up: 1 of 3 steps.", "Warm-up: 2 of 3 steps."]), ("nothing", [])]
)
def test_without_a_terminal_a_line_is_logged_now_and_then_and_no_bar_is_drawn(
    kind, lines, caplog, capsys, monkeypatch
):
    caplog.set_level(logging.INFO, logger="sage_hf")
    clock = iter([0.0, 31.0, 62.0, 63.0])
    monkeypatch.setattr(bars.time, "monotonic", lambda: next(clock))
    with progress_as(kind), progress_bar(total=3, desc="warm-up", unit="step") as bar:
        for _ in range(3 if kind == "lines" else 0):
            bar.update()
    assert caplog.messages == lines
    assert capsys.readouterr() == ("", "")


def test_what_is_gone_through_comes_out_however_progress_is_shown():
    for kind in ("bars", "lines", "nothing"):
        with progress_as(kind):
            assert list(progress_bar(iter("abc"), total=3, desc="letters", unit="letter")) == ["a", "b", "c"]
            assert list(progress_bar("ab", disable=True)) == ["a", "b"]
