"""Run by test_killed_anywhere.py: selections and trainings that are killed at any moment and begun again.

python tests/trust/killed_anywhere.py FOLDER COUNT SEED
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import safetensors.torch
import torch
import transformers.modeling_utils
from transformers import DefaultDataCollator, Trainer, TrainerState
from transformers.trainer_callback import CallbackHandler
from transformers.utils import logging

import sage_hf.hub.files
import sage_hf.passes.gradient_cache
import sage_hf.passes.resume
from sage_hf import SageConfig, SageSelector, SageTrainer, Selection
from sage_hf.data.batches import RowSource
from sage_hf.passes.merge_tree import MergeTree
from sage_hf.passes.processes import Processes, launched
from sage_hf.passes.run import Passes
from sage_hf.strategies.jobs import JobRunner
from tests.cases import bert, image_rows, vit
from tests.processes.select_shared import digest
from tests.training.runs import make, sage_args, weights
from tests.training.test_resume import text_rows
from tests.trust.forked import finish, launch

# What a run does; each call is a moment.
MOMENTS = (
    *((os, name) for name in ("replace", "rename", "fsync", "mkdir", "unlink", "rmdir")),
    *((Passes, name) for name in ("_extract", "run_shard", "_begin", "_run_window")),
    *((MergeTree, name) for name in ("push", "result")),
    *((Processes, name) for name in ("gather", "join", "share", "broadcast_object")),
    (RowSource, "make"),
    (JobRunner, "run"),
    (torch.Tensor, "backward"),
    (torch.autograd, "grad"),
    *((Trainer, name) for name in ("training_step", "save_model", "_save_rng_state", "get_train_dataloader")),
    *((Trainer, name) for name in ("_save_optimizer_and_scheduler", "_load_optimizer_and_scheduler")),
    (SageTrainer, "_select"),
    (CallbackHandler, "call_event"),
    (torch.optim.AdamW, "step"),
    (torch.optim.lr_scheduler.LambdaLR, "step"),
)
# What writes a file, and the argument that names it; half of it may be there when the process goes.
WRITERS = (
    *((module, "save_file", 1) for module in (sage_hf.passes.resume, sage_hf.passes.gradient_cache)),
    (sage_hf.hub.files, "save_file", 1),
    (transformers.modeling_utils, "safe_save_file", 1),
    (safetensors.torch, "save_file", 1),
    (torch, "save", 1),
    (TrainerState, "save_to_json", 1),
    (Path, "write_text", 0),
)


class Watched:
    """Counts the moments of this process, and ends it by SIGKILL at one of them."""

    def __init__(self):
        self.seen, self.at = [], int(os.environ.get("KILL_AT", 0))
        for owner, name in MOMENTS:
            if hasattr(owner, name):
                setattr(owner, name, self.watched(getattr(owner, name), name))
        for owner, name, place in WRITERS:
            if hasattr(owner, name):
                setattr(owner, name, self.watched(getattr(owner, name), f"half of {name}", place))

    def watched(self, function, name, place=None):
        def call(*given, **named):
            self.seen.append(name)
            is_last = len(self.seen) == self.at
            if is_last and place is None:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*given, **named)
            if is_last:
                path = Path(given[place])
                os.truncate(path, path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


def watch():
    """Of the process that is to be killed, and of any where nobody is."""
    mine = os.environ.get("RANK", "0")
    return Watched() if os.environ.get("KILL_RANK", mine) == mine else None


# ------------------------------------------------------------------ what is run
def select():
    watched = watch()
    is_main = launched().is_main_process
    kind = os.environ["KIND"]
    config = SageConfig(
        strategy="auto" if "auto" in kind else "agreement",
        fraction=0.3,
        sketch_size=8,
        batch_size=5,
        shard_size=8,
        consensus="exact" if "exact" in kind else "streaming",
    )
    folder = Path(os.environ["FOLDER"])
    selector = SageSelector(MODEL, config=config, resume_dir=folder / "kept", progress=False)
    selection = selector.select(IMAGES.to_iterable_dataset(num_shards=3) if "stream" in kind else IMAGES)
    if is_main:
        selection.save_to_disk(folder / "selection", overwrite=True)
        selection = Selection.load_from_disk(folder / "selection") if "stream" not in kind else selection
    return {
        "moments": watched.seen if watched else [],
        "result": {
            "sketch": digest(selector.sketch.sketch.numpy()),
            "bound": selector.sketch.error_bound,
            "scores": digest(selection.kept_scores if "stream" in kind else selection.scores),
            "groups": [vars(group) for group in selection.group_table],
            "indices": selection.indices.tolist(),
        },
    }


def train():
    watched = watch()
    folder = Path(os.environ["FOLDER"])
    settings = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 3, "sage_refresh_epochs": 1}
    if "limit" in os.environ["KIND"]:
        settings |= {"save_total_limit": 1}
    args = sage_args(folder, **settings)
    trainer = make(bert(hidden_dropout_prob=0.1), args, TEXTS, data_collator=DefaultDataCollator())
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
    history = [{k: v for k, v in entry.items() if "runtime" not in k and "per_second" not in k and k != "total_flos"}
               for entry in trainer.state.log_history]  # fmt: skip
    return {
        "moments": watched.seen if watched else [],
        "result": {
            "weights": digest(weights(trainer.model).numpy()),
            "history": [entry for entry in history if "train_loss" not in entry],
            "rows": trainer.selection.indices.tolist(),
        },
    }


KINDS = {
    "selections": (select, ("auto", "stream", "agreement", "exact", "auto stream")),
    "trainings": (train, ("all checkpoints", "limit of one checkpoint")),
}


# ---------------------------------------------------------------- the experiment
def killed(place, what, count, seed):
    place.mkdir()
    work, kinds = KINDS[what]
    draw = random.Random(seed)
    wholes, cases = {}, []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        processes = 1 if what == "trainings" else 1 + number % 2
        if (kind, processes) not in wholes:
            folder = place / f"whole {kind} {processes}"
            began = time.monotonic()
            found = finish(launch(work, processes, folder / "run", KIND=kind, FOLDER=folder))
            wholes[kind, processes] = found, time.monotonic() - began
        whole, seconds = wholes[kind, processes]
        expected = wholes.get((kind, 1), wholes[kind, processes])[0][0]["result"]
        case = {"kind": kind, "processes": processes, "moments": []}
        folder, rank = place / f"{number}", draw.randrange(processes)
        folder.mkdir()
        often = draw.choice((1, 1, 1, 2, 3))
        # A run that goes on has less to do, and may end before its moment comes.
        while len(case["moments"]) < often or not any(was_killed for _, was_killed in case["moments"]):
            case["moments"].append(kill_one(work, processes, folder, kind, rank, whole, seconds, draw))
        then = draw.choice((1, processes))
        children = launch(work, then, folder / "again", KIND=kind, FOLDER=folder)
        try:
            case["same"] = all(each["result"] == expected for each in finish(children))
            case["says"] = ""
        except AssertionError as error:
            case["same"], case["says"] = False, str(error)
        cases.append(case)
        print(number, case, flush=True)
    return cases


def kill_one(work, processes, folder, kind, rank, whole, seconds, draw):
    """Runs and kills; what it was at, and whether it had not ended by then."""
    about = {"KIND": kind, "FOLDER": folder, "KILL_RANK": rank}
    if draw.random() < 0.3:  # from outside, at a time
        children = launch(work, processes, folder / "killed", **about)
        at = draw.uniform(0.05, 0.9) * seconds
        time.sleep(at)
        children[rank].kill()
        code, moment = children[rank].code(), f"after {at / seconds:.0%} of the time"
    else:
        names = whole[rank]["moments"]
        kinds = Counter(names)
        name = draw.choice(sorted(kinds))
        at = draw.choice([place for place, each in enumerate(names) if each == name]) + 1
        children = launch(work, processes, folder / "killed", KILL_AT=at, **about)
        # A run that goes on may have fewer moments, and end.
        code = children[rank].code()
        moment = f"{name}, {at} of {len(names)}"
        assert code in (0, -9), children[rank].says
    for child in children:
        child.kill()
    return moment, code == -signal.SIGKILL


if __name__ == "__main__":
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    MODEL, IMAGES, TEXTS = vit(), image_rows(70), text_rows()
    PLACE, (COUNT, SEED) = Path(sys.argv[1]), map(int, sys.argv[2:])
    REPORT = {what: killed(PLACE / what, what, COUNT, SEED) for what in KINDS}
    (PLACE / "report.json").write_text(json.dumps(REPORT))
