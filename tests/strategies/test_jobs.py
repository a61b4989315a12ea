import threading
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info

from sage_hf.strategies.jobs import Job, JobRunner, share_out


@pytest.fixture
def torch_threads():
    """Sets the number of torch's threads, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def job(values, cost=1.0):
    array = np.asarray(values)
    return Job(lambda: array, array.shape, cost)


@given(st.lists(st.floats(0, 1e6), max_size=40), st.integers(1, 6))
def test_every_job_is_taken_once_and_nobody_has_much_more_than_another(costs, count):
    shares = share_out(costs, count)
    assert sorted(place for share in shares for place in share) == list(range(len(costs)))
    loads = [sum(costs[place] for place in share) for share in shares]
    assert max(loads) - min(loads) <= max(costs, default=0.0) * (1 + 1e-9)
    assert shares == share_out(costs, count)


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 9)), max_size=12))
def test_results_come_in_the_order_of_the_jobs_and_in_their_shapes(given):
    jobs = [job(np.full((rows, 2), place), cost) for place, (rows, cost) in enumerate(given)]
    found = JobRunner().run(jobs, np.int64)
    assert [each.shape for each in found] == [each.shape for each in jobs]
    assert all((each == place).all() for place, each in enumerate(found))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_results_have_the_type_that_is_asked_for(dtype):
    (found,) = JobRunner().run([job([3, 200])], dtype)
    assert found.dtype == dtype and found.tolist() == [3, 200]


@pytest.mark.parametrize("count", [1, 3])
def test_a_job_has_one_thread_and_the_threads_are_given_back(torch_threads, count):
    torch_threads(count)
    KMeans(2, n_init=1).fit(np.eye(4))  # its libraries are loaded
    before = threadpool_info()

    def threads():
        return np.array([max(pool["num_threads"] for pool in threadpool_info())])

    found = JobRunner().run([Job(threads, (1,), 1.0)] * 5, np.int64)
    assert np.concatenate(found).tolist() == [1] * 5
    assert threadpool_info() == before


def test_jobs_run_side_by_side_in_as_many_threads_as_torch_has(torch_threads):
    torch_threads(3)
    all_here = threading.Barrier(3, timeout=60)

    def wait():
        all_here.wait()
        return np.zeros(1)

    assert len(JobRunner().run([Job(wait, (1,), 1.0)] * 3, np.float64)) == 3


@pytest.mark.parametrize("count", [1, 3])
def test_a_job_that_fails_ends_the_run_with_its_error_and_the_next_run_is_whole(torch_threads, count):
    torch_threads(count)

    def fail():
        raise ValueError("no such rows")

    runner, before = JobRunner(), list(warnings.filters)
    with pytest.raises(ValueError, match="no such rows"), runner.agreed():
        runner.run([job([1]), Job(fail, (1,), 1.0), job([2])], np.int64)
    assert warnings.filters == before
    assert [each.tolist() for each in runner.run([job([1]), job([2])], np.int64)] == [[1], [2]]


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_result_of_another_size_than_was_said_is_an_error(size):
    with pytest.raises(ValueError, match="reshape"):
        JobRunner().run([Job(lambda: np.zeros(size), (2,), 1.0)], np.float64)


def test_no_jobs_have_no_results():
    assert JobRunner().run([], np.float32) == []
