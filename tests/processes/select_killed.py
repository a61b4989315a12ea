"""Run by test_killed.py: a selection that is killed, by SIGKILL, at a file that it writes.

KILL_AT=3 KILL_RANK=1 torchrun --nproc_per_node 2 tests/processes/select_killed.py FOLDER CHECKPOINT
"""

import gc
import json
import os
import signal
import sys
from pathlib import Path

from accelerate import Accelerator
from transformers.utils import logging

import sage_hf.passes.resume
from sage_hf import SageConfig, SageSelector
from sage_hf.passes.processes import launched
from sage_hf.passes.run import Passes
from tests.cases import image_rows, vit
from tests.processes.select_shared import digest


def kill_while_writing(at: int) -> None:
    """Half of the file is written when the process goes."""
    module = sage_hf.passes.resume
    save, written = module.save_file, []

    def save_or_die(tensors, path, metadata):
        save(tensors, path, metadata)
        written.append(path)
        if len(written) == at:
            content = Path(path).read_bytes()
            Path(path).write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    module.save_file = save_or_die


def main() -> None:
    logging.set_verbosity_error()
    folder, checkpoint = Path(sys.argv[1]), Path(sys.argv[2])
    rank = launched().process_index
    if "KILL_AT" in os.environ and rank == int(os.environ["KILL_RANK"]):
        kill_while_writing(int(os.environ["KILL_AT"]))
    ran, run = [], Passes.run_shard
    Passes.run_shard = lambda self, *given: (ran.append(1), run(self, *given))[1]
    config = SageConfig(
        strategy="agreement",
        fraction=0.3,
        sketch_size=8,
        batch_size=5,
        shard_size=8,
        consensus=os.environ.get("CONSENSUS", "streaming"),
    )
    selector = SageSelector(vit(), config=config, resume_dir=checkpoint, progress=False)
    rows = image_rows(70)
    selection = selector.select(rows.to_iterable_dataset(num_shards=3) if "STREAM" in os.environ else rows)
    if rank == 0:
        result = {
            "sketch": digest(selector.sketch.sketch.numpy()),
            "bound": selector.sketch.error_bound,
            "scores": digest(selection.scores),
            "means": [selection.stats.mean_loss, selection.stats.mean_score],
            "groups": [vars(group) for group in selection.group_table],
            "indices": selection.indices.tolist(),
        }
        (folder / "report.json").write_text(json.dumps({"ran": len(ran), "result": result}))


if __name__ == "__main__":
    main()
    gc.collect()
    Accelerator().end_training()
