"""A model that FSDP2 spreads over processes gives the selection of the whole model, each process with its own rows."""

from pathlib import Path

import pytest
import torch

from .launch import report_of
from .select_fsdp import CASES

SCRIPT = Path(__file__).with_name("select_fsdp.py")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not hasattr(torch.cpu.Stream, "record_event"), reason="FSDP2 of this version of torch cannot run on a CPU"
    ),
]


@pytest.fixture(scope="module", params=[2, 3])
def report(request, tmp_path_factory):
    found = report_of(SCRIPT, request.param, tmp_path_factory.mktemp("fsdp"))
    assert found["images"]["processes"] == request.param
    return found


@pytest.mark.parametrize("case", CASES)
def test_scores_and_rows_are_those_of_the_whole_model_to_the_bit(report, case):
    assert all(report[case]["same"])
    assert all(report[case]["same_rows"])
    assert report[case]["weights"]


@pytest.mark.parametrize("case", CASES)
def test_all_processes_make_as_many_forward_passes(report, case):
    assert len(set(report[case]["forwards"])) == 1


def test_the_rows_are_shared_not_repeated(report):
    """41 rows by 5 in shards of 8 are 11 batches, in one pass: 11 for one process alone."""
    assert report["images"]["forwards"][0] == {2: 6, 3: 4}[report["images"]["processes"]]


def test_a_process_that_fails_keeps_in_step_and_takes_the_others_with_it(report):
    *others, last = report["failed"]
    assert "The label is 99" in last
    assert all("failed" in each and "See the message of that process" in each for each in others)
