"""Which processes share a pass."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sage_hf.passes.processes import Processes, is_sharded, launched


def sharded(attribute):
    model = nn.Linear(3, 2)
    setattr(model.weight, attribute, 1)
    return model


def test_without_a_launch_there_is_one():
    processes = Processes(nn.Linear(3, 2))
    assert (processes.rank, processes.count) == (0, 1)
    assert processes.broadcast_object([[1, 2]]) == [[1, 2]]
    processes.wait()
    processes.raise_if_any_failed(None)
    assert not launched().use_distributed


@pytest.mark.parametrize("attribute", ["ds_id", "_is_flat_param"])
def test_a_sharded_model_takes_all_rows_in_every_process(monkeypatch, attribute):
    third = SimpleNamespace(process_index=2, num_processes=3, device=torch.device("cpu"))
    monkeypatch.setattr("sage_hf.passes.processes.launched", lambda: third)
    monkeypatch.setattr("sage_hf.passes.processes.dist.get_backend", lambda: "gloo")
    shared, alone = Processes(nn.Linear(3, 2)), Processes(sharded(attribute))
    assert (shared.rank, shared.count) == (2, 3)
    assert (alone.rank, alone.count) == (0, 1)
    assert is_sharded(sharded(attribute))
    assert not is_sharded(nn.Linear(3, 2))


def test_an_error_is_raised_where_it_happened():
    with pytest.raises(KeyError, match="mine"):
        Processes(nn.Linear(3, 2)).raise_if_any_failed(KeyError("mine"))


def test_importing_needs_no_process_group():
    assert not torch.distributed.is_initialized()
