"""Run by test_choose_shared.py: choices of many kinds from drawn signals, as digests of the rows that are kept.

torchrun --nproc_per_node 2 tests/processes/choose_shared.py FOLDER
"""

import dataclasses
import hashlib
import json
import logging
import sys
from pathlib import Path

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn

from sage_hf import SageConfig
from sage_hf.data.groups import Groups
from sage_hf.data.status import SCORED
from sage_hf.passes.processes import Processes
from sage_hf.selection.doubts import cross_fold
from sage_hf.selection.signals import RowSignals
from sage_hf.selector.gather import shared_choice
from sage_hf.strategies import STRATEGIES, partition, register_strategy
from sage_hf.strategies.jobs import JobRunner
from sage_hf.strategies.partition import pick_within_groups

# Rows of the groups: very unlike, some empty, one larger than a part of 2,048 rows.
UNLIKE, SMALL, LARGE = [2600, 0, 311, 1, 0, 45, 12, 90], [300, 40, 1, 0, 7], [5000]
DEFAULT = {"fraction": 0.1, "strategy": "auto"}
CASES = {
    **{f"strategy {name}": (SMALL, {"strategy": name, "fraction": 0.3}) for name in STRATEGIES},
    "unlike groups": (UNLIKE, DEFAULT),
    "one large group": (LARGE, DEFAULT),
    "more processes than groups": ([30], {**DEFAULT, "fraction": 0.5}),
    "a row": (UNLIKE, {"strategy": "auto", "num_examples": 1}),
    "quotas of nothing": (UNLIKE, {"strategy": "coverage", "num_examples": 4}),
    "groups that are kept whole": (UNLIKE, {"strategy": "coverage", "fraction": 0.2, "balance": "equal"}),
    "nearly all": (UNLIKE, {"strategy": "coverage", "fraction": 0.95}),
    "all": (UNLIKE, {"strategy": "auto", "fraction": 1.0}),
    "no groups": (UNLIKE, {**DEFAULT, "balance": "none"}),
    "a gate of a share": (SMALL, {**DEFAULT, "gate": 0.2}),
}
# Parts of parts, where the constant is smaller.
NESTED = {f"nested {name}": (UNLIKE, {"strategy": name, "fraction": 0.3}) for name in ("auto", "k_center", "craig")}


def signals_of(sizes, has_classes, seed=0):
    """Signals of rows around some centres a group, some without a score, some hard."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int32)
    count = len(codes)
    centres = 2.0 * rng.normal(size=(4 * len(sizes), 24))
    x = (centres[4 * codes + rng.integers(0, 4, count)] + rng.normal(size=(count, 24))).astype(np.float32)
    z = x[:, :16] + rng.normal(size=(count, 16)).astype(np.float32)
    status = np.full(count, SCORED, dtype=np.uint8)
    if count > 100:
        status[rng.integers(0, count, 3)] = SCORED + 1
    return RowSignals(
        Groups("label", codes, [str(group) for group in range(len(sizes))], {}),
        status,
        rng.random(count, dtype=np.float32),
        np.where(rng.random(count) < 0.2, rng.normal(4, 0.5, count), rng.normal(1, 0.3, count)).astype(np.float32),
        labels=codes if has_classes else None,
        norms=rng.random(count, dtype=np.float32),
        sketched=z / np.linalg.norm(z, axis=1, keepdims=True),
        spectrum=np.linspace(1, 0.1, 16).astype(np.float32),
        embeddings=x,
        inputs=x[:, 6:18] if has_classes else x[:, :1],
        el2n=rng.random(count, dtype=np.float32),
        doubts=rng.random(count, dtype=np.float32),
    )


def choose(processes, sizes, changes, has_classes=True):
    """Number of rows kept, their digest and what the gate did."""
    choice = shared_choice(SageConfig(**changes, seed=3), signals_of(sizes, has_classes), processes)
    digest, gate, verdicts = hashlib.sha256(choice.indices.tobytes()), choice.gate, choice.verdicts
    for each in vars(verdicts).values() if verdicts else ():
        digest.update(each.tobytes())
    return [len(choice.indices), digest.hexdigest(), None if gate is None else dataclasses.asdict(gate)]


def register_own(rank, last):
    """Strategies as users write them: one that goes its own way in each process, and some that fail in the last."""

    @register_strategy("own_way", needs=["embeddings"])
    def own_way(candidates, quotas, seed):
        assert len(quotas) == 1
        return candidates.rows[rank : rank + int(quotas[0])]

    def failing(x, count, seed):
        if rank == last:
            raise ValueError("no such rows")
        return np.arange(count)

    @register_strategy("fails_in_a_job", needs=["embeddings"])
    def fails_in_a_job(candidates, quotas, seed):
        return pick_within_groups(candidates, candidates.embeddings, quotas, seed, failing)

    @register_strategy("fails_before_jobs", needs=["embeddings"])
    def fails_before_jobs(candidates, quotas, seed):
        failing(None, 1, 0)
        return STRATEGIES["k_center"](candidates, quotas, seed)

    @register_strategy("fails_after_jobs", needs=["embeddings"])
    def fails_after_jobs(candidates, quotas, seed):
        rows = STRATEGIES["k_center"](candidates, quotas, seed)
        failing(None, 1, 0)
        return rows


def failure_of(name, processes):
    """What each process says of a strategy that fails in one."""
    try:
        choose(processes, SMALL, {"fraction": 0.3, "strategy": name})
    except Exception as error:
        return gather_object([f"{type(error).__name__}: {error}"])
    return gather_object(["nothing"])


class Kept(logging.Handler):
    """Messages of a logger."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def measure(folder):
    processes = Processes(nn.Linear(2, 2))
    report = {"processes": processes.count}
    for has_classes in (True, False):
        for name, (sizes, changes) in CASES.items():
            mine = choose(processes, sizes, changes, has_classes)
            key = f"{name}, {'classes' if has_classes else 'no classes'}"
            report[key] = {"all_alike": all(each == mine for each in gather_object([mine])), "result": mine}
    partition.PART_ROWS = 64
    for name, (sizes, changes) in NESTED.items():
        mine = choose(processes, sizes, changes)
        report[name] = {"all_alike": all(each == mine for each in gather_object([mine])), "result": mine}
    signals = signals_of(UNLIKE, True)
    found = cross_fold([signals.embeddings, signals.inputs], signals.labels, 0, JobRunner(processes))
    mine = hashlib.sha256(found.doubts.tobytes() + found.others.tobytes() + found.confidence.tobytes()).hexdigest()
    report["folds"] = {"all_alike": all(each == mine for each in gather_object([mine])), "result": mine}

    register_own(processes.rank, processes.count - 1)
    mine = choose(processes, [50], {"fraction": 0.2, "strategy": "own_way"})
    report["own way"] = {"all_alike": all(each == mine for each in gather_object([mine])), "result": mine}
    for name in ("fails_in_a_job", "fails_before_jobs", "fails_after_jobs"):
        report[name] = failure_of(name, processes)
    # After a failure the processes still go together.
    mine = choose(processes, SMALL, DEFAULT)
    report["afterwards"] = {"all_alike": all(each == mine for each in gather_object([mine])), "result": mine}

    handler = Kept()
    logging.getLogger("sage_hf").addHandler(handler)
    choose(processes, [*SMALL, 200], {"fraction": 1.0, "strategy": "random"})
    report["warnings"] = gather_object([len(handler.messages)])
    if processes.rank == 0:
        (folder / "report.json").write_text(json.dumps(report))
    PartialState().destroy_process_group()


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
