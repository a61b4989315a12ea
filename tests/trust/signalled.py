"""Run by test_signals.py: commands of the shell that get a signal at any time, and the same again.

python tests/trust/signalled.py FOLDER COUNT SEED
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

PLACE = Path(sys.argv[1])
os.environ["HF_HOME"] = str(PLACE / "home")

import datasets  # noqa: E402
import psutil  # noqa: E402
import sklearn.linear_model  # noqa: E402, F401
import torch  # noqa: E402
import transformers  # noqa: E402, F401
from datasets import Dataset  # noqa: E402
from transformers import BertConfig, BertModel  # noqa: E402

import sage_hf.selector.label_issues  # noqa: E402
import sage_hf.selector.several_models  # noqa: E402
import sage_hf.training.warmup  # noqa: E402
from examples.python_text import train_tokenizer  # noqa: E402
from sage_hf import Selection  # noqa: E402
from sage_hf.cli.main import main  # noqa: E402
from tests.cases import BERT  # noqa: E402
from tests.trust.forked import Child  # noqa: E402

TEXTS = [f"the {'good' if number % 2 else 'bad'} number {number} {'again ' * (number % 5)}" for number in range(60)]
SMALL = [
    "--seed",
    "3",
    "--device",
    "cpu",
    "--batch-size",
    "5",
    "--warmup-steps",
    "6",
    "--warmup-learning-rate",
    "1e-2",
]
SELECT = ["--fraction", "0.3", "--sketch-size", "8", "--shard-size", "8", *SMALL]
COMMANDS = {
    "a folder": ["select", *SELECT, "-o", "out"],
    "a folder, with workers": ["select", *SELECT, "--num-workers", "2", "-o", "out"],
    "a file": ["select", *SELECT, "-o", "out.jsonl"],
    "label issues": ["label-issues", *SMALL, "-o", "out.csv"],
}
# Short, because workers have sockets there.
TEMPORARY = tempfile.mkdtemp(prefix="signal-")


def prepare():
    tokenizer = train_tokenizer(TEXTS, 280)
    torch.manual_seed(0)
    BertModel(BertConfig(**{**BERT, "vocab_size": len(tokenizer)})).save_pretrained(PLACE / "model")
    tokenizer.save_pretrained(PLACE / "model")
    rows = [{"text": text, "label": number % 2} for number, text in enumerate(TEXTS)]
    Dataset.from_list(rows).to_json(PLACE / "rows.jsonl")
    datasets.disable_progress_bars()


def shell():
    """The command, in a folder of its own."""
    folder = Path(os.environ["FOLDER"])
    os.environ["TMPDIR"], tempfile.tempdir = TEMPORARY, None
    os.chdir(folder)
    sage_hf.training.warmup.WARM_UPS = folder / "warm-ups"
    words = COMMANDS[os.environ["COMMAND"]]
    sys.argv = ["sage-hf", words[0], str(PLACE / "model"), str(PLACE / "rows.jsonl"), *words[1:]]
    main()


def found(folder):
    """What must be equal to the bit; None where there is nothing, or an error where it is half."""
    if (folder / "out").exists():
        selection = Selection.load_from_disk(folder / "out")
        return [selection.scores.tobytes().hex(), selection.indices.tolist()]
    for name in ("out.jsonl", "out.csv"):
        if (folder / name).exists():
            return (folder / name).read_text()
    return None


def left_over(folder, group):
    """Files and processes that should not be there any more."""
    end = time.monotonic() + 8
    while (living := [each.info["name"] for each in psutil.process_iter(["name"]) if _is_of(each, group)]) and (
        time.monotonic() < end
    ):
        time.sleep(0.05)
    files = [str(path) for path in Path(TEMPORARY).rglob("*")]
    return files + [str(path.relative_to(folder)) for path in folder.rglob("*.part")] + living


def _is_of(process, group):
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def measure(count, seed):
    draw, wholes, cases = random.Random(seed), {}, []
    names = list(COMMANDS)
    for number in range(count):
        name = names[number % len(names)]
        if name not in wholes:
            folder = PLACE / f"whole {name}"
            began = time.monotonic()
            child = Child(shell, folder, FOLDER=folder, COMMAND=name)
            assert child.code() == 0, child.says
            wholes[name] = found(folder), time.monotonic() - began
        whole, seconds = wholes[name]
        folder = PLACE / str(number)
        number_of = draw.choice((signal.SIGTERM, signal.SIGINT))
        at = draw.uniform(0.02, 0.95)
        child = Child(shell, folder, FOLDER=folder, COMMAND=name)
        time.sleep(at * seconds)
        # To the process alone, as a scheduler does, or to all of its group, as a terminal.
        os.killpg(child.pid, number_of) if draw.random() < 0.5 else child.signal(number_of)
        code = child.code()
        case = {"command": name, "signal": number_of.name, "at": f"{at:.0%}", "code": code, "says": child.says}
        case["left"] = left_over(folder, child.pid)
        case["output"] = None if (held := found(folder)) is None else held == whole
        again = Child(shell, folder, FOLDER=folder, COMMAND=name) if held is None else None
        case["same"] = (again is None or again.code() == 0) and found(folder) == whole
        case["again"] = "" if again is None or case["same"] else again.says
        case["left"] += [path.name for path in folder.glob(".*")]
        cases.append(case)
        print(case, flush=True)
    (PLACE / "report.json").write_text(json.dumps(cases))


if __name__ == "__main__":
    torch.set_num_threads(1)
    prepare()
    try:
        measure(int(sys.argv[2]), int(sys.argv[3]))
    finally:
        shutil.rmtree(TEMPORARY)
