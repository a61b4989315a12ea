"""Long processes on a terminal, in a pipe and on two processes: what they say, and Ctrl-C in the middle."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification

from examples.python_text import train_tokenizer
from sage_hf import Selection
from sage_hf.passes.resume import FinishedNodes

from ..cases import BERT
from ..processes.launch import free_port
from ..utils.test_bars import on_terminal
from .scale import REPORT, some, tried

ROOT = Path(__file__).parents[2]
TEXTS = [f"the {'good' if number % 2 else 'bad'} number {number} {'again ' * (number % 5)}" for number in range(120)]
SMALL = ["--fraction", "0.3", "--sketch-size", "8", "--batch-size", "5", "--shard-size", "8", "--device", "cpu"]
SHARDS = 15
whole_only = pytest.mark.skipif(not REPORT, reason="each takes seconds: by make trust")
# The shell, whose long lines come soon, and whose shards wait until they are seen.
SCRIPT = """
import os, sys, threading, time
from sage_hf.utils import bars
bars.BAR_DELAY = bars.STAGE_DELAY = bars.LINE_DELAY = 0.0
bars._TICK = 0.02
from sage_hf.passes.run import Passes
run_shard, runs = Passes.run_shard, []
def slow(self, *given):
    runs.append(1)
    if len(runs) == int(os.environ.get("WAIT_AT", "0")):
        threading.Event().wait(None if os.environ.get("FOR_EVER") else 1.0)
    return run_shard(self, *given)
Passes.run_shard = slow
if os.environ.get("HANGS"):
    from sage_hf.utils import interruption
    interruption.stage_of_plan = lambda: (print("cleaning up", flush=True), threading.Event().wait())
sys.argv[0] = "sage-hf"
from sage_hf.cli.main import main
main()
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("long runs")
    tokenizer = train_tokenizer(TEXTS, 280)
    BertForSequenceClassification(BertConfig(**{**BERT, "vocab_size": len(tokenizer)}, num_labels=2)).save_pretrained(
        root / "model"
    )
    tokenizer.save_pretrained(root / "model")
    Dataset.from_list([{"text": text, "label": number % 2} for number, text in enumerate(TEXTS)]).to_json(
        root / "rows.jsonl"
    )
    (root / "shell.py").write_text(SCRIPT)
    return root


def line_of(folder, output, *options, command="select"):
    places = [str(folder / "model"), str(folder / "rows.jsonl"), "-o", str(output)]
    return [
        sys.executable,
        str(folder / "shell.py"),
        command,
        *places,
        *(SMALL if command == "select" else []),
        *options,
    ]


def piped(line, count=1, **environment):
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(count), "--master_port", str(free_port())]
    line = [line[0], *launcher, *line[1:]] if count > 1 else line
    return subprocess.run(
        line, env={**ENVIRONMENT, **environment}, cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def said(text):
    """(number, of how many, name) of the stages that lines tell of, each once."""
    found = re.findall(r"\[(\d+) of (\d+)\] ([a-z][a-zA-Z -]*[a-z])", text)
    return list(dict.fromkeys((int(number), int(count), name) for number, count, name in found))


def test_lines_in_a_pipe_tell_every_stage_in_its_order(folder, tmp_path):
    done = piped(line_of(folder, tmp_path / "out"), WAIT_AT="3")
    assert done.returncode == 0, done.stderr[-3000:]
    stages = said(done.stderr)
    assert [number for number, _, _ in stages] == sorted(number for number, _, _ in stages)
    assert {count for _, count, _ in stages} == {6} and (3, 6, "sketching gradients") in stages
    assert re.search(r"sketching gradients: \d+ of 120 rows, ", done.stderr)
    assert "%|" not in done.stderr and "\r" not in done.stderr


@whole_only
def test_quiet_tells_nothing_but_the_result(folder, tmp_path):
    done = piped(line_of(folder, tmp_path / "out", "--quiet"), WAIT_AT="3")
    assert done.returncode == 0 and said(done.stderr) == []
    assert done.stdout.startswith("Kept 36 of 120 rows.") and len(done.stdout.splitlines()) == 1


@whole_only
def test_what_speaks_against_the_scores_is_told_once(folder, tmp_path):
    for count in (1, 2):
        tried()
        done = piped(line_of(folder, tmp_path / str(count)), count)
        both = " ".join((done.stderr + done.stdout).split())
        assert done.returncode == 0, done.stderr[-3000:]
        assert both.count("he scores mean little") == 1
        assert both.count("of the trainable weights: the gradients say") <= 1


@whole_only
def test_of_two_processes_the_main_one_speaks_of_its_part(folder, tmp_path):
    done = piped(line_of(folder, tmp_path / "out"), 2, WAIT_AT="2")
    assert done.returncode == 0, done.stderr[-3000:]
    told = re.findall(r"sketching gradients \(the part of one of 2 processes\): \d+ of (\d+) rows", done.stderr)
    assert told and set(told) == {"64"}  # 8 of 15 shards: of the main process


def test_ctrl_c_on_a_terminal_says_what_is_kept_and_the_line_that_it_says_goes_on(folder, tmp_path, monkeypatch):
    whole = piped(line_of(folder, tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr[-3000:]
    for at in some([4, 1, 20, 9], 1):
        tried()
        output = tmp_path / f"out {at}"
        for name, value in {**ENVIRONMENT, "WAIT_AT": str(at), "FOR_EVER": "1"}.items():
            monkeypatch.setenv(name, value)
        stage = "sketching gradients" if at <= SHARDS else "scoring and keeping"
        stage = rf"{stage}:[^\r]* {(at - 1) % SHARDS * 8} of 120 rows"
        shown = on_terminal(line_of(folder, output), stop_at=stage)
        text = " ".join(shown.split())
        assert "Traceback" not in text
        if at > 1:
            kept, of = re.search(r"(\d+) of (\d+) shards are kept in ", text).groups()
            name = "sketching*" if at <= SHARDS else "scoring*"
            (nodes,) = (each for each in output.parent.glob(f".{output.name}-unfinished/*/{name}") if each.is_dir())
            assert int(of) == SHARDS and int(kept) == sum(size for _, size in FinishedNodes(nodes).find())
            assert int(kept) in ((at - 1) % SHARDS, (at - 2) % SHARDS)  # the last one may be about to be written
        line = re.search(r"Go on with: sage-hf (select .*)$", shown.replace("\r", ""), re.MULTILINE).group(1)
        again = piped([sys.executable, str(folder / "shell.py"), *shlex.split(line)])
        assert again.returncode == 0, again.stderr[-3000:]
        one, other = (Selection.load_from_disk(each) for each in (tmp_path / "whole", output))
        assert one.scores.tobytes() == other.scores.tobytes() and one.indices.tolist() == other.indices.tolist()


@whole_only
def test_a_second_ctrl_c_ends_at_once(folder, tmp_path):
    process = subprocess.Popen(
        line_of(folder, tmp_path / "out"),
        env={**ENVIRONMENT, "WAIT_AT": "3", "FOR_EVER": "1", "HANGS": "1"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stderr:
            if "sketching gradients: 16 of" in line:
                break
        process.send_signal(signal.SIGINT)
        assert any("cleaning up" in line for line in process.stdout)  # it waits there for ever
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
    finally:
        process.kill()
        process.communicate()


@whole_only
@pytest.mark.parametrize("command", ["label-issues", "compare"])
def test_ctrl_c_in_other_commands_says_how_they_go_on(folder, tmp_path, monkeypatch, command):
    options = ["--test-size", "0.2", "--max-steps", "2", "--seeds", "1"] if command == "compare" else []
    output = tmp_path / ("issues.csv" if command == "label-issues" else "trainings")
    for name, value in {**ENVIRONMENT, "WAIT_AT": "1", "FOR_EVER": "1"}.items():
        monkeypatch.setenv(name, value)
    stage = "reading embeddings" if command == "label-issues" else "sketching gradients"
    shown = on_terminal(line_of(folder, output, *options, command=command), stop_at=stage)
    text = " ".join(shown.split())
    assert "Interrupted in stage" in text and "Traceback" not in text
    start = "Start again with" if command == "label-issues" else "Go on with"
    assert f"{start}: sage-hf {command} {folder / 'model'}".replace(" ", "")[:40] in text.replace(" ", "").replace(
        "'", ""
    )
