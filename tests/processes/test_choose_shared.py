"""Processes and threads share a choice, and the rows are those that one process of one thread keeps, to the bit."""

from pathlib import Path

import pytest

from . import launch
from .choose_shared import CASES, NESTED
from .launch import report_of

SCRIPT = Path(__file__).with_name("choose_shared.py")
pytestmark = pytest.mark.slow
NAMES = [f"{name}, {kind}" for name in CASES for kind in ("classes", "no classes")]
NAMES += [*NESTED, "folds", "own way", "afterwards"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return report_of(SCRIPT, 1, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module", params=[2, 3])
def shared(request, tmp_path_factory):
    report = report_of(SCRIPT, request.param, tmp_path_factory.mktemp(str(request.param)))
    assert report["processes"] == request.param
    return report


@pytest.fixture(scope="module")
def threads(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(launch.ENVIRONMENT, "OMP_NUM_THREADS", "2")
        return report_of(SCRIPT, 1, tmp_path_factory.mktemp("threads"))


@pytest.mark.parametrize("case", NAMES)
def test_the_rows_are_those_of_one_process_to_the_bit(alone, shared, case):
    assert shared[case]["result"] == alone[case]["result"]


@pytest.mark.parametrize("case", NAMES)
def test_every_process_has_all_rows(shared, case):
    assert shared[case]["all_alike"]


@pytest.mark.parametrize("case", NAMES)
def test_the_rows_are_those_of_one_thread_to_the_bit(alone, threads, case):
    assert threads[case]["result"] == alone[case]["result"]


@pytest.mark.parametrize("where", ["fails_in_a_job", "fails_before_jobs", "fails_after_jobs"])
def test_a_failure_in_one_process_is_raised_in_all(alone, shared, where):
    *others, last = shared[where]
    assert last == alone[where][0] == "ValueError: no such rows"
    number = shared["processes"] - 1
    assert len(others) == number
    assert all(f"Process {number} of {shared['processes']} failed" in each for each in others)


def test_one_process_speaks_for_all(alone, shared):
    assert alone["warnings"] == [1]
    assert shared["warnings"] == [1] + [0] * (shared["processes"] - 1)
