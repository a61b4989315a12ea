"""The shell says as much as it is asked to, in its own words, and writes a folder or a file."""

import csv
import json
import logging
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, BertModel
from typer.testing import CliRunner

from examples.python_text import train_tokenizer
from sage_hf.cli.main import app
from sage_hf.cli.output import speaking
from sage_hf.cli.wording import in_the_shell, name_columns, number_rows, options_for
from sage_hf.config import STRATEGY_LINES
from sage_hf.errors import ConfigError
from sage_hf.selection.selection import Selection

from ..cases import BERT

TEXTS = [f"the cat number {number} sat on the mat {'again ' * (number % 5)}" for number in range(24)]
SMALL = ["--fraction", "0.25", "--strategy", "agreement", "--sketch-size", "8", "--device", "cpu"]


def run(*arguments, columns=80):
    runner = CliRunner(env={"COLUMNS": str(columns), "TERM": "dumb"})
    return runner.invoke(app, [str(argument) for argument in arguments])


def words(text):
    return " ".join(text.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier, a model without a head, and rows with and without gaps."""
    root = tmp_path_factory.mktemp("output")
    tokenizer = train_tokenizer(TEXTS, 280)
    names = {0: "bad", 1: "good"}
    about = {**BERT, "vocab_size": len(tokenizer), "id2label": names, "label2id": {"bad": 0, "good": 1}}
    for name, kind in (("clf", BertForSequenceClassification), ("bert", BertModel)):
        kind(BertConfig(**about)).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    rows = Dataset.from_dict({"text": TEXTS, "label": ["good", "bad"] * 12})
    rows.to_csv(root / "rows.csv")
    rows.add_column("tags", [["a"]] * 24).to_json(root / "nested.jsonl")
    Dataset.from_dict({"text": TEXTS, "label": [None, "bad"] * 12}).to_csv(root / "gaps.csv")
    return root


def test_a_file_holds_the_kept_rows_with_names_and_row_numbers_and_says_what_it_lacks(folder, tmp_path):
    for ending in ("jsonl", "csv", "parquet"):
        place = tmp_path / f"kept.{ending}"
        done = run("select", folder / "clf", folder / "rows.csv", "-o", place, *SMALL)
        assert done.exit_code == 0, done.output
        assert "To choose again later (`sage-hf choose`), write to a folder" in words(done.stderr)
        rows = {"csv": Dataset.from_csv, "jsonl": Dataset.from_json, "parquet": Dataset.from_parquet}[ending](
            str(place)
        )
        assert rows.column_names == ["text", "label", "sage_row", "sage_score"] and len(rows) == 6
        assert [TEXTS[row] for row in rows["sage_row"]] == rows["text"][:]
        assert ending == "parquet" or rows["label"] == [["good", "bad"][row % 2] for row in rows["sage_row"]]
    again = run("select", folder / "clf", folder / "rows.csv", "-o", place, *SMALL)
    assert again.exit_code == 1 and "or pass --overwrite." in words(again.output)
    lines = (tmp_path / "kept.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["label"] in ("good", "bad")
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("output", "data", "told"),
    [
        ("kept.xlsx", "rows.csv", "End its name in one of .csv, .json, .jsonl, .parquet."),
        ("kept.csv", "nested.jsonl", "A csv cannot hold the lists or dicts of column 'tags'"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_a_model_is_loaded(folder, tmp_path, output, data, told):
    done = run("select", folder, folder / data, "-o", tmp_path / output, *SMALL)  # no model in this folder
    assert done.exit_code == 1 and told in words(done.output)


def test_a_folder_may_have_a_number_as_its_ending(folder, tmp_path):
    done = run("select", folder / "clf", folder / "rows.csv", "-o", tmp_path / "rows-0.25", "--quiet", *SMALL)
    assert done.exit_code == 0, done.output
    # What speaks against the result is said all the same.
    assert "Warning: The scores mean little" in words(done.stderr) and "rows of" not in done.stderr
    assert words(done.stdout)[:26] == "Kept 6 of 24 rows. Written"
    stats = Selection.load_from_disk(tmp_path / "rows-0.25").stats
    assert stats.checkpoints is None and stats.choose_seconds > 0


def test_in_a_file_there_are_no_bars_and_no_reports_of_other_libraries_but_our_own_lines(folder, tmp_path):
    command = [sys.executable, "-m", "sage_hf", "select", str(folder / "bert"), str(folder / "rows.csv"), *SMALL]
    command += ["--task", "sequence-classification", "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    both = done.stdout + done.stderr
    assert not any(mark in both for mark in ("\r", "it/s", "examples/s", "LOAD REPORT", "newly initialized", "{'"))
    assert "The checkpoint lacks 2 weights" in words(done.stderr)
    assert "Warning: " in done.stderr and "s to choose." in words(done.stdout)


def test_what_other_libraries_log_moves_no_cursor_and_shows_no_token(capsys):
    library = logging.getLogger("datasets.some.reader")
    library.addHandler(logging.StreamHandler(sys.stderr))
    with speaking():
        library.error("Failed to load %s with %s", "a\x1b[31m\x07.jsonl", "hf_" + "a" * 34)
    text = capsys.readouterr().err
    assert "a\ufffd[31m\ufffd.jsonl" in text and "hf_a" not in text and "\x1b" not in text
    library.handlers.clear()
    assert logging.getLogRecordFactory() is logging.LogRecord


def test_verbose_says_what_is_logged_and_both_words_contradict(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    ours = logging.getLogger("sage_hf.passes")
    for options, told in (
        ({}, "Warning: x\n"),
        ({"verbose": True}, "y\nWarning: x\n"),
        ({"quiet": True}, "Warning: x\n"),
    ):
        with speaking(**options):
            ours.info("y")
            ours.warning("x")
        assert capsys.readouterr().err == told
    with pytest.raises(ConfigError, match="Both --quiet and --verbose"), speaking(quiet=True, verbose=True):
        pass


@pytest.mark.parametrize("columns", [80, 120])
def test_the_help_lists_every_strategy_with_its_line_and_images_in_folders(columns):
    told = run("select", "--help", columns=columns).output
    assert max(map(len, told.splitlines())) <= columns
    panel = words(told[told.index("Strategies") :].replace("│", " "))
    assert all(f"{name} {line}" in panel for name, line in STRATEGY_LINES.items())
    assert "cat/01.png" in told and "--quiet" in told


def test_the_help_tells_exit_codes_and_completion():
    told = words(run("--help").output)
    assert "0 success; 1 an error" in told and "130 interrupted" in told
    assert "--install-completion" in told and "--show-completion" in told


def test_what_is_not_there_is_said_without_asking_the_hub(folder, tmp_path, monkeypatch):
    def asked(*_):
        raise AssertionError("asked the Hub")

    monkeypatch.setattr("sage_hf.cli.models.find_adapter", asked)
    rows, out = folder / "rows.csv", tmp_path / "out"
    for arguments in (
        ("/nowhere/model", rows),
        ("./nowhere", rows),
        (folder / "clf", rows, "--target", "/nowhere/a.csv"),
        (folder / "clf", rows, "--checkpoints", "./gone"),
    ):
        done = run("select", *arguments, "-o", out, *SMALL)
        assert done.exit_code == 1 and "There is no such f" in words(done.output), done.output
    done = run("push", tmp_path / "gone", "me/rows")
    assert done.exit_code == 1 and "There is no such folder" in words(done.output)


def test_rows_without_a_label_are_counted_and_the_way_out_is_named(folder, tmp_path):
    for model in ("clf", "bert"):
        about = ["--task", "sequence-classification", "-o", tmp_path / "out"]
        done = run("select", folder / model, folder / "gaps.csv", *about, *SMALL)
        assert done.exit_code == 1 and "add --drop-missing" in words(done.output)


def test_errors_name_options_and_not_arguments_of_python():
    error = ConfigError("fraction=0.5 is given", where="fraction, num_examples", fix="Pass overwrite=True, gate=None.")
    assert in_the_shell(error) == (
        "--fraction 0.5 is given",
        "--fraction, --num-examples",
        "Pass --overwrite, --gate none.",
    )
    untouched = ConfigError("dtype=x", where="column 'seed'", fix='revision="v1"')
    assert in_the_shell(untouched) == ("dtype=x", "column 'seed'", 'revision="v1"')


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Raise the budget, or lower min_per_group.", "Raise the budget, or lower --min-per-group."),
        ("name another column with text_columns", "name another column with --text-columns"),
        ("Use min_per_group=1 (--min-per-group 1), or more rows.", "Use --min-per-group 1, or more rows."),
        ("by none (group_by=None, --group-by none).", "by none (--group-by none)."),
        (
            "First: warm_up(model, dataset, steps=200), --warmup-steps 200 in the shell; or",
            "First: --warmup-steps 200; or",
        ),
        ("(learning_rate=0.001, --warmup-learning-rate 0.001)", "(--warmup-learning-rate 0.001)"),
        ("Give a share above 0 and below 1, auto or None.", "Give a share above 0 and below 1, auto or none."),
        (
            "Use dataset.text_columns, `max_length` or f(max_length)",
            "Use dataset.text_columns, `max_length` or f(max_length)",
        ),
    ],
)
def test_texts_for_both_name_what_the_shell_has(text, told):
    assert options_for(text) == told


def test_rows_are_named_by_their_numbers_in_the_file_and_columns_as_the_user_names_them():
    number_rows([0, 2, 3, 9, 11, 20])
    name_columns({"topic": "label", "text": "text"})
    try:
        for where, told in (
            ("column 'label', row 3", "column 'topic', row 9"),
            ("column 'label', 2 rows: 1, 5", "column 'topic', 2 rows: 2, 20"),
            ("column 'text', 9 rows among 0 to 5, first 1, 2", "column 'text', 9 rows among 0 to 20, first 2, 3"),
            ("rows 1, 2 and more", "rows 2, 3 and more"),
            ("row 6", "row 6"),  # of other rows
            ("batch_size", "--batch-size"),
        ):
            assert in_the_shell(ConfigError("The label is 4", where=where, fix="Fill."))[1] == told
    finally:
        number_rows(None)
        name_columns(None)


def test_rows_left_out_are_told_with_quiet_and_their_numbers_are_those_of_the_file(folder, tmp_path):
    table = [(text, ("good", "bad")[number % 2]) for number, text in enumerate(TEXTS)]
    table[1], table[4] = ("", "good"), (table[4][0], "")
    table[10] = (table[10][0], "rare")
    place = tmp_path / "rows.csv"
    with place.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "topic"), *table])
    about = ["--label-column", "topic", "--drop-missing", *SMALL]
    wrong = run("select", folder / "clf", place, "-o", tmp_path / "wrong", *about)
    assert wrong.exit_code == 1 and "Error in column 'topic', row 10: " in words(wrong.output), wrong.output
    assert "a head for these classes" in words(wrong.output)
    told = words(run("doctor", folder / "clf", place, *about).output)
    assert "[column 'topic', row 10]" in told and "22 rows of" in told and "21 can be used" in told
    whole = words(run("doctor", folder / "clf", place, "--label-column", "topic", *SMALL).output)
    assert "Labels: column 'topic', null in 1 row" in whole
    assert "24 rows; all were looked at" in whole and "add --drop-missing" in whole
    done = run("select", folder / "bert", place, "-o", tmp_path / "kept", "--quiet", *about)
    assert done.exit_code == 0, done.output
    assert words(done.stderr).startswith("Warning: 2 of 24 rows lack a value and are left out: 1 in column 'topic'")
    assert len(done.stdout.splitlines()) == 1
    shown = run("show", tmp_path / "kept", "--rows", "lowest", "--limit", "30", columns=120).stdout
    numbers = {}
    for line in shown.splitlines():
        if found := re.match(r"│\s+(\d+) │.*(the cat number \d+)", line):
            numbers[int(found[1])] = found[2]
    assert len(numbers) == 22 and {1, 4} & numbers.keys() == set()
    assert all(text == f"the cat number {number}" for number, text in numbers.items())
    assert run("report", tmp_path / "kept", "-o", tmp_path / "r.html").exit_code == 0
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    pairs = re.findall(r"row (\d+)</span>.*?the cat number (\d+)", page, re.DOTALL)
    assert len(pairs) >= 12 and all(number == text for number, text in pairs)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--warmup-steps", "-3"], "Error in --warmup-steps: The value is -3"),
        (["--warmup-fraction", "2"], "Error in --warmup-fraction: The value is 2.0"),
        (["--warmup-steps", "3", "--warmup-learning-rate", "0"], "Error in --warmup-learning-rate: The value is 0.0"),
        (["--gate", "2"], "auto or none."),
        (["--text-columns", "txt"], "Error in --text-columns: There is no column 'txt'"),
        (["--device", "cuda:77"], "There is no device 'cuda:77' here"),
    ],
)
def test_a_wrong_value_is_told_of_the_option_that_has_it(folder, tmp_path, options, told):
    # No model is loaded before but for the device.
    model = folder / ("clf" if "--device" in options else "empty")
    (folder / "empty").mkdir(exist_ok=True)
    small = [each for each in SMALL if each not in ("--device", "cpu")] if "--device" in options else SMALL
    done = run("select", model, folder / "rows.csv", "-o", tmp_path / "out", *small, *options)
    assert done.exit_code == 1 and told in words(done.output), done.output
    if "--device" in options:
        assert "cpu" in words(done.output).split("What to do:")[1]


def test_the_times_of_the_stages_are_about_the_time_of_all(folder):
    from transformers import AutoTokenizer

    from sage_hf import SageConfig, select_over_checkpoints

    model = BertForSequenceClassification.from_pretrained(folder / "clf")
    config, tokenizer = SageConfig(fraction=0.25, sketch_size=8), AutoTokenizer.from_pretrained(folder / "clf")
    rows = Dataset.from_csv(str(folder / "rows.csv"))
    for models in ([model], [model, model]):
        started = time.perf_counter()
        stats = select_over_checkpoints(models, rows, processing_class=tokenizer, config=config, progress=False).stats
        whole = time.perf_counter() - started
        told = stats.fit_seconds + stats.score_seconds + stats.choose_seconds
        assert 0.7 * whole < told <= whole and stats.choose_seconds > 0
        assert np.isfinite(told)
