"""`sage-hf doctor` tells before a selection what it would meet; `select` says in two lines what it is about to do."""

import json
import logging

import pytest
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification, BertModel
from typer.testing import CliRunner

from examples.python_text import train_tokenizer
from sage_hf import SageConfig, SageSelector, diagnose
from sage_hf.cli.main import app
from sage_hf.cli.models import load_model
from sage_hf.cli.output import speaking
from sage_hf.cli.rows import load_rows

from ..cases import BERT, llama
from ..diagnosis.test_diagnose import MLP, numbers
from .test_main import TEXTS

RUNNER = CliRunner(env={"COLUMNS": "80", "TERM": "dumb"})
SMALL = ["--strategy", "agreement", "--sketch-size", "8", "--batch-size", "8", "--shard-size", "16", "--device", "cpu"]
LABELS = ["good", "bad"] * 12


def run(*arguments):
    return RUNNER.invoke(app, [str(argument) for argument in arguments])


def words(text):
    return " ".join(text.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A language model, an adapter of it, a classifier, one without a head, and rows."""
    root = tmp_path_factory.mktemp("doctor")
    tokenizer = train_tokenizer(TEXTS, 280)
    size = {**BERT, "vocab_size": len(tokenizer)}
    ids = {"label2id": {"bad": 0, "good": 1}, "id2label": {0: "bad", 1: "good"}}
    models = {
        "lm": llama(vocab_size=len(tokenizer)),
        "classifier": BertForSequenceClassification(BertConfig(**size, **ids)),
        "body": BertModel(BertConfig(**size)),
    }
    for name, model in models.items():
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    adapter = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"])
    base = load_model(str(root / "lm"), None).model
    get_peft_model(base, adapter).save_pretrained(root / "adapter")
    rows = Dataset.from_dict({"text": TEXTS, "label": LABELS, "id": list(range(24))})
    rows.to_json(root / "rows.jsonl")
    broken = rows.to_dict()
    broken["label"][2], broken["label"][5], broken["text"][7] = None, "ugly", None
    Dataset.from_dict(broken).to_json(root / "broken.jsonl")
    return root


def test_a_model_and_a_dataset_are_told_at_80_columns(folder):
    result = run("doctor", folder / "classifier", folder / "rows.jsonl", "--fraction", "0.25", *SMALL)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    told = words(result.stdout)
    assert "Columns that are read: text, label; not read: id." in told
    assert "Classes: 2; the smallest is 'bad' (12 rows)" in told and "whole batches" in told
    assert "about a second for 24 rows" in told
    assert "24 rows of" in words(result.stderr)


def test_a_model_alone_is_told(folder):
    result = run("doctor", folder / "lm")
    assert result.exit_code == 0, result.output
    told = words(result.stdout)
    assert "LlamaForCausalLM" in told and "Dataset" not in told
    assert "LlamaForCausalLM for causal-lm." in words(result.stderr)
    adapted = run("doctor", folder / "adapter")
    assert adapted.exit_code == 0 and "Gradients are of 100 % of the trainable weights" in words(adapted.stdout)


def test_json_is_what_python_finds(folder):
    result = run("doctor", folder / "classifier", folder / "rows.jsonl", "--json", "--fraction", "0.25", *SMALL)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    rows = load_rows(str(folder / "rows.jsonl"))
    loaded = load_model(str(folder / "classifier"), rows, device="cpu")
    config = SageConfig(strategy="agreement", fraction=0.25, sketch_size=8, batch_size=8, shard_size=16)
    wanted = diagnose(loaded.model, rows, processing_class=loaded.processing_class, config=config).to_dict()
    for name in ("ok", "model", "rows", "problems"):
        assert told[name] == json.loads(json.dumps(wanted[name]))


def test_all_faults_are_told_and_the_exit_code_is_1(folder):
    for as_json in ([], ["--json"]):
        result = run("doctor", folder / "classifier", folder / "broken.jsonl", "--fraction", "0.25", *SMALL, *as_json)
        assert result.exit_code == 1
        told = words(result.stdout)
        for what in ("The label is null", "The model knows no class 'ugly'", "but a text is needed"):
            assert what in told
        assert "Traceback" not in result.output


def test_a_new_head_is_made_of_the_rows_that_have_a_label_and_told(folder):
    task = ["--task", "sequence-classification"]
    result = run("doctor", folder / "body", folder / "broken.jsonl", *task, *SMALL)
    told = words(result.stdout)
    assert result.exit_code == 1 and "The label is null" in told
    assert "The checkpoint lacks 2 weights" in told and "--warmup-steps" in told
    alone = run("doctor", folder / "body", *task)
    assert alone.exit_code == 1 and "Name the dataset too" in words(alone.output)
    assert run("doctor", folder / "body").exit_code == 1


@pytest.mark.parametrize("arguments", [("nowhere",), ("lm", "nowhere.jsonl"), ("lm", "rows.jsonl", "--split", "a b")])
def test_wrong_paths_are_errors_of_ours(folder, arguments):
    model, *others = arguments
    others = [folder / each if each.endswith(".jsonl") else each for each in others]
    result = run("doctor", folder / model, *others)
    assert result.exit_code == 1 and "Error" in result.stderr and "What to do" in result.stderr
    assert "Traceback" not in result.output


def test_wrong_usage_and_help():
    assert run("doctor").exit_code == 2
    assert run("doctor", "a", "b", "--warmup-steps", "3").exit_code == 2  # nothing is trained
    told = words(run("--help").output)
    assert "doctor Check a model, and a dataset if one is named" in told.replace("│ ", "").replace(" │", "")
    for option in ("--json", "--split", "--task", "--fraction", "--target-modules"):
        assert option in run("doctor", "--help").output


# ------------------------------------------------------------------------- select
def test_a_selection_says_in_two_lines_what_it_is_about_to_do(folder, tmp_path):
    arguments = ["select", folder / "lm", folder / "rows.jsonl", "--fraction", "0.25", *SMALL]
    result = run(*arguments, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    told = words(result.stderr)
    # Of 21 tensors, those of seven linear layers in each of two blocks.
    assert "Gradients of 14 of 21 tensors (36 % of the trainable weights), rows 5,120 wide" in told
    assert "s: whole batches of 8 rows." in told and "Gradients of" not in result.stdout
    off = run(*arguments, "--no-check-gradients", "-o", tmp_path / "off")
    assert "Not checked: --check-gradients is off." in words(off.stderr)
    cached = [*arguments, "--cache-gradients", "float32", "--cache-dir", tmp_path / "cache"]
    assert "Check passed in" in words(run(*cached, "-o", tmp_path / "first").stderr)
    assert "All gradient rows are in the cache" in words(run(*cached, "-o", tmp_path / "second").stderr)
    streamed = run(*arguments, "--streaming", "-o", tmp_path / "stream")
    assert "Gradients of 14 of 21 tensors" in words(streamed.stderr) and "Check passed in" in words(streamed.stderr)


def test_rows_that_are_taken_one_at_a_time_are_said_with_the_reason_and_nothing_is_left_behind(
    caplog, capsys, monkeypatch
):
    config, ours = SageConfig(fraction=0.25, strategy="agreement", sketch_size=8), logging.getLogger("sage_hf")
    monkeypatch.setenv("COLUMNS", "200")
    selector = SageSelector(MLP(mixes=True), config=config, progress=False)
    with speaking():
        selector.fit(numbers())
    assert "one at a time, which is slow: out does not see the rows in the order" in capsys.readouterr().err
    assert ours.handlers == [] and ours.level == logging.getLogger("sage_hf.selector.brief").level == logging.NOTSET
    caplog.set_level(logging.INFO, logger="sage_hf")
    SageSelector(MLP(), config=config, progress=False).fit(numbers())
    assert "whole batches of 128 rows" in caplog.text
