"""A corrected dataset on disk, and its card."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value, load_dataset, load_from_disk
from huggingface_hub import DatasetCard
from PIL import Image as Pictures

from sage_hf.errors import OutputError
from sage_hf.selector.cleaned_output import save_cleaned
from sage_hf.selector.cleaning import cleaned

from .issue_cases import TEXTS, issues_of

CLASSES = ["b|d", "<i>good</i>", "idle"]
BUILDERS = {"csv": "csv", "jsonl": "json", "json": "json", "parquet": "parquet"}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def done():
    """Two rows relabelled and one dropped of ten."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=CLASSES), "number": Value("float64")})
    columns = {"text": TEXTS, "label": [n % 2 for n in range(10)], "number": [1 / 3, None, *range(8)]}
    rows = Dataset.from_dict(columns, features=features)
    issues = issues_of(rows, [1 - label for label in rows["label"]], [0, 2, 3, 4]).to_dataset()
    actions = ["relabel", "relabel", "drop", "keep"]
    return cleaned(rows, issues.remove_columns("sage_action").add_column("sage_action", actions))


@pytest.mark.parametrize("name", ["clean", "clean-v1.2", "deep/clean"])
def test_a_folder_opens_as_a_dataset_and_its_card_tells_what_was_done(done, tmp_path, name):
    place = tmp_path / name
    card = save_cleaned(done, place, source_name="reviews.jsonl")
    assert card == place / "README.md"
    rows = load_from_disk(place)
    assert rows[:] == done.dataset[:] and rows.features["label"].names == CLASSES
    told = DatasetCard.load(card)
    assert told.data.pretty_name == "reviews.jsonl, labels corrected"
    for line in (
        "| before | 10 |",
        "| on the list | 4 |",
        "| relabelled | 2 |",
        "| dropped | 1 |",
        "| on the list, kept as they were | 1 |",
        "| now | 9 |",
        r"| b\|d | \<i\>good\</i\> | 2 |",
        r"| \<i\>good\</i\> | 1 |",
        r"| 0 | b\|d |",
    ):
        assert line in told.text.splitlines(), told.text
    assert str(tmp_path) not in told.text and "reviews.jsonl" in told.text
    assert list(place.parent.glob(".*")) == []


@pytest.mark.parametrize("ending", BUILDERS)
def test_a_file_holds_the_rows_as_they_are_with_its_card_beside(done, tmp_path, ending):
    card = save_cleaned(done, tmp_path / f"clean.{ending}")
    assert card == tmp_path / "clean.README.md" and "| dropped | 1 |" in card.read_text()
    rows = load_dataset(BUILDERS[ending], data_files=str(tmp_path / f"clean.{ending}"), split="train")
    wanted = done.dataset[:]
    if ending == "csv":  # where an empty text and none are the same
        assert rows["text"][:] == [None if text == "NA" else text for text in wanted["text"]]
    else:
        assert rows["text"][:] == wanted["text"]
    assert [rows[name][:] for name in ("label", "number", "sage_row")] == [
        wanted[name] for name in ("label", "number", "sage_row")
    ]
    if ending == "parquet":
        assert rows.features["label"].names == CLASSES


def test_the_code_in_the_card_runs(done, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cle'an", "clean.jsonl"):
        code = save_cleaned(done, name).read_text().split("```python\n")[1].split("```")[0]
        held = {}
        exec(code, held)
        assert held["rows"]["label"][:] == done.dataset["label"][:]


def test_nothing_to_tell_leaves_no_empty_tables(tmp_path):
    rows = Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]})
    issues = (
        issues_of(rows, ["y", "x"]).to_dataset().remove_columns("sage_action").add_column("sage_action", ["keep"] * 2)
    )
    text = save_cleaned(cleaned(rows, issues), tmp_path / "clean").read_text()
    assert not any(f"## {head}" in text for head in ("Relabelled", "Dropped", "Classes"))
    assert "| on the list, kept as they were | 2 |" in text


def test_what_is_there_is_not_lost(done, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="is not empty"):
            save_cleaned(done, tmp_path / "other", overwrite)
    for name in ("clean", "clean.jsonl"):
        save_cleaned(done, tmp_path / name)
        with pytest.raises(OutputError, match=r"(already exists|is not empty).*pass overwrite"):
            save_cleaned(done, tmp_path / name)
        save_cleaned(done, tmp_path / name, overwrite=True)
    with pytest.raises(OutputError, match="cannot be written"):
        save_cleaned(done, tmp_path / "clean.txt")


def picture_rows(folder):
    folder.mkdir()
    Pictures.new("RGB", (4, 4), (9, 8, 7)).save(folder / "a.png")
    features = Features({"image": Image(), "label": ClassLabel(names=["x", "y"])})
    rows = Dataset.from_dict({"image": [str(folder / "a.png")] * 2, "label": [0, 1]}, features=features)
    issues = issues_of(rows, [1, 0], [1]).to_dataset()
    return cleaned(rows, issues.remove_columns("sage_action").add_column("sage_action", ["relabel"]))


@pytest.mark.parametrize("name", ["clean", "clean.parquet"])
def test_images_travel_in_what_is_written(tmp_path, name):
    done = picture_rows(tmp_path / "pictures")
    save_cleaned(done, tmp_path / name)
    (tmp_path / "pictures" / "a.png").unlink()
    place = tmp_path / name
    rows = load_from_disk(place) if place.is_dir() else load_dataset("parquet", data_files=str(place), split="train")
    assert rows["label"][:] == [0, 0] and rows[1]["image"].getpixel((0, 0)) == (9, 8, 7)
    assert str(tmp_path) not in json.dumps(rows.cast_column("image", Image(decode=False))[0]["image"]["path"])


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_file_of_text_holds_the_paths_of_images_and_no_bytes(tmp_path, ending):
    done = picture_rows(tmp_path / "pictures")
    save_cleaned(done, tmp_path / f"clean.{ending}")
    kind = {"csv": "csv", "jsonl": "json"}[ending]
    rows = load_dataset(kind, data_files=str(tmp_path / f"clean.{ending}"), split="train")
    assert Path(rows["image"][0]) == tmp_path / "pictures" / "a.png"
    (stored,) = {done.dataset.cast_column("image", Image(decode=False))[0]["image"]["path"]}
    held = [{"bytes": Path(stored).read_bytes(), "path": None}] * len(done.dataset)
    without = done.dataset.remove_columns("image").add_column("image", held, feature=Image())
    with pytest.raises(OutputError, match="not stored as separate files"):
        save_cleaned(replace(done, dataset=without), tmp_path / f"other.{ending}")


def test_a_csv_cannot_hold_lists(tmp_path):
    rows = Dataset.from_dict({"tokens": [[1], [2]], "label": [0, 1]})
    issues = (
        issues_of(rows, [1, 0], [1]).to_dataset().remove_columns("sage_action").add_column("sage_action", ["drop"])
    )
    with pytest.raises(OutputError, match=r"lists or dicts of column 'tokens'.*jsonl"):
        save_cleaned(cleaned(rows, issues), tmp_path / "clean.csv")
    save_cleaned(cleaned(rows, issues), tmp_path / "clean.jsonl")
    assert json.loads((tmp_path / "clean.jsonl").read_text())["tokens"] == [1]
