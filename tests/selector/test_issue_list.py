"""The list of label issues: names of classes, text and paths, in every kind of file."""

import csv
import io
import json

import pyarrow as pa
import pytest
from datasets import (
    Array2D,
    Audio,
    ClassLabel,
    Dataset,
    Features,
    Image,
    List,
    Value,
    load_dataset,
    load_from_disk,
)
from PIL import Image as Pictures
from rich.console import Console

from sage_hf.selector.issue_list import for_spreadsheet, from_spreadsheet

from .issue_cases import TEXTS, issues_of

BUILDERS = {"csv": "csv", "jsonl": "json", "json": "json", "parquet": "parquet"}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def labelled(texts=TEXTS, kind="string", names=("bad", "good")):
    """Rows of text with two classes."""
    features = Features({"text": Value(kind), "label": ClassLabel(names=list(names))})
    return Dataset.from_dict({"text": texts, "label": [n % 2 for n in range(len(texts))]}, features=features)


def read(file):
    return (
        load_dataset(BUILDERS[file.suffix[1:]], data_files=str(file), split="train", keep_default_na=False)
        if (file.suffix == ".csv")
        else load_dataset(BUILDERS[file.suffix[1:]], data_files=str(file), split="train")
    )


@pytest.mark.parametrize("ending", BUILDERS)
@pytest.mark.parametrize("kind", ["string", "large_string"])
def test_text_and_names_are_in_every_kind_of_file_as_they_were(tmp_path, ending, kind):
    rows = labelled(kind=kind)
    issues = issues_of(rows, [1 - label for label in rows["label"]], [3, 0, 9, 2, 4, 5, 6, 7, 8, 1])
    held = read(issues.save(tmp_path / f"issues.{ending}"))
    assert held["sage_row"][:] == issues.rows.tolist()
    assert held["text"][:] == [for_spreadsheet(TEXTS[row]) if ending == "csv" else TEXTS[row] for row in issues.rows]
    assert held["sage_label"][:] == [("bad", "good")[row % 2] for row in issues.rows]
    assert held["sage_suggested_label"][:] == [("good", "bad")[row % 2] for row in issues.rows]
    assert held["label"][:] == [row % 2 for row in issues.rows]
    assert held["sage_action"][:] == [""] * 10
    assert held["sage_label_doubt"][:] == issues.label_doubt[issues.rows].tolist()


def test_a_csv_is_read_by_other_programs_and_json_by_people(tmp_path):
    issues = issues_of(labelled(), [0] * 10)
    with issues.save(tmp_path / "issues.csv").open(newline="", encoding="utf-8") as file:
        assert [from_spreadsheet(row["text"]) for row in csv.DictReader(file)] == TEXTS
    assert "🙂" in issues.save(tmp_path / "issues.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("labels", "other", "names"),
    [
        (["good", "bad"], "bad", ["good", "bad"]),
        ([3, 10], 3, ["3", "10"]),
        ([True, False], True, ["True", "False"]),
    ],
)
def test_labels_that_are_text_or_numbers_are_their_own_names(labels, other, names):
    found = issues_of(Dataset.from_dict({"text": ["a", "b"], "label": labels}), [other] * 2).to_dataset()
    assert found["sage_label"][:] == names and found["sage_suggested_label"][:] == [str(other)] * 2
    assert found["label"][:] == labels


# ------------------------------------------------------------------ no bytes
@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Images in folders of their classes."""
    root = tmp_path_factory.mktemp("pictures")
    for label in ("cat", "dog"):
        (root / label).mkdir()
        for number in range(2):
            Pictures.new("RGB", (4, 4), (number, 0, 0)).save(root / label / f"{number}.png")
    return root


@pytest.mark.parametrize("ending", BUILDERS)
def test_an_image_is_its_path(pictures, tmp_path, ending):
    rows = load_dataset("imagefolder", data_dir=str(pictures), split="train")
    issues = issues_of(rows, [1, 1, 0, 0], [2, 1])
    assert issues.left_out == {}
    file = issues.save(tmp_path / f"issues.{ending}")
    assert read(file)["image"][:] == [str(pictures / "dog" / "0.png"), str(pictures / "cat" / "1.png")]
    assert b"PNG" not in file.read_bytes()


def test_an_image_in_a_saved_dataset_is_its_name_and_never_bytes(pictures, tmp_path):
    load_dataset("imagefolder", data_dir=str(pictures), split="train").save_to_disk(tmp_path / "saved")
    found = issues_of(load_from_disk(tmp_path / "saved"), [0] * 4).to_dataset()
    assert found["image"][:] == ["0.png", "1.png", "0.png", "1.png"]


def test_images_and_sounds_without_a_path_are_left_out_and_told():
    stored = [{"bytes": b"x", "path": None}] * 3
    features = Features({"image": Image(), "label": Value("int64")})
    issues = issues_of(Dataset.from_dict({"image": stored, "label": [0, 1, 0]}, features=features), [1] * 3)
    assert issues.left_out == {"image": "no path"} and "image" not in issues.to_dataset().column_names
    stored[1] = {"bytes": None, "path": "a.wav"}
    features = Features({"audio": Audio(), "label": Value("int64")})
    sounds = pa.array(stored, pa.struct({"bytes": pa.binary(), "path": pa.string()}))  # no library encodes them
    issues = issues_of(Dataset.from_dict({"audio": sounds, "label": [0, 1, 0]}, features=features), [1] * 3)
    assert issues.left_out == {"audio": "no path in 2 of 3 rows"}
    assert issues.to_dataset()["audio"][:] == [None, "a.wav", None]


def test_bytes_and_lists_of_numbers_are_left_out_and_told(tmp_path):
    rows = Dataset.from_dict(
        {
            "raw": [b"\x00", b"\x01"],
            "kept": [{"bytes": b"x", "path": "a.png"}, {"bytes": b"y", "path": "b.png"}],
            "ids": [[1, 2], [3]],
            "grid": [[[0.0, 1.0]], [[2.0, 3.0]]],
            "label": [0, 1],
        },
        features=Features(
            {
                "raw": Value("binary"),
                "kept": {"bytes": Value("binary"), "path": Value("string")},
                "ids": List(Value("int64")),
                "grid": Array2D((1, 2), "float32"),
                "label": Value("int64"),
            }
        ),
    )
    issues = issues_of(rows, [1, 0])
    assert issues.left_out == {"raw": "bytes without a path", "ids": "numbers", "grid": "numbers"}
    assert issues.to_dataset()["kept"][:] == ["a.png", "b.png"]


@pytest.mark.parametrize("ending", BUILDERS)
def test_nested_text_stays_and_is_json_in_a_csv(tmp_path, ending):
    talk = [[{"role": "user", "content": 'so, "hi"\n🙂', "ids": [1, 2]}], []]
    rows = Dataset.from_dict({"messages": talk, "tags": [["a"], None], "label": [0, 1]})
    held = read(issues_of(rows, [1, 0]).save(tmp_path / f"issues.{ending}"))
    wanted = [[{"role": "user", "content": 'so, "hi"\n🙂'}], []]
    values = [json.loads(value) if ending == "csv" else value for value in held["messages"]]
    assert values == wanted
    tags = json.loads(held["tags"][0]) if ending == "csv" else held["tags"][0]
    assert tags == ["a"] and not held["tags"][1]


def test_images_in_lists_are_paths():
    features = Features({"images": List(Image()), "label": Value("int64")})
    stored = [[{"bytes": b"x", "path": "a.png"}, {"bytes": b"y", "path": None}], []]
    found = issues_of(Dataset.from_dict({"images": stored, "label": [0, 1]}, features=features), [1, 0]).to_dataset()
    assert found["images"][:] == [["a.png", None], []]


# ----------------------------------------------------------------- the table
def shown(table, width=80):
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize("kind", ["string", "large_string"])
def test_the_table_shows_names_and_text_at_80_columns(kind):
    rows = labelled(["the film was [bold]fine[/] 🙂" + " and so on" * 9, "bad, bad, bad"], kind)
    text = shown(issues_of(rows, [1, 0]).table())
    assert "0.900" in text and "bad" in text and "good" in text
    assert "suggested" in text and "rather" not in text
    assert "[bold]fine" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_table_shows_paths_where_there_is_no_text(pictures):
    rows = load_dataset("imagefolder", data_dir=str(pictures), split="train")
    text = shown(issues_of(rows, [1, 1, 0, 0], [1]).table(), width=300)
    assert "cat" in text and "1.png" in text


def test_a_column_of_the_dataset_that_is_called_like_one_of_the_list_gives_way():
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1], "sage_row": [7, 3], "sage_action": ["x", "y"]})
    found = issues_of(rows, [1, 0]).to_dataset()
    assert found["sage_row"][:] == [7, 3] and found["sage_action"][:] == ["", ""]
    assert found.features["sage_row"].pa_type == pa.int64()
