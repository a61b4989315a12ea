"""A Hub that fails at any request of a push or a download: once, or from then on.

Errors of its own, too many requests, a token that expires, a connection that breaks before, in and after the answer.
"""

from pathlib import Path

import pytest

from .forked import script
from .scale import REPORT, tried

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    place = tmp_path_factory.mktemp("failing")
    return script(Path(__file__).with_name("failing_hub.py"), place, "many" if REPORT else "few")


def test_a_hub_that_fails_once_gets_the_whole_push_in_as_many_commits(report):
    once = [case for case in report["pushes"] if case["is_once"]]
    assert once
    for case in once:
        tried()
        assert case.get("said") == "" and case["same"], case


def test_a_hub_that_fails_from_then_on_leaves_nothing_that_looks_whole_and_the_same_push_goes_on(report):
    ever = [case for case in report["pushes"] if not case["is_once"]]
    assert ever
    for case in ever:
        tried()
        assert "raised" not in case, case
        assert case["said"] or not case["request"], case  # what is on this machine by then is not asked for
        assert case["honest"] and case["same"], case


def test_an_error_says_what_was_and_what_was_not_pushed_and_tells_no_token(report):
    said = [case["said"] for case in [*report["pushes"], *report["downloads"]] if case.get("said")]
    assert any("The rows could not be pushed" in each and "No card tells of them" in each for each in said)
    assert any("The card could not be pushed" in each and "The rows are there" in each for each in said)
    assert any("does not accept the token" in each for each in said)
    assert any("an error of its own" in each for each in said)
    for each in said:
        tried()
        assert "hf_write" not in each and "Bearer" not in each


def test_a_download_that_breaks_off_is_not_taken_as_whole(report):
    assert report["downloads"]
    for case in report["downloads"]:
        tried()
        assert "raised" not in case and case["same"], case
        assert case["said"] == "" or not case["is_once"], case


def test_the_hub_is_left_alone_for_as_long_as_it_asks(report):
    assert 7 <= report["waited"] <= 8
