"""A selection shows itself in a notebook, whatever its groups are called, on light and on dark."""

import copy
import re
from dataclasses import replace

import pytest

from sage_hf import SageConfig, SageSelector
from sage_hf.report import render_small

from ..cases import image_rows, vit
from .facts import facts, seen
from .reader import read


@pytest.fixture(scope="module")
def selection():
    config = SageConfig(fraction=0.2, sketch_size=8, shard_size=16, batch_size=8)
    return SageSelector(vit(), config=config).select(image_rows(30))


def test_it_tells_what_was_kept_by_group_with_charts(selection):
    page = read(selection._repr_html_())
    assert page.text.startswith("Kept 6 of 30 rows.")
    assert page.tags.count("tr") == 1 + len(selection.group_table)
    words = [word for tag, word in page.words if tag == "th"]
    assert [group.name for group in selection.group_table] == words[6:]
    charts = [each for each in page.of("svg") if each.get("role") == "img"]
    assert len(charts) == min(3, len(selection.group_table))
    assert page.of("img") == []


def test_scores_that_mean_little_are_told_and_others_not(selection):
    held = copy.copy(selection)
    meaning = replace(held.stats.meaning, accuracy=0.2, majority=0.5, mean_loss=3.0, judged=30)
    held.stats = replace(held.stats, meaning=meaning)
    assert held.stats.warning in read(held._repr_html_()).text
    held.stats = replace(held.stats, meaning=None)
    assert "mean little" not in read(held._repr_html_()).text


def test_of_many_groups_the_largest_are_listed_and_the_rest_counted():
    shown = seen(groups=33)
    table = [replace(entry, rows=100 - number) for number, entry in enumerate(shown.table)]
    page = read(render_small(facts(replace(shown, table=table))))
    assert "class 9" in page.text and "class 10" not in page.text
    assert "and 23 smaller groups" in page.text


def test_several_in_one_notebook_do_not_clash_and_leave_its_style_alone(selection):
    html = selection._repr_html_()
    page = read(html)
    assert not any("id" in attributes for _, attributes in page.elements)
    (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
    rules = re.findall(r"([^{}]+)\{", style)
    assert rules and all(part.strip().startswith(".sage-hf") for rule in rules for part in rule.split(","))


def test_its_words_take_the_colour_of_what_is_around(selection):
    (style,) = re.findall("<style>(.*?)</style>", selection._repr_html_(), re.DOTALL)
    assert not re.search(r"(?<![-\w])(color|background(-color)?): (?!inherit|none)", style)
    assert "fill: currentColor" in style


def test_no_row_is_read_for_it(selection):
    held = copy.copy(selection)
    held.source = None
    assert read(held._repr_html_()).text == read(selection._repr_html_()).text
