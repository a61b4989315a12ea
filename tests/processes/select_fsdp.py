"""Run by test_fsdp.py: selections with a model that FSDP2 spreads over the processes, against the whole model.

torchrun --nproc_per_node 2 tests/processes/select_fsdp.py FOLDER
"""

import gc
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate.utils import gather_object
from datasets import Dataset
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers.utils import logging

from sage_hf import SageConfig, SageError, SageSelector
from sage_hf.passes.processes import launched
from tests.cases import image_rows, llama, pad_tokens, token_rows, vit

CASES = {
    "images": (vit, lambda: image_rows(41), {}),
    "tokens": (llama, lambda: token_rows(61), {"group_by": None}),
    "projected": (vit, lambda: image_rows(41), {"projection": 4}),
    "exact consensus": (vit, lambda: image_rows(41), {"consensus": "exact"}),
    "fewer shards than processes": (vit, lambda: image_rows(7), {}),
    "sketched gradients and embeddings": (vit, lambda: image_rows(41), {"strategy": "auto"}),
    "a stream": (vit, lambda: image_rows(41).to_iterable_dataset(), {}),
}


def spread(model):
    """FSDP2 over every layer and the rest."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList)):
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def choose(model, rows, **changes):
    collator = pad_tokens if "input_ids" in (rows.column_names or ()) else None
    settings = {
        "strategy": "agreement",
        "fraction": 0.3,
        "sketch_size": 8,
        "batch_size": 5,
        "shard_size": 8,
        **changes,
    }
    selector = SageSelector(model, data_collator=collator, config=SageConfig(**settings), progress=False)
    return selector, selector.select(rows)


def measure(folder):
    logging.set_verbosity_error()
    launched()
    report = {}
    for name, (model, rows, changes) in CASES.items():
        _, whole = choose(model(), rows(), **changes)
        selector, parts = choose(spread(model()), rows(), **changes)
        passes = selector._passes
        report[name] = {
            "processes": parts.stats.processes,
            "same": gather_object([bool((parts.scores == whole.scores).all())]),
            "same_rows": gather_object([parts.indices.tolist() == whole.indices.tolist()]),
            "forwards": gather_object([passes.taken]),
            "weights": parts.stats.model_fingerprint == whole.stats.model_fingerprint,
        }
    labels = image_rows(41).to_dict()
    labels["label"][-2] = 99  # the last row is among those that every process checks
    try:
        choose(spread(vit()), Dataset.from_dict(labels), group_by=None)
        report["failed"] = gather_object(["nothing"])
    except SageError as error:
        report["failed"] = gather_object([str(error)])
    if dist.get_rank() == 0:
        (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
    gc.collect()  # what is sharded goes before the processes part
    dist.barrier()
    dist.destroy_process_group()
