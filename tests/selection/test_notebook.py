"""A selection shows itself in a notebook, whatever its groups are called."""

import copy
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from sage_hf import SageConfig, SageSelector

from ..cases import image_rows, vit


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.words, self.sources = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name == "src"]

    def handle_data(self, data):
        self.words.append(data)


def read(html):
    reader = Reader()
    reader.feed(html)
    return reader


@pytest.fixture(scope="module")
def selection():
    config = SageConfig(fraction=0.2, sketch_size=8, shard_size=16, batch_size=8)
    return SageSelector(vit(), config=config).select(image_rows(30))


def test_it_tells_what_was_kept_by_group_with_the_picture(selection):
    page = read(selection._repr_html_())
    assert page.words[0] == "Kept 6 of 30 rows."
    assert page.tags.count("tr") == 1 + len(selection.group_table)
    for group in selection.group_table:
        assert group.name in page.words
    assert page.sources[0].startswith("data:image/png;base64,")
    assert len(page.sources) == 1


def test_scores_that_mean_little_are_told_and_others_not(selection):
    held = copy.deepcopy(selection)
    held.stats.meaning = replace(held.stats.meaning, accuracy=0.2, majority=0.5, mean_loss=3.0, judged=30)
    assert held.stats.meaning.warning in read(held._repr_html_()).words
    held.stats.meaning = None
    assert not any("mean little" in word for word in read(held._repr_html_()).words)


def test_names_of_groups_cannot_become_markup(selection):
    held = copy.deepcopy(selection)
    held.stats.groups[0].name = "<script>alert(1)</script>"
    page = read(held._repr_html_())
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.words


def test_of_many_groups_the_largest_are_listed_and_the_rest_counted(selection, monkeypatch):
    monkeypatch.setattr("sage_hf.hub.pictures.find_spec", lambda name: None)
    held = copy.deepcopy(selection)
    one = held.stats.groups[0]
    held.stats.groups = [replace(one, name=f"group {number}", rows=100 - number) for number in range(33)]
    page = read(held._repr_html_())
    assert "group 19" in page.words
    assert "group 20" not in page.words
    assert "and 13 smaller groups" in page.words


def test_without_matplotlib_the_table_stands_alone(selection, monkeypatch):
    monkeypatch.setattr("sage_hf.hub.pictures.find_spec", lambda name: None)
    page = read(selection._repr_html_())
    assert page.sources == []
    assert "table" in page.tags
