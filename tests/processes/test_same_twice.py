"""The same command gives the same rows: twice, stopped and gone on with, in one and two processes; also for others."""

import json
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, BertModel
from typer.testing import CliRunner

import sage_hf.training.warmup
from examples.python_text import train_tokenizer
from sage_hf import Selection, find_label_issues
from sage_hf.cli.main import app
from sage_hf.passes.run import Passes
from sage_hf.utils.fingerprint import model_fingerprint

from ..cases import BERT
from . import launch

SCRIPT = Path(__file__).with_name("shell_killed.py")
RUNNER = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
SMALL = ["--fraction", "0.3", "--seed", "3", "--device", "cpu"]
SMALL += ["--sketch-size", "8", "--batch-size", "5", "--shard-size", "8"]
WARM = ["--warmup-steps", "6", "--warmup-learning-rate", "1e-2"]
TEXTS = [f"the {'good' if number % 2 else 'bad'} number {number} {'again ' * (number % 5)}" for number in range(40)]
SHARDS = 5
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints with and without a head, with dropout, and rows."""
    root = tmp_path_factory.mktemp("twice")
    tokenizer = train_tokenizer(TEXTS, 280)
    config = BertConfig(**{**BERT, "vocab_size": len(tokenizer)}, num_labels=2)
    for name, kind in (("headless", BertModel), ("headed", BertForSequenceClassification)):
        kind(config).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    rows = [{"text": text, "label": number % 2} for number, text in enumerate(TEXTS)]
    Dataset.from_list(rows).to_json(root / "rows.jsonl")
    return root


def select(folder, model, output, *options, rows="rows.jsonl"):
    """In this process, whose random states are others at every call."""
    arguments = ["select", folder / model, folder / rows, "-o", output, *SMALL, *options]
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def shell(count, script, *arguments, **environment):
    """In so many processes of its own."""
    before = dict(launch.ENVIRONMENT)
    launch.ENVIRONMENT.update(environment)
    try:
        return launch.launch(script, count, *arguments)
    finally:
        launch.ENVIRONMENT.clear()
        launch.ENVIRONMENT.update(before)


def found(output):
    """All of a selection that must be equal to the bit."""
    selection = Selection.load_from_disk(output)
    scores = (selection.scores.tobytes(), selection.losses.tobytes(), selection.indices.tolist())
    return selection.stats.model_fingerprint, *scores


@pytest.mark.parametrize(
    ("model", "options"),
    [("headless", []), ("headless", WARM), ("headed", []), ("headed", ["--warmup-fraction", "0.5"])],
    ids=["new head", "new head, warmed up", "head", "head, warmed up"],
)
def test_the_same_command_gives_the_same_rows(folder, tmp_path, monkeypatch, model, options):
    for number in range(2):  # neither reads what the other kept
        monkeypatch.setattr(sage_hf.training.warmup, "WARM_UPS", tmp_path / f"warm-ups {number}")
        select(folder, model, tmp_path / str(number), *options)
    select(folder, model, tmp_path / "kept", *options)
    assert found(tmp_path / "0") == found(tmp_path / "1") == found(tmp_path / "kept")


def test_another_seed_is_another_head(folder, tmp_path):
    for seed in ("0", "1"):
        select(folder, "headless", tmp_path / seed, "--seed", seed)
    assert found(tmp_path / "0")[0] != found(tmp_path / "1")[0]


@pytest.mark.parametrize("options", [[], WARM], ids=["cold", "warmed up"])
def test_two_processes_give_the_rows_of_one(folder, tmp_path, options):
    select(folder, "headless", tmp_path / "one", *options)
    arguments = ["-m", "sage_hf", "select", folder / "headless", folder / "rows.jsonl", "-o", tmp_path / "two"]
    done = shell(2, *arguments, *SMALL, *options, HF_DATASETS_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert found(tmp_path / "two") == found(tmp_path / "one")
    assert len(list(tmp_path.glob("cache/sage_hf/warm-ups/*"))) == bool(options)


@pytest.mark.parametrize(
    ("first", "stop", "at", "by", "warmed", "done"),
    [
        (1, "step", 3, "SIGKILL", False, 0),
        (1, "warm-up's file", 1, "SIGKILL", False, 0),
        (1, "shard", 1, "SIGKILL", True, 0),
        (1, "shard", 4, "SIGINT", True, 3),
        (1, "shard's file", SHARDS + 2, "SIGKILL", True, SHARDS + 1),
        (2, "step", 3, "SIGKILL", False, 0),
        (2, "shard", 4, "SIGKILL", True, None),  # how far the other one was is a matter of luck
    ],
)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    folder, tmp_path, monkeypatch, first, stop, at, by, warmed, done
):
    ran, run_shard = [], Passes.run_shard
    monkeypatch.setattr(Passes, "run_shard", lambda self, *given: (ran.append(1), run_shard(self, *given))[1])
    select(folder, "headless", tmp_path / "whole", *WARM)
    whole = len(ran)
    place = {"HF_DATASETS_CACHE": str(tmp_path / "cache"), "STOP_IN": stop, "STOP_AT": str(at)}
    arguments = ["select", folder / "headless", folder / "rows.jsonl", "-o", tmp_path / "out", *SMALL, *WARM]
    stopped = shell(first, SCRIPT, *arguments, **place, STOP_BY=by, STOP_RANK=str(first - 1))
    assert stopped.returncode == (130 if by == "SIGINT" else -9 if first == 1 else 1), stopped.stderr[-3000:]
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(sage_hf.training.warmup, "WARM_UPS", tmp_path / "cache" / "sage_hf" / "warm-ups")
    told = select(folder, "headless", tmp_path / "out", *WARM)
    assert ("reused from an earlier run" in told) == warmed
    again = len(ran) - whole
    assert again == whole - done if done is not None else again < whole
    assert found(tmp_path / "out") == found(tmp_path / "whole")
    assert not (tmp_path / ".out-unfinished").exists()
    assert len(list((tmp_path / "cache" / "sage_hf" / "warm-ups").iterdir())) == 1  # nothing half-written is left


def test_other_commands_go_on_from_the_same_weights(folder, tmp_path, monkeypatch):
    select(folder, "headless", tmp_path / "out", *WARM)
    monkeypatch.setattr("sage_hf.training.warmup.take_steps", None)
    weights = []

    def watched(model, *given, **named):
        weights.append(model_fingerprint(model))
        return find_label_issues(model, *given, **named)

    monkeypatch.setattr("sage_hf.selector.label_issues.find_label_issues", watched)
    arguments = [folder / "headless", folder / "rows.jsonl", *WARM, "--seed", "3", "--device", "cpu"]
    result = RUNNER.invoke(app, ["label-issues", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert "reused from an earlier run" in result.output
    assert weights == [found(tmp_path / "out")[0]]


def test_a_comparison_goes_on_from_the_same_weights(folder, tmp_path, monkeypatch):
    rows = Dataset.from_json(str(folder / "rows.jsonl"))
    for split, part in (("train", rows), ("test", rows.select(range(0, 40, 3)))):
        part.to_parquet(tmp_path / "data" / f"{split}.parquet")
    select(folder, "headless", tmp_path / "out", *WARM, rows=tmp_path / "data")
    monkeypatch.setattr("sage_hf.training.warmup.take_steps", None)
    arguments = [
        folder / "headless",
        tmp_path / "data",
        "--test-split",
        "test",
        *WARM,
        "--device",
        "cpu",
        "--seed",
        "3",
    ]
    arguments += ["--max-steps", "1", "--seeds", "1", "--strategies", "random", "-o", tmp_path / "compare"]
    result = RUNNER.invoke(app, ["compare", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "compare" / "comparison.json").read_text())["settings"]
    assert found(tmp_path / "out")[0] in settings["model that scored"]
