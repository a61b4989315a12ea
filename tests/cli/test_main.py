import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, load_from_disk
from transformers import AutoTokenizer, BertConfig, BertModel, Trainer
from typer.testing import CliRunner

import sage_hf
from examples.python_text import train_tokenizer
from sage_hf import SageConfig, SageSelector, Selection
from sage_hf.cli.main import app
from sage_hf.cli.options import renamed
from sage_hf.cli.rows import load_rows
from sage_hf.passes.run import Passes
from sage_hf.selector.checkpoints import learning_rates

from ..cases import BERT, llama, pad_tokens, token_rows
from ..training.runs import plain_args, train

RUNNER = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"})
TEXTS = [f"the cat number {number} sat on the mat {'again ' * (number % 5)}" for number in range(24)]
SMALL = ["--strategy", "agreement", "--sketch-size", "8", "--batch-size", "8", "--shard-size", "16", "--device", "cpu"]


def run(*arguments):
    return RUNNER.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints and one dataset in every form."""
    root = tmp_path_factory.mktemp("cli")
    tokenizer = train_tokenizer(TEXTS, 280)
    model = llama(vocab_size=len(tokenizer))
    model.save_pretrained(root / "lm")
    tokenizer.save_pretrained(root / "lm")
    BertModel(BertConfig(**{**BERT, "vocab_size": len(tokenizer)})).save_pretrained(root / "bert")
    tokenizer.save_pretrained(root / "bert")
    rows = Dataset.from_dict({"text": TEXTS})
    rows.to_json(root / "rows.json")
    rows.to_json(root / "rows.jsonl")
    rows.to_csv(root / "rows.csv")
    rows.to_parquet(root / "rows.parquet")
    rows.save_to_disk(root / "rows")
    DatasetDict(train=rows, test=rows.select(range(3))).save_to_disk(root / "splits")
    rows.add_column("label", ["b", "a"] * 12).to_json(root / "labelled.json")
    return root


@pytest.mark.parametrize("source", ["rows.json", "rows.jsonl", "rows.csv", "rows.parquet", "rows", "splits"])
def test_every_form_of_a_dataset_loads_the_same_rows(folder, source):
    assert load_rows(str(folder / source))["text"] == TEXTS


def reviews(place, empty=()):
    """A CSV of texts and three classes, one of three rows, with duplicates, and with empty labels in some rows."""
    rows = [(text, ["good", "bad"][number % 2]) for number, text in enumerate(TEXTS * 3)]
    for row in (5, 30, 61):
        rows[row] = (rows[row][0], "rare")
    lines = [f"{text},{'' if row in empty else label}" for row, (text, label) in enumerate(rows)]
    place.write_text("\n".join(["text,label", *lines, ""]), encoding="utf-8")
    return place


def test_a_rare_class_of_a_csv_is_told_or_kept_and_the_kept_labels_have_the_numbers_of_all_classes(folder, tmp_path):
    data = reviews(tmp_path / "reviews [1].csv")
    about = ["--task", "sequence-classification", "--fraction", "0.1", "--warmup-steps", "1", *SMALL]
    for least, labels in ((0, {0, 1}), (1, {0, 1, 2})):
        out = tmp_path / f"out{least}"
        result = run("select", folder / "bert", data, "-o", out, *about, "--min-per-group", least)
        assert result.exit_code == 0, result.output
        told = "No row is kept of 1 group: 'rare' (3 rows)." in " ".join(result.output.split())
        assert told == (least == 0)
        rows = load_from_disk(str(out))
        assert len(rows) == 7 and set(rows["label"]) == labels
        assert rows.features["label"].names == ["bad", "good", "rare"]
        assert Selection.load_from_disk(out).stats.lost_groups == ([] if least else ["rare"])


def test_missing_labels_of_a_csv_are_counted_and_named(folder, tmp_path):
    data = reviews(tmp_path / "reviews.csv", empty=(3, 7, 20, 21, 40, 50, 60))
    about = ["--task", "sequence-classification", "--fraction", "0.1", *SMALL]
    result = run("select", folder / "bert", data, "-o", tmp_path / "out", *about)
    assert result.exit_code == 1
    assert "7 rows have no label, first in rows [3, 7, 20, 21, 40]" in " ".join(result.output.split())


def test_an_adapter_folder_is_a_model(folder, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "lm")
    peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])).save_pretrained(
        tmp_path / "adapter"
    )
    result = run(
        "select", tmp_path / "adapter", folder / "rows.json", "-o", tmp_path / "out", "--fraction", "0.5", *SMALL
    )
    assert result.exit_code == 0, result.output
    assert "PeftModelForCausalLM for causal-lm" in " ".join(result.output.split())
    # A of 2 x 16 and B of 16 x 2 numbers in each of two layers.
    assert Selection.load_from_disk(tmp_path / "out").stats.target_weights == 2 * (2 * 16 + 16 * 2)


def test_an_interrupted_selection_goes_on(folder, tmp_path, monkeypatch):
    arguments = ["select", folder / "lm", folder / "rows.json", "--fraction", "0.25", *SMALL]
    assert run(*arguments, "-o", tmp_path / "whole").exit_code == 0
    shard, ran = Passes.run_shard, []

    def interrupted(self, *given):
        ran.append(1)
        if len(ran) == 4:
            raise KeyboardInterrupt
        return shard(self, *given)

    monkeypatch.setattr(Passes, "run_shard", interrupted)
    assert run(*arguments, "-o", tmp_path / "out").exit_code == 130
    assert (tmp_path / ".out-unfinished").is_dir()
    result = run(*arguments, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "Continuing the unfinished run in" in result.output
    assert len(ran) == 4 + 1  # two shards, two passes: one was left
    one, other = (Selection.load_from_disk(tmp_path / name) for name in ("whole", "out"))
    assert np.array_equal(one.scores, other.scores)
    assert not (tmp_path / ".out-unfinished").exists()


def test_the_shell_keeps_gradient_rows_where_it_is_told(folder, tmp_path):
    arguments = ["select", folder / "lm", folder / "rows.json", *SMALL, "--cache-gradients", "float16"]
    for number in (3, 5):
        result = run(
            *arguments, "--num-examples", number, "--cache-dir", tmp_path / "cache", "-o", tmp_path / str(number)
        )
        assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert run(*arguments, "--fraction", 0.5, "--cache-gradients", "int4", "-o", tmp_path / "x").exit_code == 1


def test_the_shell_keeps_the_rows_that_python_keeps(folder, tmp_path):
    result = run("select", folder / "lm", folder / "rows.json", "--fraction", "0.25", "-o", tmp_path / "out", *SMALL)
    assert result.exit_code == 0, result.output
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = SageConfig(strategy="agreement", fraction=0.25, sketch_size=8, batch_size=8, shard_size=16)
    model = AutoModelForCausalLM.from_pretrained(folder / "lm")
    tokenizer = AutoTokenizer.from_pretrained(folder / "lm")
    rows = load_rows(str(folder / "rows.json"))
    wanted = SageSelector(model, processing_class=tokenizer, config=config).select(rows)
    saved = Selection.load_from_disk(tmp_path / "out")
    assert np.array_equal(saved.indices, wanted.indices)
    assert np.array_equal(saved.scores, wanted.scores)
    assert load_from_disk(str(tmp_path / "out"))["text"] == [TEXTS[index] for index in wanted.indices]
    assert "Kept 6 of 24 rows" in result.output
    assert "of the gradients' energy" in result.output


@pytest.mark.parametrize("source", ["rows.json", "rows.csv", "rows.parquet", "rows", "splits"])
def test_a_stream_gives_the_shell_the_same_rows(folder, tmp_path, source):
    arguments = [folder / "lm", folder / source, "--fraction", "0.25", *SMALL]
    assert run("select", *arguments, "-o", tmp_path / "whole").exit_code == 0
    result = run("select", *arguments, "--streaming", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "Kept 6 of 24 rows" in result.output
    one, other = (load_from_disk(str(tmp_path / name)) for name in ("whole", "out"))
    assert one.to_list() == other.to_list()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("model", "source", "option", "message"),
    [
        ("bert", "labelled.json", ["--warmup-steps", "2"], "A warm-up draws rows at random"),
        ("bert", "labelled.json", [], "The classes of a new head are not known"),
        ("lm", "rows.json", ["--consensus", "exact"], "keeps the projections of a known number"),
    ],
)
def test_what_the_shell_cannot_do_with_a_stream_is_said(folder, tmp_path, model, source, option, message):
    arguments = [folder / model, folder / source, "--num-examples", "4", "--streaming", *option, *SMALL]
    result = run("select", *arguments, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


def test_a_classification_head_is_made_for_the_labels_and_warmed_up(folder, tmp_path):
    common = ["select", folder / "bert", folder / "labelled.json", "--num-examples", "6", *SMALL]
    result = run(*common, "-o", tmp_path / "cold")
    assert result.exit_code == 0, result.output
    assert "Add --warmup-steps" in result.output
    result = run(*common, "-o", tmp_path / "warm", "--warmup-steps", "2", "--warmup-learning-rate", "1e-3")
    assert result.exit_code == 0, result.output
    assert "Warm-up: 2 steps" in result.output
    saved = Selection.load_from_disk(tmp_path / "warm")
    assert saved.group_names == ["a", "b"]
    assert saved.dataset.features["label"].names == ["a", "b"]
    assert saved.dataset["label"][:].count(0) == 3


def test_options_reach_the_config(folder, tmp_path):
    result = run(
        *("select", folder / "lm", folder / "rows", "--num-examples", "5", "-o", tmp_path / "out", *SMALL),
        *("--projection", "3", "--target-modules", "q_proj,v_proj", "--group-by", "none", "--text-columns", "text"),
        *("--balance", "equal", "--consensus", "exact", "--no-check-gradients", "--strategy", "random", "--seed", "7"),
    )
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "out" / "selection.json").read_text())["config"]
    wanted = SageConfig(
        num_examples=5,
        sketch_size=8,
        batch_size=8,
        shard_size=16,
        projection=3,
        target_modules=["q_proj", "v_proj"],
        group_by=None,
        text_columns=["text"],
        balance="equal",
        consensus="exact",
        check_gradients=False,
        strategy="random",
        seed=7,
    )
    assert config == wanted.to_dict()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lm", "rows.json"], "Neither --fraction nor --num-examples was given"),
        (["lm", "rows.json", "--fraction", "2"], "Did you mean 0.02 (2 %)?"),
        (["lm", "rows.json", "--num-examples", "25"], "25 rows were asked for"),
        (["lm", "rows.xlsx", "--fraction", "0.5"], "no such file or folder"),
        (["nothing", "rows.json", "--fraction", "0.5"], "no such folder"),
        (["lm", "splits", "--fraction", "0.5", "--split", "dev"], "no split 'dev'"),
        (["lm", "rows.json", "--fraction", "0.5", "--projection", "wide"], "projection is 'wide'"),
        (["lm", "rows.json", "--fraction", "0.5", "--device", "tpu9"], "There is no device 'tpu9'"),
        (["bert", "rows.json", "--fraction", "0.5"], "names no known task"),
        (
            ["bert", "rows.json", "--fraction", "0.5", "--task", "sequence-classification"],
            "Rename the label column, or pass --task causal-lm.",
        ),
        (["lm", "rows.json", "--fraction", "0.5", "--warmup-steps", "1", "--warmup-fraction", "0.1"], "Both"),
        (["lm", "rows.json", "--fraction", "0.5", "--group-by", "topic"], "no column 'topic'"),
    ],
)
def test_errors_are_messages_with_exit_code_1(folder, tmp_path, arguments, words):
    model, rows, *options = arguments
    result = run("select", folder / model, folder / rows, "-o", tmp_path / "out", *SMALL, *options)
    assert result.exit_code == 1, result.output
    assert words in " ".join(result.output.split())
    assert "What to do:" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_another_selection_is_refused_before_anything_is_loaded_and_replaced_on_request(folder, tmp_path):
    common = ["select", folder / "lm", folder / "rows.json", "--fraction", "0.25", "-o", tmp_path / "out", *SMALL]
    assert run(*common).exit_code == 0
    result = run("select", "nothing", "nowhere", "--fraction", "0.25", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "another selection" in " ".join(result.output.split())
    assert run(*common, "--overwrite").exit_code == 0


def test_wrong_usage_is_exit_code_2():
    assert run("select").exit_code == 2
    assert run("select", "a", "b", "-o", "c", "--batches", "fair").exit_code == 2
    assert run("nonsense").exit_code == 2


def test_help_names_every_option_and_its_default():
    result = run("select", "--help")
    assert result.exit_code == 0
    for name, field in SageConfig.__dataclass_fields__.items():
        assert f"--{name.replace('_', '-')}" in result.output, name
        assert field.metadata["help"].split()[0] in result.output


def test_the_module_runs_and_tells_its_version():
    environment = {**os.environ, "COLUMNS": "100"}
    result = subprocess.run(
        [sys.executable, "-m", "sage_hf", "--version"], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout.strip() == f"sage-hf {sage_hf.__version__}"


def test_the_command_of_a_saved_selection_makes_it_again(folder, tmp_path, monkeypatch):
    first = run("select", folder / "lm", folder / "rows.json", "--fraction", "0.25", *SMALL, "-o", tmp_path / "out")
    assert first.exit_code == 0, first.output
    one = Selection.load_from_disk(tmp_path / "out")
    command = one.stats.command
    assert command[:4] == ["sage-hf", "select", "lm", "rows.json"]
    assert str(tmp_path) not in shlex.join(command)
    monkeypatch.chdir(folder)
    again = run(*command[1:-1], tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert Selection.load_from_disk(tmp_path / "again").scores.tolist() == one.scores.tolist()


def test_a_target_that_is_a_file_fits_any_split_of_the_dataset(folder, tmp_path):
    arguments = ["select", folder / "lm", folder / "splits", "--split", "test", "--num-examples", "1", *SMALL]
    aimed = run(*arguments, "--target", folder / "rows.csv", "-o", tmp_path / "kept")
    assert aimed.exit_code == 0, aimed.output
    assert run("show", tmp_path / "kept", "--dataset", folder / "splits").exit_code == 0
    wrong = run("select", folder / "lm", folder / "rows.csv", "--split", "trian", "-o", tmp_path / "wrong", *SMALL)
    told = " ".join(wrong.output.split())
    assert wrong.exit_code == 1 and "Error in --split: There is no split 'trian'" in told
    assert "A file has one split, train" in told


def test_the_shell_aims_at_targets_and_averages_checkpoints(folder, tmp_path):
    arguments = ["select", folder / "lm", folder / "rows.json", "--fraction", "0.25", *SMALL]
    aimed = run(*arguments, "--target", folder / "rows.csv", "-o", tmp_path / "one")
    assert aimed.exit_code == 0, aimed.output
    several = f"{folder / 'rows.csv'},{folder / 'rows'}"
    both = run(*arguments, "--target", several, "--target-shares", "1,2", "-o", tmp_path / "two")
    assert both.exit_code == 1 and "Two targets have the same name" in both.output
    several = f"{folder / 'rows.csv'},{folder / 'splits'}"
    both = run(*arguments, "--target", several, "--target-shares", "1,2", "-o", tmp_path / "two")
    assert both.exit_code == 0, both.output
    found = Selection.load_from_disk(tmp_path / "two")
    assert found.group_names == ["rows", "splits"]
    assert "--target rows.csv,splits --target-shares 1,2" in shlex.join(found.stats.command)
    assert run(*arguments, "--target", several, "--target-shares", "1", "-o", tmp_path / "x").exit_code == 1
    averaged = run(*arguments, "--checkpoints", folder / "lm", "-o", tmp_path / "three")
    assert averaged.exit_code == 0, averaged.output
    plain = run(*arguments, "-o", tmp_path / "four")
    assert plain.exit_code == 0, plain.output
    one, other = (Selection.load_from_disk(tmp_path / name) for name in ("three", "four"))
    assert np.allclose(one.scores, other.scores, atol=1e-6)  # the mean of a model with itself
    assert one.stats.checkpoints == 2
    streamed = run(*arguments, "--streaming", "--target", folder / "rows.csv", "-o", tmp_path / "five")
    assert streamed.exit_code == 1 and "Read without --streaming" in streamed.output


def test_the_shell_weights_checkpoints_by_what_trainer_logged_or_as_it_is_told(folder, tmp_path):
    model, rows = llama(vocab_size=len(AutoTokenizer.from_pretrained(folder / "lm"))), token_rows(8)
    args = plain_args(tmp_path, save_strategy="steps", save_steps=2, max_steps=4)
    train(model, args, rows, Trainer, data_collator=pad_tokens)
    for step in (2, 4):
        AutoTokenizer.from_pretrained(folder / "lm").save_pretrained(tmp_path / f"checkpoint-{step}")
    last, first = tmp_path / "checkpoint-4", tmp_path / "checkpoint-2"
    arguments = ["select", last, folder / "rows.json", "--fraction", "0.25", *SMALL, "--checkpoints", first]

    def weights(*more):
        done = run(*arguments, *more, "-o", tmp_path / "out", "--overwrite")
        assert done.exit_code == 0, done.output
        return Selection.load_from_disk(tmp_path / "out").stats

    rates = np.array(learning_rates([first, last]))
    assert np.allclose(weights().checkpoint_weights, rates / rates.sum())
    assert weights("--checkpoint-weights", "equal").checkpoint_weights == [0.5, 0.5]
    told = weights("--checkpoint-weights", "1,3")
    assert told.checkpoint_weights == [0.25, 0.75]
    assert "--checkpoints checkpoint-2 --checkpoint-weights 1,3" in shlex.join(told.command)
    several = f"{folder / 'rows.csv'},{folder / 'splits'}"
    aimed = weights("--target", several, "--target-reduction", "max")
    assert aimed.targets == ["rows", "splits"] and aimed.target_shares is None
    assert not aimed.adam
    updated = weights("--target", several, "--target-reduction", "max", "--adam")
    assert updated.adam and updated.checkpoint_weights == aimed.checkpoint_weights
    assert {"--adam", "--target-reduction", "--checkpoints"} <= set(updated.command)
    unaimed = run(*arguments, "--adam", "-o", tmp_path / "x")
    assert unaimed.exit_code == 1 and "Name a --target" in unaimed.output
    wrong = run(*arguments, "--checkpoint-weights", "high", "-o", tmp_path / "x")
    assert wrong.exit_code == 1 and "Give the word equal, or numbers" in wrong.output
    alone = run(*arguments[:-2], "--checkpoint-weights", "equal", "-o", tmp_path / "x")
    assert alone.exit_code == 1 and "Name --checkpoints" in alone.output


def test_other_rows_by_the_same_scores_have_no_command(folder, tmp_path):
    assert (
        run(
            "select", folder / "lm", folder / "rows.json", "--fraction", "0.25", *SMALL, "-o", tmp_path / "out"
        ).exit_code
        == 0
    )
    source = Dataset.from_json(str(folder / "rows.json"))
    assert Selection.load_from_disk(tmp_path / "out", source).choose(fraction=0.5).stats.command is None


# ------------------------------------------------- words of the version before
def test_old_words_give_what_the_new_ones_give_and_a_warning(folder, tmp_path):
    data = tmp_path / "data"
    for size, texts in (("small", TEXTS[:8]), ("large", TEXTS)):
        Dataset.from_dict({"text": texts}).to_json(data / size / "rows.jsonl")
    configs = "".join(f"- config_name: {size}\n  data_files: {size}/*.jsonl\n" for size in ("small", "large"))
    (data / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    arguments = ["select", folder / "lm", data, "--num-examples", 3, *SMALL, "-o"]
    new = run(*arguments, tmp_path / "new", "--dataset-config", "large")
    assert new.exit_code == 0 and "DeprecationWarning" not in new.output
    with pytest.warns(DeprecationWarning, match="--dataset-name is now --dataset-config; the old name goes"):
        old = run(*arguments, tmp_path / "old", "--dataset-name=large")
    assert old.exit_code == 0, old.output
    one, other = (Selection.load_from_disk(tmp_path / name) for name in ("new", "old"))
    assert one.stats.rows == 24 and one.indices.tolist() == other.indices.tolist()
    assert "--dataset-config large" in shlex.join(other.stats.command)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("select m d --dataset-name c --revision=v1", "select m d --dataset-config c --dataset-revision=v1"),
        ("suspects suspects d --most 3", "label-issues suspects d --limit 3"),
        ("compare m d --revision v1", "compare m d --dataset-revision v1"),
        ("push out me/rows --source d --source-name c", "push out me/rows --source d --source-config c"),
    ],
)
def test_every_old_word_is_replaced_and_named(old, new):
    with pytest.warns(DeprecationWarning, match=" is now ") as warned:
        assert renamed(old.split()) == new.split()
    changed = [word.split("=")[0] for word, now in zip(old.split(), new.split(), strict=True) if word != now]
    assert [str(each.message).split()[0] for each in warned] == changed


@pytest.mark.parametrize(
    "line", ["push out me/rows --revision v1", "select suspects d --model-revision v1", "--help", ""]
)
def test_words_that_mean_what_they_meant_stay(line, recwarn):
    assert renamed(line.split()) == line.split()
    assert not recwarn.list


def test_old_words_are_in_no_help_and_shown_on_stderr(folder):
    for command in ("select", "label-issues", "doctor", "compare"):
        told = run(command, "--help").output
        assert "--dataset-config" in told and "--dataset-revision" in told
        assert not any(f"{old} " in told for old in ("--dataset-name", "--revision", "--most"))
    assert "suspects" not in run("--help").output
    command = [sys.executable, "-m", "sage_hf", "suspects", "nothing", str(folder / "labelled.json"), "--most", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for words in (
        "DeprecationWarning: suspects is now label-issues",
        "DeprecationWarning: --most is now --limit",
    ):
        assert words in done.stderr


def test_a_revision_of_a_file_is_an_error_that_names_the_option(folder, tmp_path):
    result = run("select", folder / "lm", folder / "rows.json", "-o", tmp_path / "out", "--dataset-revision", "v1")
    assert result.exit_code == 1 and "Error in --dataset-revision" in result.output


@pytest.mark.parametrize(
    ("word", "fix"),
    [
        ("--fractoin", "Did you mean --fraction? `sage-hf select --help` lists all options."),
        ("--zzzz", "`sage-hf select --help` lists all options."),
    ],
)
def test_an_unknown_option_says_what_to_do(word, fix):
    result = run("select", "model", "rows.jsonl", word, "0.1")
    assert result.exit_code == 2
    told = " ".join(result.output.split())
    assert f"Error in {word}: select has no such option. What to do: {fix}" in told


def test_completion_is_that_of_the_command_also_when_the_module_was_called():
    line = [sys.executable, "-m", "sage_hf", "--show-completion", "bash"]
    # Typer would look for the shell among the processes above, of which there may be none.
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert "_SAGE_HF_COMPLETE=complete_bash" in shown.stdout and "python" not in shown.stdout
