"""Selections and trainings killed at random moments and begun again, against those that ran through.

Moments are calls of what computes and of what writes, half-written files, and points in time.
"""

from pathlib import Path

import pytest

from .forked import script
from .scale import cases, tried

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    place = tmp_path_factory.mktemp("killed")
    return script(Path(__file__).with_name("killed_anywhere.py"), place, cases(2, 50), 2020)


@pytest.mark.parametrize("what", ["selections", "trainings"])
def test_what_was_killed_goes_on_to_the_result_of_what_was_not_to_the_bit(report, what):
    assert len(report[what]) == cases(2, 50)
    for case in report[what]:
        tried()
        assert any(was_killed for _, was_killed in case["moments"]), case
        assert case["same"], case
