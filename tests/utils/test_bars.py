"""Progress is one line that changes, or a line now and then, or nothing; what it says is true from the beginning."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sage_hf.utils import bars
from sage_hf.utils.bars import Plan, Speed, advance, at, planned, progress_as, replan, stage, stage_of_plan
from sage_hf.utils.interruption import told_if_interrupted


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes only when it is told to; nothing ticks."""

    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(bars.time, "monotonic", made)
    monkeypatch.setattr(bars.Stage, "_tick", lambda self: None)
    return made


def run(clock, line, steps, seconds, count=1):
    for _ in range(steps):
        clock.now += seconds
        line.update(count)


def test_a_line_is_said_every_half_minute_with_stage_rows_speed_and_time_left(clock, caplog, capsys):
    caplog.set_level(logging.INFO, logger="sage_hf")
    with progress_as("lines"), planned(["preparing", "sketching", "choosing"]):
        with stage("preparing"):
            at("hashing weights")
            clock.now += 31
            advance(0)
        with stage("sketching", 1000) as line:
            run(clock, line, 60, 1.0, count=10)
        with stage("choosing", unit="parts"):
            at("near-duplicates", 8, "parts")
            for _ in range(4):
                clock.now += 10
                advance()
    assert caplog.messages == [
        "[1 of 3] preparing (hashing weights), 0:31 so far.",
        "[2 of 3] sketching: 300 of 1,000 rows, 10 rows/s, 1:10 left.",
        "[2 of 3] sketching: 600 of 1,000 rows, 10 rows/s, 0:40 left.",
        "[3 of 3] choosing (near-duplicates): 3 of 8 parts, 0:10 each, 0:50 left.",
    ]
    assert capsys.readouterr() == ("", "")


def test_stages_that_are_short_each_are_heard_of_when_the_run_is_long(clock, caplog):
    caplog.set_level(logging.INFO, logger="sage_hf")
    with progress_as("lines"), planned(["a"] * 5):
        for _ in range(5):
            with stage("a", 10) as line:
                run(clock, line, 10, 1.0)
    assert [message[:8] for message in caplog.messages] == ["[3 of 5]"]


@pytest.mark.parametrize("switch", ["nothing", "not shown", "plan not shown", "other process", "short"])
def test_nothing_is_said_where_nothing_is_wanted(clock, caplog, capsys, monkeypatch, switch):
    caplog.set_level(logging.INFO, logger="sage_hf")
    if switch == "other process":
        monkeypatch.setenv("RANK", "1")
        monkeypatch.delitem(sys.modules, "accelerate.state", raising=False)
    with (
        progress_as("nothing" if switch == "nothing" else "lines"),
        planned(["a"], shown=switch != "plan not shown"),
        stage("a", 10, shown=switch != "not shown") as line,
    ):
        run(clock, line, 10, 2.0 if switch == "short" else 50.0)
    assert not caplog.messages and capsys.readouterr() == ("", "")


def test_without_a_listener_a_line_goes_to_standard_error(clock, capsys):
    with progress_as("auto"), stage("sketching", 100) as line:  # under pytest, standard error is no terminal
        run(clock, line, 40, 1.0)
    assert capsys.readouterr() == ("", "Sketching: 30 of 100 rows, 1.0 rows/s, 1:10 left.\n")


def test_a_plan_numbers_its_stages_in_their_order_and_knows_no_others():
    plan = Plan(["load", "sketch", "target", "target", "choose"])
    begun = [plan.begin(name) for name in ("load", "load", "sketch", "window", "target", "target", "choose", "load")]
    assert [head[1:2] for head in begun] == ["1", "1", "2", "", "3", "4", "5", ""]


def test_a_plan_inside_a_plan_is_a_part_of_it_and_stages_may_be_put_in_place_of_others():
    with progress_as("nothing"), planned(["load", "a", "b", "write"]):
        with planned(["a", "b"]):
            replan(["a", "b"], ["a", "c", "d"])
            for name in ("a", "c"):
                with stage(name):
                    pass
        assert stage_of_plan() == "stage 3 of 5 (c)"
    assert stage_of_plan() == ""


def test_the_first_step_does_not_count_for_the_speed_and_little_tells_nothing():
    speed = Speed()
    assert speed.rate() is None
    speed.add(100.0, 8)  # a first batch that took 100 s
    speed.add(101.0, 8)
    assert speed.rate() is None
    for second in range(102, 200):
        speed.add(float(second), 8)
    assert speed.rate() == 8.0


def test_the_speed_is_that_of_the_last_half_minute():
    speed = Speed()
    for second in range(100):
        speed.add(float(second), 1)
    for second in range(100, 140):
        speed.add(float(second), 50)
    assert speed.rate() == 50.0


def test_what_was_finished_before_counts_as_done_but_not_for_the_speed(clock):
    with progress_as("nothing"), stage("sketching", 1000) as line:
        line.skip(900)
        assert "left" not in line.text(clock.now) and line.text(clock.now).startswith("sketching: 900 of 1,000 rows")
        run(clock, line, 10, 1.0)
        assert line.text(clock.now) == "sketching: 910 of 1,000 rows, 1.0 rows/s, 1:30 left"
        clock.now += 30  # nothing comes for a while: less is left, never less than nothing
        assert line.text(clock.now).endswith("1:00 left")
        clock.now += 3000
        assert line.text(clock.now).endswith("0:00 left")


def test_a_stage_inside_another_leaves_its_counts_as_they_are(clock):
    with progress_as("nothing"), stage("scoring", 100) as outer:
        outer.update(10)
        with stage("choosing"):
            at("k-means", 4, "parts")
            advance(3)
        advance(5)
        assert outer.done == 15 and outer.total == 100


TERMINAL = """
import sys, time
from sage_hf.utils.bars import BAR_DELAY, planned, stage
with planned(["preparing", "sketching"]):
    with stage("preparing"): pass
    with stage("sketching", 10**6) as line:
        end = time.monotonic() + BAR_DELAY + 3
        while time.monotonic() < end:
            time.sleep(0.05); line.update(10)
print("done")
"""


def test_a_terminal_shows_one_line_that_is_gone_at_the_end():
    shown = on_terminal([sys.executable, "-c", TERMINAL])
    drawn = [line for line in shown.split("\r") if "sketching" in line]
    assert drawn and all(line.startswith("[2 of 2] sketching:") and " of 1,000,000 rows" in line for line in drawn)
    assert "rows/s" in drawn[-1] and "left" in drawn[-1]
    assert shown.split("\r")[-2].strip() == "done" and shown.count("\n") == 1


def test_the_same_run_into_a_pipe_shows_nothing_in_its_first_half_minute():
    code = [sys.executable, "-c", TERMINAL]
    assert subprocess.run(code, capture_output=True, text=True).stderr == ""


def test_an_interrupt_is_told_once_by_who_knows_most_and_passes_on(caplog):
    with (
        pytest.raises(KeyboardInterrupt),
        progress_as("nothing"),
        planned(["a"]),
        told_if_interrupted(lambda: "outer"),
        stage("a"),
        told_if_interrupted(lambda: "inner"),
        told_if_interrupted(lambda: ""),
    ):
        raise KeyboardInterrupt
    assert caplog.messages == ["Interrupted in stage 1 of 1 (a): inner"]


def on_terminal(command, stop_at=None):
    """All that a command shows on a terminal of 120 columns; Ctrl-C is typed once a pattern is found in it."""
    import fcntl
    import pty
    import struct
    import termios

    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    root = Path(bars.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "TERM": "xterm", "COLUMNS": "120"}

    def own_terminal():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command, stdin=other, stdout=other, stderr=other, env=environment, cwd=root, preexec_fn=own_terminal
    )
    os.close(other)
    shown = b""
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:  # Linux: nobody writes any more
            break
        if not part:
            break
        shown += part
        if stop_at is not None and re.search(stop_at, shown.decode(errors="replace")):
            os.write(main, b"\x03")
            stop_at = None
    os.close(main)
    process.wait()
    return shown.decode(errors="replace")
