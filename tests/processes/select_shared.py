"""Run by test_shared.py: selections of several kinds, as digests of everything that must be equal to the bit.

torchrun --nproc_per_node 2 tests/processes/select_shared.py FOLDER
"""

import gc
import hashlib
import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import gather_object
from datasets.distributed import split_dataset_by_node
from transformers.utils import logging

from sage_hf import SageConfig, SageError, SageSelector
from tests.cases import image_rows, llama, pad_tokens, token_rows, vit

CASES = {
    "images": (vit, lambda: image_rows(70), {}),
    "tokens": (llama, lambda: token_rows(61), {"group_by": None}),
    "exact consensus": (vit, lambda: image_rows(70), {"consensus": "exact"}),
    "sketched gradients and embeddings": (vit, lambda: image_rows(70), {"strategy": "auto"}),
    "clusters": (llama, lambda: token_rows(61), {"group_by": "cluster", "num_clusters": 3, "strategy": "coverage"}),
    "one shard": (vit, lambda: image_rows(20), {"shard_size": 64}),
    "a small sketch": (vit, lambda: image_rows(70), {"sketch_size": 4}),
    "equal groups": (vit, lambda: image_rows(70), {"balance": "equal", "num_examples": 9, "fraction": None}),
}


def digest(*arrays) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


STREAMS = {
    "a stream": {},
    "a number of a stream": {"num_examples": 9, "fraction": None, "balance": "equal"},
    "a stream of two shards": {"shard_size": 64},
    "a stream by lot": {"strategy": "random"},
}


def choose(model, rows, **changes):
    settings = {
        "strategy": "agreement",
        "fraction": 0.3,
        "sketch_size": 8,
        "batch_size": 5,
        "shard_size": 8,
        **changes,
    }
    collator = pad_tokens if "input_ids" in (rows.column_names or ()) else None
    selector = SageSelector(model, data_collator=collator, config=SageConfig(**settings), progress=False)
    return selector, selector.select(rows)


def measure(folder: Path) -> None:
    logging.set_verbosity_error()
    report = {}
    for name, (model, rows, changes) in CASES.items():
        selector, selection = choose(model(), rows(), **changes)
        mine = {
            "sketch": digest(selector.sketch.sketch.numpy()),
            "bound": selector.sketch.error_bound,
            "energy": selector.sketch.energy,
            "directions": digest(selector.directions.numpy()),
            "scores": digest(selection.scores),
            "losses": digest(selection.losses),
            "status": digest(selection.status),
            "indices": selection.indices.tolist(),
        }
        every = gather_object([mine])
        report[name] = {"all_alike": all(each == mine for each in every), "result": mine}
    report["processes"] = selection.stats.processes
    for name, changes in STREAMS.items():
        selector, selection = choose(vit(), image_rows(70).to_iterable_dataset(num_shards=3), **changes)
        mine = {
            "sketch": digest(selector.sketch.sketch.numpy()),
            "directions": digest(selector.directions.numpy()),
            "scores": digest(selection.scores),
            "indices": selection.indices.tolist(),
            "groups": [vars(group) for group in selection.group_table],
            "rows": [row["label"] for row in selection.dataset],
        }
        report[name] = {"all_alike": all(each == mine for each in gather_object([mine])), "result": mine}
    # Processes that read different streams would wait for each other for ever.
    part = split_dataset_by_node(
        image_rows(70).to_iterable_dataset(), PartialState().process_index, PartialState().num_processes
    )
    try:
        choose(vit(), part)
        report["parted"] = gather_object(["nothing"])
    except SageError as error:
        report["parted"] = gather_object([str(error)])
    # A row that is set aside by one process is set aside in all.
    broken = image_rows(40)
    pixels = torch.tensor(broken["pixel_values"])
    pixels[3], pixels[33] = torch.nan, torch.inf
    broken = broken.remove_columns("pixel_values").add_column("pixel_values", pixels.tolist())
    _, selection = choose(vit(), broken)
    report["set_aside"] = gather_object([sorted(selection.set_aside)])
    # A process that fails takes all with it, with a message.
    rows = image_rows(40).to_list()
    rows[-2]["label"] = 99
    labels = image_rows(40).cast_column("label", image_rows(40).features["label"]).to_dict()
    labels["label"][-2] = 99  # the last row is among those that every process checks
    from datasets import Dataset

    try:
        choose(vit(), Dataset.from_dict(labels), group_by=None)
        report["failed"] = gather_object(["nothing"])
    except SageError as error:
        report["failed"] = gather_object([str(error)])
    if Accelerator().is_main_process:
        (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
    gc.collect()
    Accelerator().end_training()
