"""Run by test_compare_shared.py: a comparison in several processes, and the same call again.

torchrun --nproc_per_node 2 tests/processes/compare_shared.py FOLDER
"""

import gc
import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.numpy import load_file
from torch import nn
from transformers.utils import logging

from sage_hf import SageConfig, SageError, compare
from sage_hf.comparison.experiment import Experiment
from tests.cases import image_rows, llama, pad_tokens, token_rows, vit


def build(seed):
    model = vit()
    torch.manual_seed(seed)
    nn.init.normal_(model.classifier.weight)
    return model


def measure(folder: Path) -> None:
    logging.set_verbosity_error()
    ran, real = [], Experiment.run
    Experiment.run = lambda self, rows, seed: (ran.append(1), real(self, rows, seed))[1]
    # Steps too small to change a weight: what is reached is then the fresh weights', whatever a batch holds.
    settings = {
        "config": SageConfig(sketch_size=8, batch_size=5, shard_size=8),
        "training_args": {"max_steps": 2, "learning_rate": 1e-30, "per_device_train_batch_size": 4},
        "fractions": [0.1, 0.3],
        "seeds": 2,
        "progress": False,
    }
    rows = (image_rows(60), image_rows(31, seed=7))
    about = {"model_init": build, "output_dir": folder / "images", **settings}
    mine = compare(vit(), *rows, **about)
    first = len(ran)
    again = compare(vit(), *rows, **about)
    tokens = (token_rows(40, seed=1), token_rows(13, seed=2))
    about = {"model_init": lambda seed: llama(), "data_collator": pad_tokens, **settings, "strategies": ["random"]}
    loss = compare(llama(), *tokens, **about)
    try:
        compare(
            vit(),
            *rows,
            **{**settings, "training_args": {"max_steps": 3}},
            model_init=build,
            output_dir=folder / "images",
        )
        refused = "nothing"
    except SageError as error:
        refused = str(error)
    told = json.dumps([mine.to_dict()["runs"], again.to_dict()["runs"], loss.to_dict()["runs"]])
    every = gather_object([told])
    report = {
        "processes": Accelerator().num_processes,
        "alike": len(set(every)) == 1,
        "runs": mine.to_dict()["runs"],
        "again": again == mine,
        "trained": [first, len(ran)],
        "losses": [run.metrics["loss"] for run in loss.runs],
        "refused": gather_object([refused]),
    }
    if Accelerator().is_main_process:
        held = load_file(folder / "images" / "rows.safetensors")
        report["rows"] = {name: rows.tolist() for name, rows in held.items() if len(rows)}
        (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
    gc.collect()
    Accelerator().end_training()
