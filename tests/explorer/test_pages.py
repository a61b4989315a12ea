"""Parts of the page say what is so, and show what comes from data as it is."""

from html.parser import HTMLParser

import numpy as np

from sage_hf.explorer.pages import (
    card_html,
    groups_html,
    link_html,
    marks_html,
    message_html,
    place_html,
    style,
    summary_html,
)
from sage_hf.explorer.state import Explored, Settings, page_of
from sage_hf.selection.rows import rows_at

from .conftest import NAMES, NOTE

VOID = {"img", "rect"}


class Reader(HTMLParser):
    """Text and tags of a part of a page; tags must be closed in order."""

    def __init__(self, page):
        super().__init__()
        self.text, self.tags, self.sources, self.open = "", set(), [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.sources += [value for name, value in attributes if name == "src"]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_card_shows_image_note_label_and_scores_and_no_markup_of_the_data(selection):
    for row in rows_at(selection, np.arange(30)):
        page = Reader(card_html(row, has_groups=True))
        assert NOTE in page.text and " ".join(row.label.split()) in page.text
        assert page.sources and all(source.startswith("data:image/png;base64,") for source in page.sources)
        assert not page.tags & {"script", "b", "style", "iframe"}
        assert f"row {row.row}" in page.text and "agreement" in page.text


def test_the_summary_counts_what_changed(selection):
    state = Explored.of(selection)
    assert "42 of 420 rows kept" in Reader(summary_html(state)).text
    assert "as it was opened" in summary_html(state)
    other = state.choose(Settings(0.2, "loss", "proportional", "none"))
    page = Reader(summary_html(other)).text
    assert "84 of 420 rows kept" in page and "newly kept" in page and "kept 42" in page


def test_groups_are_listed_by_their_names_with_rows_before_and_now(selection):
    state = Explored.of(selection).choose(Settings(0.3, "loss", "equal", "none"))
    page = Reader(groups_html(state))
    for name, group in zip(NAMES, state.chosen.stats.groups, strict=True):
        assert " ".join(name.split()) in page.text and f"{group.kept}" in page.text
    assert "b" not in page.tags


def test_marks_places_and_messages_are_told(selection):
    state = Explored.of(selection)
    assert "No label is marked" in marks_html(state)
    state = state.mark(3, "class:drop").mark(4, "<i>")
    page = Reader(marks_html(state))
    assert (
        "2 marked" in page.text
        and "relabel: drop" in page.text
        and "relabel: <i>" in page.text
        and "i" not in page.tags
    )
    assert "Rows 11–20 of 42" in Reader(place_html(page_of(state, "kept", -1, 1, 10))).text  # noqa: RUF001
    assert "There are none" in place_html(page_of(state, "set-aside", -1, 0, 10))
    assert message_html("") == "" and 'role="alert"' in message_html("<x>", is_error=True)
    assert "&lt;x&gt;" in message_html("<x>") and 'href="https://a.b/c"' in link_html("Pushed:", "https://a.b/c")


def test_the_style_asks_for_nothing_from_elsewhere():
    assert "url(" not in style() and "@import" not in style() and "http" not in style()
