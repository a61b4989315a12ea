"""Several processes share one selection, and it is the one that a single process makes, to the bit."""

from pathlib import Path

import pytest

from .launch import report_of
from .select_shared import CASES, STREAMS

SCRIPT = Path(__file__).with_name("select_shared.py")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return report_of(SCRIPT, 1, tmp_path_factory.mktemp("one"))


# Three merge in two steps, one of them alone: what more processes do, too.
@pytest.fixture(scope="module", params=[2, 3])
def shared(request, tmp_path_factory):
    report = report_of(SCRIPT, request.param, tmp_path_factory.mktemp(str(request.param)))
    assert report["processes"] == request.param
    return report


@pytest.mark.parametrize("case", [*CASES, *STREAMS])
def test_the_result_is_that_of_one_process_to_the_bit(alone, shared, case):
    assert shared[case]["result"] == alone[case]["result"]


@pytest.mark.parametrize("case", [*CASES, *STREAMS])
def test_every_process_has_the_whole_result(shared, case):
    assert shared[case]["all_alike"]


def test_rows_that_one_process_sets_aside_are_set_aside_in_all(alone, shared):
    assert alone["set_aside"] == [[3, 33]]
    assert shared["set_aside"] == [[3, 33]] * shared["processes"]


def test_processes_that_read_different_streams_say_so(shared):
    assert any("read different streams" in each for each in shared["parted"])
    assert "nothing" not in shared["parted"]


def test_a_process_that_fails_takes_the_others_with_it(shared):
    *others, last = shared["failed"]
    assert "The label is 99" in last
    number = shared["processes"] - 1
    assert all(f"Process {number} of {shared['processes']} failed" in each for each in others)
