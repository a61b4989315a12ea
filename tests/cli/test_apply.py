"""From a list of label issues to clean data, in the shell."""

import csv
import json

import pytest
from datasets import ClassLabel, Dataset, Features, Value, load_from_disk

from ..selector.issue_cases import issues_of
from .test_main import SMALL, TEXTS, folder, run  # noqa: F401  # a fixture


@pytest.fixture
def reviews(tmp_path):
    """Rows of text labels in a file, and their list."""
    rows = Dataset.from_dict({"text": TEXTS, "label": [("good", "bad")[n % 2] for n in range(24)]})
    rows.to_json(tmp_path / "reviews.jsonl")
    issues = issues_of(rows, ["good"] * 24, [1, 3, 5, 6])
    issues.save(tmp_path / "issues.csv")
    return tmp_path


def fill(file, actions):
    """What a person does in a spreadsheet."""
    with file.open(newline="", encoding="utf-8") as opened:
        lines = list(csv.DictReader(opened))
    for line in lines:
        line["sage_action"] = actions.get(int(line["sage_row"]), "")
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def test_an_edited_list_makes_a_clean_dataset_and_counts_what_was_done(reviews):
    fill(reviews / "issues.csv", {1: "relabel", 3: "drop", 5: "keep"})
    done = run("apply", reviews / "reviews.jsonl", reviews / "issues.csv", "--output", reviews / "clean")
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "Of 4 rows on the list: 1 relabelled, 1 dropped, 2 kept. bad -> good: 1 23 of 24 rows written to" in said
    rows = load_from_disk(reviews / "clean")
    assert rows["sage_row"][:] == [row for row in range(24) if row != 3]
    assert rows["label"][:3] == ["good", "good", "good"]
    assert "| relabelled | 1 |" in (reviews / "clean" / "README.md").read_text()
    again = run("apply", reviews / "clean", reviews / "issues.csv", "-o", reviews / "twice")
    assert again.exit_code == 1 and "says 'bad' for 'good'" in " ".join(again.output.split())


def test_a_column_of_another_name_and_a_file(reviews):
    features = Features({"text": Value("string"), "mood": ClassLabel(names=["good", "bad"])})
    rows = Dataset.from_dict({"text": TEXTS, "mood": [n % 2 for n in range(24)]}, features=features)
    rows.save_to_disk(reviews / "saved")
    fill(reviews / "issues.csv", {6: "bad"})
    words = ["apply", reviews / "saved", reviews / "issues.csv", "-o", reviews / "clean.csv", "--label-column"]
    done = run(*words, "mood")
    assert done.exit_code == 0, done.output
    with (reviews / "clean.csv").open(newline="") as opened:
        assert [line["mood"] for line in csv.DictReader(opened)][6] == "1"
    assert (reviews / "clean.README.md").exists()
    wrong = run(*words, "moood", "--overwrite")
    assert wrong.exit_code == 1 and "'moood' is not there; the columns are text, mood" in " ".join(
        wrong.output.split()
    )


@pytest.mark.parametrize(
    ("dataset", "issues", "output", "words"),
    [
        ("reviews.jsonl", "issues.xlsx", "clean", "cannot be a .xlsx file"),
        ("reviews.jsonl", "nothing.csv", "clean", "There is no such file"),
        ("nothing.jsonl", "issues.csv", "clean", "no such file or folder"),
        ("reviews.jsonl", "issues.csv", "clean.txt", "'clean.txt' cannot be written"),
        ("reviews.jsonl", "issues.csv", "reviews.jsonl", "The file already exists"),
        ("reviews.jsonl", "issues.csv", "issues.csv", "The file already exists"),
    ],
)
def test_wrong_paths_are_told_before_anything_is_read(reviews, monkeypatch, dataset, issues, output, words):
    monkeypatch.setattr("sage_hf.cli.rows.load_rows", None)
    (reviews / "issues.xlsx").write_text("x")
    done = run("apply", reviews / dataset, reviews / issues, "-o", reviews / output)
    assert done.exit_code == 1 and words in " ".join(done.output.split())


@pytest.mark.parametrize("output", ["reviews.jsonl", "issues.csv"])
def test_what_is_read_is_never_overwritten(reviews, output):
    done = run("apply", reviews / "reviews.jsonl", reviews / "issues.csv", "-o", reviews / output, "--overwrite")
    assert done.exit_code == 1 and "The output is also an input" in " ".join(done.output.split())


# --------------------------------------------------------------------- select
def test_a_selection_leaves_out_what_a_list_drops_and_knows_the_rows_of_the_source(folder, reviews):  # noqa: F811
    fill(reviews / "issues.csv", {1: "drop", 3: "drop", 5: "keep"})
    words = ["select", folder / "bert", reviews / "reviews.jsonl", "--fraction", "1.0", *SMALL]
    done = run(*words, "-o", reviews / "out", "--exclude", reviews / "issues.csv")
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "2 of 24 rows are left out: issues.csv says to drop them. sage_row stays the number in the source." in said
    rows = load_from_disk(reviews / "out")
    assert rows["sage_row"][:] == [row for row in range(24) if row not in (1, 3)]
    assert rows["text"][:] == [TEXTS[row] for row in rows["sage_row"]]
    command = json.loads((reviews / "out" / "selection.json").read_text())["stats"]["command"]
    assert command[command.index("--exclude") + 1] == "issues.csv"
    fill(reviews / "issues.csv", {6: "drop"})  # the selection knows what was left out then
    kept = run("choose", reviews / "out", "--num-examples", 22, "-o", reviews / "chosen")
    assert kept.exit_code == 0, kept.output
    assert load_from_disk(reviews / "chosen")["sage_row"][:] == rows["sage_row"][:]
    stream = run(*words, "-o", reviews / "stream", "--exclude", reviews / "issues.csv", "--streaming")
    assert stream.exit_code == 1 and "Rows of a stream cannot be left out" in stream.output


def test_a_list_for_another_dataset_is_no_list_to_exclude(folder, reviews):  # noqa: F811
    words = ["select", folder / "bert", folder / "labelled.json", "--fraction", "0.5", *SMALL, "-o", reviews / "out"]
    done = run(*words, "--exclude", reviews / "issues.csv")
    assert done.exit_code == 1 and "4 lines with another label" in " ".join(done.output.split())
    done = run(*words, "--exclude", reviews / "issues.txt")
    assert done.exit_code == 1 and "cannot be a .txt file" in " ".join(done.output.split())
