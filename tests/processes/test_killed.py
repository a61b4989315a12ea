"""A selection killed while it writes goes on from its last finished shard, also with other numbers of processes."""

from pathlib import Path

import pytest

from . import launch
from .launch import report_of

SCRIPT = Path(__file__).with_name("select_killed.py")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    report = report_of(SCRIPT, 1, folder, folder / "checkpoint")
    assert report["ran"] == 18
    return report["result"]


@pytest.mark.parametrize(
    ("first", "rank", "at", "then"),
    [(1, 0, 1, 1), (1, 0, 5, 2), (2, 1, 3, 2), (2, 0, 2, 1), (2, 1, 7, 3)],  # one process: more in tests/trust
    ids=lambda value: str(value),
)
def test_a_killed_run_ends_as_one_that_was_not(tmp_path, monkeypatch, whole, first, rank, at, then):
    kill_and_go_on(tmp_path, monkeypatch, whole, first, rank, at, then)


@pytest.fixture(scope="module")
def whole_stream(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    launch.ENVIRONMENT["STREAM"] = "1"
    yield report_of(SCRIPT, 1, folder, folder / "checkpoint")["result"]
    del launch.ENVIRONMENT["STREAM"]


@pytest.mark.parametrize(("first", "rank", "at", "then"), [(1, 0, 3, 1), (2, 0, 3, 3), (1, 0, 11, 2)])
def test_a_killed_run_over_a_stream_does_so_too(tmp_path, monkeypatch, whole_stream, first, rank, at, then):
    kill_and_go_on(tmp_path, monkeypatch, whole_stream, first, rank, at, then)


def kill_and_go_on(tmp_path, monkeypatch, whole, first, rank, at, then):
    checkpoint = tmp_path / "checkpoint"
    monkeypatch.setitem(launch.ENVIRONMENT, "KILL_AT", str(at))
    monkeypatch.setitem(launch.ENVIRONMENT, "KILL_RANK", str(rank))
    killed = launch.launch(SCRIPT, first, tmp_path, checkpoint)
    assert killed.returncode != 0
    assert not (tmp_path / "report.json").exists()
    assert list(checkpoint.rglob("*.part"))  # the file that it was at
    for name in ("KILL_AT", "KILL_RANK"):
        monkeypatch.delitem(launch.ENVIRONMENT, name)
    report = report_of(SCRIPT, then, tmp_path, checkpoint)
    assert report["result"] == whole
    if then == 1:
        assert report["ran"] <= 18 - (at - 1)  # of the killed process alone
