"""A selection reports itself: with its source, without, from a stream, with one group, with sound and images."""

from dataclasses import replace

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Image, load_from_disk
from PIL import Image as Pillow

from sage_hf import SageConfig, SageSelector, Selection
from sage_hf.data.status import OUTCOMES
from sage_hf.errors import OutputError
from sage_hf.selection import StreamSelection
from sage_hf.selection.html_report import report_facts

from ..cases import image_rows, vit
from ..report.reader import read


def rows(count=60):
    """Images with names of classes that are markup, and a text column."""
    made = image_rows(count).cast_column("label", ClassLabel(names=["<b>cat</b>", "dog", "a & b"]))
    return made.add_column("text", [f"<i>row {number}</i>" for number in range(count)])


def small(**settings):
    return SageConfig(**{"fraction": 0.2, "sketch_size": 8, "shard_size": 16, "batch_size": 8, **settings})


@pytest.fixture(scope="module")
def selection():
    return SageSelector(vit(), config=small()).select(rows())


def test_the_page_is_returned_and_written(selection, tmp_path):
    page = selection.report(tmp_path / "folder" / "report.html")
    assert (tmp_path / "folder" / "report.html").read_text(encoding="utf-8") == page
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["report.html"]
    assert selection.report() == page
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        selection.report(tmp_path / "file" / "report.html")


def test_what_became_of_every_row_is_told(selection):
    told = report_facts(selection).outcomes
    assert sum(told.values()) == 60
    assert told["kept"] == len(selection)
    assert list(told) == [name for name in OUTCOMES if name in told]


def test_rows_are_shown_as_they_are_with_names_of_classes(selection):
    facts = report_facts(selection)
    highest = facts.typical[0]
    order = np.argsort(-selection.scores, kind="stable")
    assert [row.row for row in highest.rows] == order[:12].tolist()
    page = read(selection.report())
    assert f"<i>row {order[0]}</i>" in page.text
    assert "<b>cat</b>" in page.text and "b" in page.tags
    assert any(each["src"].startswith("data:image/png;base64,") for each in page.of("img"))
    assert facts.note == ""


def test_without_the_source_kept_rows_are_shown_and_it_is_said(selection, tmp_path):
    selection.save_to_disk(tmp_path / "held")
    held = Selection.load_from_disk(tmp_path / "held")
    facts = report_facts(held)
    assert "not available" in facts.note
    kept = facts.typical[0]
    assert kept.title == "Kept rows" and kept.total == len(selection)
    assert all(row.content is not None for row in kept.rows)
    assert f"<i>row {selection.indices[0]}</i>" in read(held.report()).text
    bare = selection.save_to_disk(tmp_path / "bare", include_dataset=False)
    assert "Its content is not available." in read(Selection.load_from_disk(bare).report()).text


def test_a_stream_reports_what_is_known_of_it(tmp_path):
    stream = SageSelector(vit(), config=small()).select(rows().to_iterable_dataset())
    page = read(stream.report())
    assert "chosen from a stream" in page.text and "Rows as they are" not in page.text
    held = StreamSelection.load_from_disk(stream.save_to_disk(tmp_path / "held"))
    page = read(held.report())
    assert "Rows as they are" in page.text
    best = held.indices[np.argmax(held.kept_scores)]
    assert f"<i>row {best}</i>" in page.text
    assert held._repr_html_() and load_from_disk(str(tmp_path / "held")) is not None


def test_without_groups_and_gate_there_is_less_to_tell():
    config = small(strategy="agreement", gate=None, group_by=None)
    facts = report_facts(SageSelector(vit(), config=config).select(rows()))
    assert [each.title for each in facts.typical] == ["Highest agreement", "Lowest agreement"]
    assert facts.duplicates is None and set(facts.outcomes) == {"kept", "not chosen"}


def test_rows_set_aside_are_told_with_their_reason(selection):
    status = selection.status.copy()
    status[[3, 5]] = 1
    held = replace(selection, status=status, indices=np.setdiff1d(selection.indices, [3, 5]))
    held.stats.set_aside = 2
    try:
        facts = report_facts(held)
        assert facts.set_aside == {"gradient or loss not finite": [3, 5]}
        assert [row.row for row in facts.set_aside_rows] == [3, 5]
        assert "3, 5" in read(held.report()).text
    finally:
        held.stats.set_aside = 0


def test_rows_whose_files_are_gone_leave_the_rest_of_the_report(selection, tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(60)]
    for path in paths:
        Pillow.new("RGB", (4, 4)).save(path)
    source = Dataset.from_dict({"image": paths}).cast_column("image", Image())
    held = replace(selection, source=source)
    assert report_facts(held).note == ""
    for path in tmp_path.glob("*.png"):
        path.unlink()
    facts = report_facts(held)
    assert "reading them failed" in facts.note
    assert str(tmp_path) not in facts.note
    assert "rows kept" in read(held.report()).text
