"""SIGTERM and SIGINT at random times of commands of the shell, to a process or its group, and the same again."""

from pathlib import Path

import pytest

from .forked import script
from .scale import cases, tried

pytestmark = pytest.mark.slow
CODES = {"SIGINT": 130, "SIGTERM": 143}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    place = tmp_path_factory.mktemp("signals")
    return script(Path(__file__).with_name("signalled.py"), place, cases(2, 60), 7)


def test_the_exit_code_tells_the_signal_and_no_traceback_is_shown(report):
    assert any(case["code"] for case in report)
    for case in report:
        tried()
        is_over = case["output"] is not None  # before the signal, or so little before the end that all was there
        assert case["code"] == CODES[case["signal"]] or (is_over and case["code"] == 0), case
        assert "Traceback" not in case["says"], case


def test_nothing_half_is_left_and_no_process_lives_on(report):
    for case in report:
        tried()
        assert case["output"] in (None, True), case
        assert case["left"] == [], case


def test_the_same_command_again_gives_the_same_to_the_bit(report):
    for case in report:
        tried()
        assert case["same"], case
