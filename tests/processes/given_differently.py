"""Run by test_given_differently.py: selections whose processes are given different things, one after the other.

torchrun --nproc_per_node 2 tests/processes/given_differently.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from accelerate.utils import gather_object
from torch import nn

from sage_hf import SageConfig, SageSelector
from sage_hf.errors import SageError
from sage_hf.passes.processes import launched
from tests.cases import image_rows, vit

FOLDER = Path(sys.argv[1])
CASES = ["nothing", "buffers", "weights", "values", "rows", "strategy", "group_by", "num_examples", "resume_dir"]


def answer(case, is_other):
    model, rows, settings, folder = vit(), image_rows(24), {"num_examples": 6, "strategy": "agreement"}, None
    model.register_buffer("seen", torch.tensor(float(is_other and case == "buffers")))
    if is_other:
        if case == "weights":
            nn.init.ones_(model.classifier.weight)
        if case == "values":
            rows = rows.map(lambda row: {"label": (row["label"] + 1) % 3})
        if case == "rows":
            rows = rows.select(range(20))
        settings |= {"strategy": {"strategy": "random"}, "group_by": {"group_by": None}}.get(case, {})
        settings |= {"num_examples": 7} if case == "num_examples" else {}
        folder = FOLDER / "run" if case == "resume_dir" else None
    selector = SageSelector(model, config=SageConfig(shard_size=6, **settings), progress=False, resume_dir=folder)
    try:
        return selector.select(rows).indices.tolist()
    except SageError as error:
        return f"{type(error).__name__} {error}"


if __name__ == "__main__":
    state = launched()
    report = {case: gather_object([answer(case, state.process_index == 1)]) for case in CASES}
    if state.is_main_process:
        (FOLDER / "report.json").write_text(json.dumps(report))
    state.destroy_process_group()
