"""A path means itself: this file, this folder; what cannot be read says so."""

import gzip
import json
import zipfile

import pytest
from datasets import Dataset, DatasetDict

from sage_hf.cli.rows import load_other_splits, load_rows
from sage_hf.errors import DatasetError

# Names that glob patterns, URLs or shells read otherwise.
ODD_NAMES = (
    "a[x]",
    "[!x]",
    "q?",
    "s*",
    "**",
    "sp ace",
    "ünï",
    "h#h",
    "p%20",
    "{b}",
    "~",
    ".hidden",
    "__d",
    "c:d",
    "[",
)
DECOYS = ("ax", "b", "q1", "s1")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def write(place, rows=({"text": "asked for", "label": 1},)):
    """Rows in a file of the kind that its ending names."""
    place.parent.mkdir(parents=True, exist_ok=True)
    data = Dataset.from_list(list(rows))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if place.name.endswith(".gz"):
        place.write_bytes(gzip.compress(lines.encode()))
    elif place.suffix == ".zip":
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr("inside/rows.jsonl", lines)
    elif place.suffix == ".parquet":
        data.to_parquet(str(place))
    elif place.suffix in (".csv", ".tsv"):
        data.to_csv(str(place), sep="\t" if place.suffix == ".tsv" else ",")
    else:
        place.write_text(lines, encoding="utf-8")
    return place


def texts(rows):
    return [row["text"] for row in rows]


# ------------------------------------------------------------------- files
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_path_is_no_pattern(tmp_path, name, streaming):
    for decoy in DECOYS:
        write(tmp_path / decoy / "rows.jsonl", [{"text": "another file", "label": 0}])
    place = write(tmp_path / name / "rows.jsonl")
    assert texts(load_rows(str(place), streaming=streaming)) == ["asked for"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("ending", ["json", "ndjson", "csv", "tsv", "parquet", "jsonl.gz", "zip", "JSONL"])
def test_every_kind_of_file_is_read_by_its_name(tmp_path, ending, streaming):
    name = "r[x]/rows" if ending.endswith("gz") else "rows[x]"
    write(tmp_path / f"{name.replace('[x]', 'x')}.{ending}", [{"text": "another file", "label": 0}])
    place = write(tmp_path / f"{name}.{ending}")
    (row,) = load_rows(str(place), streaming=streaming)
    assert (row["text"], row["label"]) == ("asked for", 1)


def test_a_path_from_home_or_from_here_is_found(tmp_path, monkeypatch):
    write(tmp_path / "rows [x].jsonl")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert texts(load_rows("~/rows [x].jsonl")) == texts(load_rows("rows [x].jsonl")) == ["asked for"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.jsonl", "", "file is empty"),
        ("empty.csv", "", "file is empty"),
        ("blank.jsonl", "\n \n", "no rows"),
        ("list.json", "[]", "no rows"),
        ("header.csv", "text,label\n", "no rows"),
        ("words.json", "hello there", "JSON parse error"),
        ("half.jsonl", '{"text": "a"}\n{"text": "b', "JSON parse error"),
        ("table.parquet", "no parquet", "Parquet"),
        ("broken.zip", "no zip", "end in '.zip' cannot be read"),
        ("rows.docx", "x", "end in '.docx' cannot be read.*jsonl"),
    ],
)
def test_a_file_without_rows_is_named_and_told_what_is_wrong(tmp_path, name, content, words, streaming):
    place = tmp_path / f"a[{name[0]}]" / name
    place.parent.mkdir()
    place.write_text(content)
    with pytest.raises(DatasetError, match=words) as caught:
        load_rows(str(place), streaming=streaming)
    assert caught.value.where == str(place)


@pytest.mark.parametrize("path", ["rows.jsonl", "./rows", "~/no such rows", "a/b/c", "/nowhere/rows.csv", "no[w]here"])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(path):
    with pytest.raises(DatasetError, match="no such file or folder"):
        load_rows(path)


def test_a_pattern_is_told_to_be_none(tmp_path):
    write(tmp_path / "rows.jsonl")
    with pytest.raises(DatasetError, match="patterns are not read"):
        load_rows(str(tmp_path / "*.jsonl"))


@pytest.mark.parametrize("name", ["a::b/rows.jsonl", "rows[x].jsonl.gz"])
def test_a_name_that_datasets_takes_apart_is_refused(tmp_path, name):
    with pytest.raises(DatasetError, match="Rename"):
        load_rows(str(write(tmp_path / name)))


# ----------------------------------------------------------------- folders
def split_files(folder):
    for decoy in ("fx", "f1"):
        write(folder.parent / decoy / "train.parquet", [{"text": "another file", "label": 0}])
    write(folder / "train-00000-of-00002.parquet", [{"text": "one", "label": 0}])
    write(folder / "train-00001-of-00002.parquet", [{"text": "two", "label": 0}])
    write(folder / "test-00000-of-00001.parquet", [{"text": "held out", "label": 0}])
    return str(folder)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["f[x]", "f?", "f*", "plain", "f [x] ü"])
def test_a_folder_of_shards_is_read_with_its_splits(tmp_path, name, streaming):
    folder = split_files(tmp_path / name)
    assert texts(load_rows(folder, streaming=streaming)) == ["one", "two"]
    assert texts(load_rows(folder, "test", streaming=streaming)) == ["held out"]
    assert {split: texts(rows) for split, rows in load_other_splits(folder, "train").items()} == {"test": ["held out"]}


@pytest.mark.parametrize("name", ["f[x]", "plain"])
def test_the_configurations_of_a_folders_readme_are_read(tmp_path, name):
    folder = tmp_path / name
    for size in ("small", "large"):
        write(folder / size / "rows.jsonl", [{"text": size, "label": 0}])
    configs = "".join(f"- config_name: {size}\n  data_files: {size}/*.jsonl\n" for size in ("small", "large"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert texts(load_rows(str(folder), config_name="large")) == ["large"]
    with pytest.raises(DatasetError, match="huge"):
        load_rows(str(folder), config_name="huge")


@pytest.mark.parametrize("name", ["f[x]", "plain"])
def test_images_in_folders_of_their_classes(tmp_path, name):
    from PIL import Image

    for label in ("cat", "dog[1]"):
        (tmp_path / name / label).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name / label / "1.png")
    rows = load_rows(str(tmp_path / name))
    assert rows.features["label"].names == ["cat", "dog[1]"]
    assert rows["label"][:] == [0, 1]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_saved_dataset_is_read_from_any_folder(tmp_path, streaming):
    parts = {split: Dataset.from_dict({"text": [split]}) for split in ("train", "test")}
    DatasetDict(parts).save_to_disk(str(tmp_path / "s[x]"))
    parts["train"].save_to_disk(str(tmp_path / "t[x]"))
    assert texts(load_rows(str(tmp_path / "s[x]"), "test", streaming=streaming)) == ["test"]
    assert texts(load_rows(str(tmp_path / "t[x]"), streaming=streaming)) == ["train"]
    assert list(load_other_splits(str(tmp_path / "s[x]"), "train")) == ["test"]


@pytest.mark.parametrize("name", ["f[x]", "plain"])
def test_a_folder_without_data_says_so(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match="contain any data files"):
        load_rows(str(tmp_path / name))
    with pytest.raises(DatasetError, match="contain any data files"):
        load_other_splits(str(tmp_path / name), "train")
    (tmp_path / name / "notes.foo").write_text("x")
    with pytest.raises(DatasetError, match="data files"):
        load_rows(str(tmp_path / name))


def test_a_dictionary_encoded_column_is_text(tmp_path):
    import pandas

    frame = pandas.DataFrame({"text": ["a", "b"], "label": pandas.Categorical(["x", "y"])})
    frame.to_parquet(tmp_path / "rows.parquet")
    assert load_rows(str(tmp_path / "rows.parquet"))["label"][:] == ["x", "y"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["file", "folder", "saved"])
def test_a_split_that_is_not_there_is_told_of_the_option(tmp_path, kind, streaming):
    place = tmp_path / "rows"
    if kind == "file":
        place = write(tmp_path / "rows.csv")
    elif kind == "folder":
        split_files(place)
    else:
        DatasetDict(train=Dataset.from_dict({"text": ["a"]})).save_to_disk(place)
    with pytest.raises(DatasetError, match="no split 'trian'") as caught:
        load_rows(str(place), "trian", streaming=streaming)
    assert caught.value.where == "--split"
    assert ("one split, train" in caught.value.fix) == (kind == "file") and "train" in caught.value.fix


def test_a_part_of_the_split_of_a_file_is_read(tmp_path):
    place = write(tmp_path / "rows.jsonl", [{"text": str(number)} for number in range(4)])
    assert texts(load_rows(str(place), "train[:2]")) == ["0", "1"]
