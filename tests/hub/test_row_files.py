"""Files of rows hold names and paths, never numbers of classes and bytes of images."""

import io

import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Picture

from sage_hf.errors import OutputError
from sage_hf.hub.row_files import check_table_rows, write_rows

FEATURES = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"]), "note": Value("string")})


def rows(images):
    return Dataset.from_dict({"image": images, "label": [1, 0], "note": ["[b]", None]}, features=FEATURES)


def test_images_are_the_paths_of_their_files_and_classes_their_names(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")]
    for path in paths:
        Picture.new("L", (2, 2)).save(path)
    place = write_rows(rows(paths), tmp_path / "kept.csv")
    assert place.read_text().splitlines() == [
        '"image","label","note"',
        f'"{paths[0]}","dog","[b]"',
        f'"{paths[1]}","cat",',
    ]
    read = Dataset.from_json(str(write_rows(rows(paths), tmp_path / "kept.jsonl")))
    assert read["image"][:] == paths and read["label"][:] == ["dog", "cat"]
    kept = Dataset.from_parquet(str(write_rows(rows(paths), tmp_path / "kept.parquet")))
    assert kept.features["label"].names == ["cat", "dog"] and kept[0]["image"].size == (2, 2)
    with pytest.raises(OutputError, match="pass overwrite=True"):
        write_rows(rows(paths), place)
    assert write_rows(rows(paths), place, overwrite=True) == place


def test_images_without_files_are_refused_before_a_run_for_text_and_kept_in_parquet(tmp_path):
    file = io.BytesIO()
    Picture.new("L", (2, 2)).save(file, "png")
    held = rows([{"bytes": file.getvalue(), "path": None}] * 2)
    with pytest.raises(OutputError, match=r"not stored as separate files.*\.parquet"):
        check_table_rows(tmp_path / "kept.csv", held)
    check_table_rows(tmp_path / "kept.parquet", held)
    write_rows(held, tmp_path / "kept.parquet")
    assert Dataset.from_parquet(str(tmp_path / "kept.parquet"))[1]["image"].size == (2, 2)


def test_classes_that_are_the_only_column_are_written(tmp_path):
    labels = rows([None, None]).select_columns("label")
    assert write_rows(labels, tmp_path / "kept.csv").read_text().splitlines() == ['"label"', '"dog"', '"cat"']


def test_classes_in_a_column_without_a_name_are_written(tmp_path):
    labels = rows([None, None]).select_columns("label")
    unnamed = Dataset(labels.data.table.rename_columns([""]))
    unnamed = unnamed.cast(Features({"": labels.features["label"]}))
    assert write_rows(unnamed, tmp_path / "kept.csv").read_text().splitlines() == ['""', '"dog"', '"cat"']
