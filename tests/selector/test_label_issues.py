import json

import numpy as np
import pytest
from datasets import Dataset, load_dataset
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner

from sage_hf import find_label_issues
from sage_hf.cli.main import app
from sage_hf.demo import build_vit, load_noisy_digits
from sage_hf.errors import DatasetError, LabelError, OutputError
from sage_hf.training.warmup import warm_up

from ..cases import image_rows, llama, pad_tokens, token_rows, vit

COLUMNS = ["sage_row", "sage_label_doubt", "sage_label", "sage_suggested_label", "sage_action"]


@pytest.fixture(scope="module")
def digits():
    return load_noisy_digits(0, 0.1)


@pytest.fixture(scope="module")
def found(digits):
    model = build_vit(0)
    warm_up(model, digits.train, steps=300, learning_rate=2e-3)
    return find_label_issues(model, digits.train, progress=False)


def test_most_wrong_labels_are_found_and_come_first(digits, found):
    assert average_precision_score(digits.is_wrong, found.label_doubt) > 0.8
    assert digits.is_wrong[found.rows[:50]].mean() > 0.8
    assert np.isin(np.flatnonzero(digits.is_wrong), found.rows).mean() > 0.8
    assert (np.diff(found.label_doubt[found.rows]) <= 0).all()
    assert (found.label_doubt[found.rows] > 0.5).all()
    assert found.wrong_share == pytest.approx(0.1, abs=0.02)
    assert len(found) == pytest.approx(0.1 * len(found.label_doubt), rel=0.2)


def test_of_right_labels_the_list_is_empty():
    rows, model = load_noisy_digits(1, 0.0).train, build_vit(1)
    warm_up(model, rows, steps=300, learning_rate=2e-3)
    assert len(find_label_issues(model, rows, progress=False)) <= 0.005 * len(rows)


def test_the_suggestion_is_mostly_the_right_class(digits, found):
    right = load_noisy_digits(0, 0.0).train["label"][:]
    wrong = np.intersect1d(np.flatnonzero(digits.is_wrong), found.rows)
    assert np.mean([found.suggested_label[row] == right[row] for row in wrong]) > 0.7
    labels = digits.train["label"][:]
    assert all(found.suggested_label[row] != labels[row] for row in found.rows)


def test_the_label_issues_are_rows_of_the_dataset(digits, found, tmp_path):
    rows = found.to_dataset()
    assert rows.column_names == [*COLUMNS, "label"] and found.left_out == {"pixel_values": "numbers"}
    for place in (0, len(rows) - 1):
        assert rows[place]["label"] == digits.train[rows[place]["sage_row"]]["label"]
    saved = found.save(tmp_path / "deep" / "issues.parquet")
    again = load_dataset("parquet", data_files=str(saved), split="train", cache_dir=str(tmp_path / "cache"))
    assert again["sage_row"][:] == found.rows.tolist()
    with pytest.raises(OutputError, match="cannot be written"):
        found.save(tmp_path / "issues.txt")


def test_the_order_of_rows_and_the_names_of_classes_do_not_matter():
    rows = image_rows(45)
    named = rows.remove_columns("label").add_column("label", [f"class {label}" for label in rows["label"][:]])
    model = vit()
    model.config.label2id = {f"class {number}": number for number in range(3)}
    one = find_label_issues(model, rows, progress=False)
    other = find_label_issues(model, named, progress=False)
    assert np.array_equal(one.label_doubt, other.label_doubt)
    assert [f"class {code}" for code in one.suggested_label] == other.suggested_label


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (Dataset.from_dict({"pixel_values": [[[[0.0]]]]}), "no column of class labels"),
        (Dataset.from_dict({"pixel_values": [[[[0.0]]]] * 2, "label": [1, None]}), "1 rows have no label, first"),
    ],
)
def test_rows_without_classes_have_no_label_issues(rows, words):
    with pytest.raises(LabelError, match=words):
        find_label_issues(vit(), rows, progress=False)


def test_a_language_model_has_no_label_issues():
    with pytest.raises(LabelError, match="no column of class labels"):
        find_label_issues(llama(), token_rows(12), data_collator=pad_tokens, progress=False)


def test_the_shell_lists_and_writes_them(tmp_path):
    rng = np.random.default_rng(0)
    rows = [{"pixel_values": (rng.normal(size=(1, 8, 8)) + 3 * (n % 2)).tolist(), "label": n % 2} for n in range(60)]
    for row in rows[:4]:
        row["label"] = 1 - row["label"]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    build_vit(0).save_pretrained(tmp_path / "vit")
    words = ["label-issues", tmp_path / "vit", tmp_path / "rows.jsonl", "--warmup-steps", 40]
    words += ["--warmup-learning-rate", "2e-3", "--device", "cpu", "--limit", 3, "-o", tmp_path / "out.jsonl"]
    result = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"}).invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert "of 60 labels are likely wrong" in result.output
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {0, 1, 2, 3} <= {row["sage_row"] for row in written[:6]}
    assert written[0]["sage_suggested_label"] == str(1 - written[0]["label"])
    assert "suggested" in result.output and "rather" not in result.output
    assert "Columns left out of the file: pixel_values (numbers)." in " ".join(result.output.split())
    again = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"}).invoke(app, [str(word) for word in words])
    assert again.exit_code == 1 and "The file already exists" in " ".join(again.output.split())


def test_an_empty_list_is_a_dataset_and_a_file_too(tmp_path):
    rows = image_rows(60).add_column("id", list(range(60)))
    found = find_label_issues(vit(), rows, progress=False)
    assert len(found) == 0 and len(found.to_dataset()) == 0
    assert found.to_dataset().column_names == [*COLUMNS, "label", "id"]
    for name in ("issues.csv", "issues.jsonl", "issues.parquet"):
        assert found.save(tmp_path / name).exists()


def test_it_is_said_where_nothing_can_be_told(digits, found):
    few = find_label_issues(vit(), image_rows(12), progress=False)
    assert few.wrong_share is None and "is not known: classifiers" in few.table().caption
    assert found.table().caption is None


def test_row_numbers_that_are_none_are_refused_before_the_model_reads_a_row():
    rows = image_rows(45).add_column("sage_row", [f"id{row}" for row in range(45)])
    model = vit()
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model was called"))
    with pytest.raises(DatasetError, match=r"holds no row number in 45 rows, but 'id0' \[column 'sage_row', row 0\]"):
        find_label_issues(model, rows, progress=False)
