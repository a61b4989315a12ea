"""Run by test_processes.py under `torchrun` and `accelerate launch`: writes what two processes did as JSON.

torchrun --nproc_per_node 2 tests/training/two_processes.py FOLDER
"""

import gc
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import Trainer
from transformers.utils import logging

from sage_hf import SageTrainer
from tests.cases import bert
from tests.training.runs import difference, losses, plain_args, sage_args, selection_logs, train
from tests.training.test_families import SHORT, trained
from tests.training.test_resume import model, text_rows


class Watched(SageTrainer):
    """Notes the tokens that this process trains on, by optimizer step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.trained = []

    def training_step(self, model, inputs, *args, **kwargs):
        self.trained.append([self.state.global_step, inputs["input_ids"].tolist()])
        return super().training_step(model, inputs, *args, **kwargs)


def run(folder, resume=None, trainer_class=Watched, **changes):
    settings = {"per_device_train_batch_size": 4, "sage_refresh_epochs": 1, **changes}
    return train(model(), sage_args(folder, **settings), text_rows(), trainer_class, resume)


def everyones(value):
    """[rank 0's, rank 1's]."""
    return gather_object([value])


def measure(folder: Path) -> None:
    report = {}
    logging.set_verbosity_error()

    # Parity: all rows kept, against Trainer.
    rows = text_rows()
    theirs = train(bert(), plain_args(folder / "t", per_device_train_batch_size=4), rows, Trainer)
    kept = {"per_device_train_batch_size": 4, "sage_refresh_epochs": 1, "sage_fraction": 1.0}
    ours = train(bert(), sage_args(folder / "o", **kept), rows)
    report["processes"] = ours.args.world_size
    report["parity"] = everyones(difference(theirs.model, ours.model))
    report["parity_losses"] = losses(theirs) == losses(ours)

    report["families"] = {}
    for family in ("dynamic rope", "seq2seq"):
        *wanted, _ = trained(family, plain_args(folder / "t", **SHORT), Trainer)
        settings = {"sage_fraction": 1.0, "sage_warmup_epochs": 0.5, "sage_sketch_size": 4}
        *found, _ = trained(family, sage_args(folder / "o", **SHORT, **settings), SageTrainer)
        same = [one == other for one, other in zip(found, wanted, strict=True)]
        report["families"][family] = everyones(same)

    # The subset: the same on all, each row in one process only.
    for name, settings in {
        "plain": {},
        "inside": {"sage_warmup_epochs": 1.5, "gradient_accumulation_steps": 2, "num_train_epochs": 4.5},
    }.items():
        whole = run(folder / name, save_strategy="steps", save_steps=1, **settings)
        steps = whole.state.max_steps
        numbers = {tuple(tokens): number for number, tokens in enumerate(rows["input_ids"])}
        seen = [[numbers[tuple(row)] for row in batch] for _, batch in whole.trained]
        resumed = []
        for step in range(1, steps + 1):
            torch.manual_seed(step)
            again = run(folder / "again", folder / name / f"checkpoint-{step}", **settings)
            tail = [entry for entry in whole.trained if entry[0] >= step]
            resumed.append(
                {
                    "step": step,
                    "difference": max(everyones(difference(again.model, whole.model))),
                    "same_rows": all(everyones(again.trained == tail)),
                    "same_logs": all(everyones(losses(again) == losses(whole))),
                    "trained": len(again.trained),
                }
            )
        report[name] = {
            "steps": steps,
            "last_rate": whole.lr_scheduler.get_last_lr()[0],
            "indices": everyones(whole.selection.indices.tolist()),
            "batches": everyones(seen),
            "selections": len(selection_logs(whole)),
            "between": everyones(difference(whole.model, run(folder / "b", **settings).model)),
            "resumed": resumed,
        }

    # Processes that choose differently, as devices that round differently may: all follow the main one.
    class Differing(Watched):
        def _selector(self, dataloader):
            selector = super()._selector(dataloader)
            rank, choose = self.args.process_index, selector.choose

            def differently(*given, **told):
                selection = choose(*given, **told)
                if rank > 0:
                    selection.indices = np.setdiff1d(np.arange(len(selection.scores)), selection.indices)
                return selection

            selector.choose = differently
            return selector

    differing = run(folder / "d", trainer_class=Differing)
    report["differing"] = everyones([each.indices.tolist() for each in differing.selections])
    if ours.args.process_index == 0:
        (folder / "report.json").write_text(json.dumps(report))


def main() -> None:
    measure(Path(sys.argv[1]))
    # Wrapped models that hold on to the process group can hang gloo at the exit.
    Accelerator().free_memory()
    gc.collect()
    Accelerator().end_training()


if __name__ == "__main__":
    main()
