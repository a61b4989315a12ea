"""One of two processes is killed, frozen, asleep, slow or gone.

The other says which, in bounded time, or waits for one that works; and the same again gives the same rows, to the bit.
"""

from pathlib import Path

import pytest

from .forked import script
from .scale import REPORT, tried

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    place = tmp_path_factory.mktemp("stopped")
    return script(Path(__file__).with_name("stopped_process.py"), place, "many" if REPORT else "few")


def test_the_other_process_ends_by_itself_and_names_the_one_that_it_waited_for(report):
    stopped = [case for case in report["cases"] if case["how"] != "slow"]
    assert len(stopped) >= 2
    for case in stopped:
        tried()
        assert case["code"] == 1, case
        assert case["seconds"] < 4 * report["timeout"] + 5, case
        assert f"Process {case['rank']} of 2" in case["says"], case
        told = "has ended" if case["how"] in ("killed", "leaves") else "has done nothing for"
        assert told in case["says"], case


def test_the_same_again_gives_the_same_rows_on_one_process_and_on_two(report):
    again = [case for case in report["cases"] if "same" in case]
    assert len(again) >= 2
    for case in again:
        tried()
        assert case["same"] and all(case["same"]), case


def test_a_slow_process_is_waited_for_and_the_wait_is_said(report):
    slow = [case for case in report["cases"] if case["how"] == "slow"]
    assert slow
    for case in slow:
        tried()
        assert case["code"] == 0, case
        assert f"waiting for process {case['rank']} of 2, which works" in case["says"], case


def test_an_interrupt_ends_the_wait_at_once(report):
    assert report["interrupted"]["seconds"] < 2
    assert report["interrupted"]["says"].strip().endswith("KeyboardInterrupt")
