"""`sage-hf report` writes a page of what a folder holds, and tells what is wrong with its words."""

import pytest
from typer.testing import CliRunner

from sage_hf import SageConfig, SageSelector
from sage_hf.cli.main import app

from ..cases import image_rows, vit
from ..report.reader import read


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("selections")
    source = image_rows(40)
    source.save_to_disk(str(place / "rows"))
    config = SageConfig(fraction=0.2, sketch_size=8, shard_size=16, batch_size=8)
    SageSelector(vit(), config=config).select(source).save_to_disk(place / "kept")
    SageSelector(vit(), config=config).select(source.to_iterable_dataset()).save_to_disk(place / "stream")
    return place


def run(*words):
    return CliRunner().invoke(app, ["report", *map(str, words)])


def flat(result):
    return " ".join(result.output.split())


def test_the_page_lies_in_the_folder_or_where_it_is_wanted(folder, tmp_path):
    result = run(folder / "kept")
    assert result.exit_code == 0, result.output
    assert "8 of 40 rows kept" in read((folder / "kept" / "report.html").read_text(encoding="utf-8")).text
    result = run(folder / "kept", "-o", tmp_path / "a.html", "--dataset", folder / "rows")
    assert result.exit_code == 0, result.output
    page = read((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert "not available" not in page.text
    assert str(folder) not in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_a_stream_has_a_page(folder, tmp_path):
    result = run(folder / "stream", "-o", tmp_path / "a.html")
    assert result.exit_code == 0, result.output
    assert "chosen from a stream" in read((tmp_path / "a.html").read_text(encoding="utf-8")).text
    wrong = run(folder / "stream", "-o", tmp_path / "a.html", "--dataset", folder / "rows")
    assert wrong.exit_code == 1 and "Leave it out" in flat(wrong)


def test_wrong_words_are_told(folder, tmp_path):
    assert "Choose a name that ends in .html" in flat(run(folder / "kept", "-o", tmp_path / "a.pdf"))
    assert "holds no selection" in flat(run(tmp_path))
    assert not list(tmp_path.iterdir())
