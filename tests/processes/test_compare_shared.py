"""Several processes train together, and end with the same comparison."""

from pathlib import Path

import pytest

from .launch import report_of

SCRIPT = Path(__file__).with_name("compare_shared.py")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return report_of(SCRIPT, 1, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    report = report_of(SCRIPT, 2, tmp_path_factory.mktemp("two"))
    assert report["processes"] == 2
    return report


def test_every_process_has_the_whole_comparison_and_a_second_call_trains_nothing(shared):
    assert shared["alike"]
    assert shared["again"]
    assert shared["trained"][0] == 2 * (1 + 2 * 3)
    assert shared["trained"][1] - shared["trained"][0] == 2 * (1 + 2)  # those of the language model


def test_the_rows_are_those_of_one_process(alone, shared):
    assert shared["rows"] == alone["rows"]


def test_test_rows_are_judged_once_each_whoever_takes_them(alone, shared):
    assert shared["runs"] == alone["runs"]
    assert shared["losses"] == pytest.approx(alone["losses"], rel=1e-5)


def test_what_the_main_process_refuses_all_refuse(shared):
    assert "other settings" in shared["refused"][0]
    assert "Process 0 of 2 failed" in shared["refused"][1]
