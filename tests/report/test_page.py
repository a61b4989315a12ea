"""A report is one whole page that needs nothing else, tells all there is, and lets no data become markup."""

import itertools
import re
from dataclasses import replace
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_hf import SageConfig
from sage_hf.report import RowList, render_page, render_small
from sage_hf.report.page import changed_settings, group_lines

from .facts import HOSTILE, OneRow, facts, hostile_facts, seen
from .reader import read

TAGS = {*read(render_page(facts())).tags, *read(render_page(hostile_facts("plain"))).tags}


def check_is_alone(page):
    """Nothing of a page comes from elsewhere, and nothing in it runs."""
    assert not {"script", "iframe", "object", "embed", "base", "form"} & {*page.tags}
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/", "data:,"))


def test_the_page_is_whole_and_alone():
    html = render_page(facts())
    assert html.startswith("<!DOCTYPE html>")
    page = read(html)
    check_is_alone(page)
    assert not re.search(r"url\((?!#)|@import", html)
    (policy,) = (each["content"] for each in page.of("meta") if "http-equiv" in each)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_parts_come_in_their_order_with_headings_that_name_them():
    page = read(render_page(hostile_facts("plain")))
    sections = page.of("section")
    named = ["chosen", "groups", "scores", "spectrum", "rows", "duplicates", "aside", "facts"]
    assert [each["id"] for each in sections] == named
    links = [each["href"][1:] for each in page.of("a") if "class" not in each]
    assert links == named
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name in attributes.get("aria-labelledby", "").split():
            assert name in ids
    levels = [int(tag[1]) for tag in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_what_was_chosen_and_why_is_told_first():
    text = read(render_page(facts(why=["Because."], outcomes={"kept": 45, "not chosen": 135}))).text
    top = text[: text.index("Share kept per group")]
    for words in ("45 of 180 rows kept", "fraction 0.25", "auto", "5.0 %", "70.0 %", "Because.", "135"):
        assert words in top


def test_charts_and_tables_have_words_for_those_who_do_not_see_them():
    page = read(render_page(facts(outcomes={"kept": 45, "not chosen": 135})))
    images = [each for each in page.of("svg") if each.get("role") == "img"]
    assert len(images) == 1 + 3 + 2
    assert all(each.get("role") == "img" or each.get("aria-hidden") == "true" for each in page.of("svg"))
    assert page.tags.count("desc") == len(images)
    assert page.tags.count("caption") == page.tags.count("table") == 3
    assert all(each.get("scope") in ("row", "col") for each in page.of("th"))
    assert "15 kept: half of them between" in page.text
    for each in page.of("div"):
        if each.get("class") == "scroll":
            assert each["tabindex"] == "0" and each["role"] == "region"


@pytest.mark.parametrize("render", [render_page, render_small])
def test_hostile_names_stay_text(render):
    page = read(render(hostile_facts()))
    check_is_alone(page)
    assert {*page.tags} <= TAGS | {"div", "style"}
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "\x00" not in page.text and "\u202e" not in page.text


@given(st.text(min_size=1, max_size=60))
def test_any_name_stays_text(name):
    page = read(render_page(hostile_facts(name)))
    check_is_alone(page)
    assert {*page.tags} <= TAGS
    render_page(hostile_facts(name)).encode("utf-8")


def test_one_group_and_a_thousand_are_told():
    one = read(render_page(facts(seen(groups=1)))).text
    assert "All rows are one group." in one and "smaller groups" not in one
    html = render_page(facts(seen(groups=1000, rows=20)))
    many = read(html)
    assert "The 20 largest of 1,000 groups" in many.text
    assert "980 smaller groups" in many.text and "988 smaller groups are not drawn" in many.text
    assert len(html) < 200_000


def test_smaller_groups_are_summed_and_shares_are_of_the_largest():
    shown = seen(groups=25, rows=40)
    table = group_lines(shown.table)
    assert table.smaller == 5
    assert (table.others.entry.rows, table.others.entry.kept) == (200, 50)
    assert all(0 < line.width <= 1 for line in table.lines)
    assert table.overall == pytest.approx(0.25)


def test_a_stream_without_rows_and_other_scores_is_told():
    page = read(render_page(facts(seen(others=False), note="Of a stream.", gate=None)))
    assert "For a stream, only the scores of kept rows are known" in page.text
    assert "not kept" not in page.text
    assert "rows" not in [each["id"] for each in page.of("section")]
    assert "no rows were taken out before the choice" in page.text


def test_a_spectrum_without_energy_and_groups_without_scores_are_told():
    shown = seen()
    shown = replace(shown, kept=[part[:0] for part in shown.kept], spectrum=[0.0], squared_norm=0.0)
    text = read(render_page(facts(shown))).text
    assert "The spectrum is empty." in text and "No rows kept" in text


def test_rows_that_are_not_at_hand_and_rows_cut_off_are_told():
    rows = [OneRow(1234, content=None), OneRow(5, content={"text": "word " * 500})]
    text = read(render_page(facts(typical=[RowList("Highest", "", rows, 99), RowList("None such", "", [])]))).text
    assert "row 1234" in text and "Its content is not available." in text
    assert "(2,500 characters)" in text
    assert "2 of 99 are shown." in text and "There are none." in text


def test_the_command_and_changed_settings_are_told():
    config = SageConfig(num_examples=45, strategy="agreement", text_columns=["a", "b"])
    page = read(render_page(facts(config=config, command=["sage-hf", "select", "a b", "c"])))
    assert "sage-hf select 'a b' c" in page.text
    assert changed_settings(config, 64, 1000) == {
        "num_examples": "45",
        "strategy": "agreement",
        "text_columns": "a, b",
    }
    assert (
        "SageConfig(num_examples=45, strategy='agreement', text_columns=['a', 'b'])"
        in read(render_page(facts(config=config))).text
    )


def test_what_auto_came_to_is_no_setting_of_the_user():
    config = SageConfig(fraction=0.1).settled(3872, 1000)
    assert (config.sketch_size, config.batch_size) == (121, 128)
    assert changed_settings(config, 3872, 1000) == {"fraction": "0.1"}
    assert changed_settings(replace(config, sketch_size=32), 3872, 1000) == {"fraction": "0.1", "sketch_size": "32"}


def test_python_that_does_it_again_names_what_encoded_the_rows():
    text = read(render_page(facts())).text
    assert "SageSelector(model, processing_class=processing_class, config=SageConfig(" in text
    assert "128 rows a batch" in read(render_page(facts(config=SageConfig(batch_size=128)))).text


def test_the_same_facts_are_the_same_bytes():
    assert render_page(hostile_facts()) == render_page(hostile_facts())


def colours(text):
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", text))


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_words_can_be_read_on_light_and_dark_and_paper():
    style = (files("sage_hf.report") / "templates" / "style.css").read_text(encoding="utf-8")
    light = colours(style[: style.index("@media (prefers-color-scheme: dark)")])
    dark = colours(style[style.index("@media (prefers-color-scheme: dark)") : style.index("*, *::before")])
    paper = light | colours(style[style.index("@media print") :])
    for scheme in (light, dark, paper):
        for words in ("text", "soft", "link", "kept"):
            for ground in ("page", "card"):
                assert contrast(scheme[words], scheme[ground]) >= 4.5, (words, ground)
        assert contrast(scheme["text"], scheme["warn"]) >= 4.5
        # Shapes: WCAG asks for 3.
        for shape in ("kept", "other-edge", "ink"):
            assert contrast(scheme[shape], scheme["page"]) >= 3.0, shape
    assert HOSTILE not in style
