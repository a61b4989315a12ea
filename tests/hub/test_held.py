"""What may not get into a file of rows is told by its column and row."""

import pytest
from datasets import Audio, Dataset, Features, Image, List, Translation, Value
from PIL import Image as Picture

from sage_hf.errors import DatasetError
from sage_hf.hub.held import check_files, check_parquet, check_saved


@pytest.fixture
def files(tmp_path):
    Picture.new("L", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "a.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVE")
    (tmp_path / "key").write_text("PRIVATE")
    return tmp_path


def test_files_of_the_columns_kind_and_bytes_are_taken(files):
    stored = [{"bytes": None, "path": str(files / "a.png")}, {"bytes": b"anything", "path": "gone"}, None]
    check_files(Dataset.from_dict({"it": stored}, features=Features({"it": Image()})))
    check_files(Dataset.from_dict({"it": [stored]}, features=Features({"it": List(Image(decode=False))})))
    sounds = Dataset.from_dict({"it": [{"bytes": None, "path": str(files / "a.wav")}]}).cast_column("it", Audio())
    check_files(sounds)


@pytest.mark.parametrize(("name", "words"), [("key", "no file of the column's kind"), ("gone", "There is no file")])
def test_other_files_are_refused_by_column_and_row(files, name, words):
    stored = [{"bytes": None, "path": str(files / "a.png")}, {"bytes": None, "path": str(files / name)}]
    rows = Dataset.from_dict({"it": stored}, features=Features({"it": Image()}))
    with pytest.raises(DatasetError, match=f"{words}.*column 'it', row 1"):
        check_files(rows)


def test_columns_that_cannot_be_saved_are_named():
    check_parquet(Features({"a": Value("string")}), "x")
    with pytest.raises(DatasetError, match="column 'said'"):
        check_saved(Features({"it": Image(), "said": Translation(["de", "en"])}))
    check_saved(Features({"said": Translation(["de", "en"])}))
