"""Processes that are given different things are told so before the first row, by name, and none waits for another."""

from pathlib import Path

import pytest

from .launch import report_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return report_of(Path(__file__).with_name("given_differently.py"), 2, tmp_path_factory.mktemp("given"))


@pytest.mark.parametrize("case", ["nothing", "buffers"])
def test_the_same_things_give_the_same_rows(report, case):
    main, other = report[case]
    assert main == other and len(main) == 6


@pytest.mark.parametrize(
    ("case", "named"),
    [
        *(("weights", "model"), ("values", "dataset"), ("rows", "dataset")),
        *((name, name) for name in ("strategy", "group_by", "num_examples", "resume_dir")),
    ],
)
def test_what_differs_is_named(report, case, named):
    main, other = report[case]
    assert other.startswith("ConfigError Process 1 of 2 was given other values than the main process: ")
    assert f"[{named}]" in other
    assert main.startswith("SageError Process 1 of 2 failed")
