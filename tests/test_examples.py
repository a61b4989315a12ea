"""The examples run as they stand."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from datasets import load_from_disk

from examples.python_text import build_llama, docstring_rows, topic_classes, topic_rows, train_tokenizer
from examples.running import with_wrong_labels
from sage_hf import SageConfig, SageSelector, Selection

ROOT = Path(__file__).parents[1]


def run(*arguments, **settings):
    settings = {"timeout": 300, **settings}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, **settings)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_real_text_is_there_without_network():
    topics, documented = topic_rows(), docstring_rows(limit=300)
    assert len(topics) > 1000
    assert len(set(topics["topic"])) > 50
    assert len(documented) == 300
    assert all(
        prompt.strip() and completion.strip() for prompt, completion in zip(*documented[:].values(), strict=True)
    )


def test_docstrings_are_the_same_rows_in_every_process():
    code = "from examples.python_text import docstring_rows; print(*map(repr, docstring_rows()))"
    said = [run("-c", code, check=True).stdout for _ in range(2)]
    assert said[0] == said[1] and len(said[0]) > 100_000


def test_a_causal_language_model_selects_from_prompts_and_completions():
    rows = docstring_rows(limit=60)
    tokenizer = train_tokenizer(rows["completion"], 400)
    config = SageConfig(fraction=0.25, sketch_size=16, batch_size=8, shard_size=32, max_length=64)
    selection = SageSelector(build_llama(len(tokenizer), 16), processing_class=tokenizer, config=config).select(rows)
    assert len(selection) == 15
    assert selection.group_names == ["all"]
    assert not selection.set_aside or set(selection.set_aside.values()) == {"gradient exactly zero"}


@pytest.mark.slow
def test_the_text_example_runs_from_the_shell(tmp_path):
    result = run(
        *("examples/select_text.py", "--rows", "120", "--warmup-steps", "3", "--group-by-topic"),
        *("--output", str(tmp_path / "out")),
    )
    assert result.returncode == 0, result.stderr
    assert "Kept 12 of 120 rows" in result.stdout
    assert "Lowest agreement" in result.stdout
    assert len(load_from_disk(str(tmp_path / "out"))) == 12
    assert len(Selection.load_from_disk(tmp_path / "out").scores) == 120


@pytest.mark.parametrize(
    "script", ["select_text.py", "benchmarks/speed.py", "benchmarks/memory.py", "benchmarks/check.py"]
)
def test_every_script_has_a_help_text(script):
    result = run(f"examples/{script}", "--help")
    assert result.returncode == 0, result.stderr
    assert "python examples/" in result.stdout


# ------------------------------------------------------- training examples
# Enough to pass through every stage; without these they take their time (see their heads).
SHORT = {
    "run_image_classification.py": ["--num_train_epochs", "2", "--sage_warmup_epochs", "0.5"],
    "run_classification.py": ["--num_train_epochs", "2", "--sage_warmup_epochs", "0.5", "--sage_refresh_epochs", "1"],
    "run_sft.py": ["--num_train_epochs", "2", "--pretraining_steps", "3", "--rows", "160", "--test_share", "0.2"],
}
LAUNCHERS = {
    "python": [],
    # What one process a GPU is elsewhere.
    "accelerate launch": [
        *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("script", SHORT)
def test_training_examples_run_to_a_model_and_its_card(tmp_path, script, launcher):
    port = [] if launcher == "python" else ["--main_process_port", str(free_port())]
    output = ["--output_dir", str(tmp_path), "--use_cpu", "--disable_tqdm", "True"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = run(*LAUNCHERS[launcher], *port, f"examples/{script}", *output, *SHORT[script], env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    card = (tmp_path / "README.md").read_text()
    assert "How the training rows were chosen" in card
    assert (tmp_path / "sage" / "scores.png").exists()
    assert list(tmp_path.glob("*model.safetensors"))
    # Once, whoever many processes there are.
    assert result.stdout.count("Model, card and picture are in") == 1
    assert len(re.findall(r"Kept [\d,]+ of [\d,]+ rows", result.stdout)) == 1


@pytest.mark.parametrize("script", SHORT)
def test_training_examples_tell_their_arguments(script):
    result = run(f"examples/{script}", "--help")
    assert result.returncode == 0
    assert "--sage_warmup_epochs" in result.stdout
    assert "--dataset_name" in result.stdout


def test_training_examples_take_a_yaml_file(tmp_path):
    settings = {"output_dir": str(tmp_path / "out"), "use_cpu": True, "num_train_epochs": 2, "report_to": "none"}
    settings |= {"sage_num_examples": 20, "sage_warmup_epochs": 0.1, "disable_tqdm": True, "save_strategy": "no"}
    (tmp_path / "args.yaml").write_text(yaml.safe_dump(settings))
    result = run("examples/run_image_classification.py", str(tmp_path / "args.yaml"))
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Kept 20 of 1,257 rows" in result.stdout


def test_wrong_labels_are_as_many_as_asked_for():
    rows = topic_classes()
    spoiled = with_wrong_labels(rows, 0.25)
    assert sum(one != other for one, other in zip(rows["label"], spoiled["label"], strict=True)) == round(
        0.25 * len(rows)
    )
    assert spoiled.features == rows.features
    assert with_wrong_labels(rows, 0.0) is rows
