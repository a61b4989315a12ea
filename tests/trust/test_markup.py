"""Hostile names and texts in cards, on pages, in the terminal and in lists: they stay text.

Cards are parsed as Markdown, pages as HTML, metadata as the Hub's library reads it.
"""

import csv
import io
import json
import logging
import re
from dataclasses import replace

import pytest
from datasets import Dataset, Features, Value
from huggingface_hub import DatasetCard
from hypothesis import HealthCheck, given, settings
from markdown_it import MarkdownIt
from rich.console import Console

from sage_hf import Comparison
from sage_hf.cli.show import table_of
from sage_hf.comparison.runs import Run
from sage_hf.errors import SageError
from sage_hf.hub.dataset_card import Pushed, card_facts, merge, metadata, render_section
from sage_hf.hub.markdown import fill
from sage_hf.hub.tables import write_table
from sage_hf.report import render_page, render_small
from sage_hf.selection.report import summary
from sage_hf.selection.rows import ShownRow
from sage_hf.selector.cleaned_output import save_cleaned
from sage_hf.selector.cleaning import cleaned
from sage_hf.utils.console import PlainConsole

from ..report.facts import hostile_facts
from ..report.reader import read
from ..report.test_page import check_is_alone
from ..selector.issue_cases import issues_of
from .hostile import MARKUP, NAMES, small_selection
from .scale import cases, some, tried

CHANCE = list(HealthCheck)


@pytest.fixture(scope="module")
def selection():
    return small_selection()


PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def tags(markdown):
    """What a card is made of: the tags of the HTML that it becomes, raw HTML, links and headings among them."""
    made = []
    for token in PARSER.parse(markdown):
        for each in [token, *(token.children or [])]:
            if each.type in ("html_block", "html_inline"):
                made.append(each.content.strip())
            elif each.nesting == 1 or each.type in ("image", "fence"):
                made.append((each.tag, tuple(sorted(each.attrs.items()))))
    return made


def card_of(selection, name, config_name="default"):
    """A dataset card in which everything that comes from data is this name."""
    group = replace(selection.stats.groups[0], name=name)
    source = {"name": name, "id": None, "config": name, "split": name, "splits": [name], "revision": name}
    stats = replace(
        selection.stats,
        groups=[group],
        group_by=name,
        source=source,
        model={"class": name, "id": None, "revision": name},
        command=["sage-hf", "select", name],
        source_digest=name,
        model_fingerprint=name,
        strategy=name,
        consensus=name,
        versions={name: name},
        targets=[name],
        lost_groups=[name],
    )
    pushed = Pushed(
        "me/kept", config_name, "train", {"train": 6, name: 1}, pictures=["scores"], source_fingerprint=name
    )
    theirs = DatasetCard(
        f"---\nlicense: {json.dumps(name)}\n---\n## Citation\nCite:\n{name}\n## Next\n",
        ignore_metadata_errors=True,
    )
    facts = card_facts(stats, replace(selection.config, group_by=name, text_columns=[name]), pushed, theirs)
    return merge(None, render_section(facts), config_name, metadata(facts, theirs))


def check_dataset_card(selection, name):
    card = card_of(selection, name)
    again = DatasetCard(str(card), ignore_metadata_errors=True)
    assert set(again.data.to_dict()) <= {"license", "pretty_name", "tags", "size_categories"}
    assert again.data.to_dict() == card.data.to_dict()
    made, plain_ones = tags(again.text), tags(card_of(selection, "plain").text)
    assert made == plain_ones, [each for each in made if each not in plain_ones]
    assert not re.search(r"(?<![\\/\w])(https?://(?!huggingface\.co|arxiv\.org)|www\.)", again.text.split("```")[0])


@pytest.mark.parametrize("name", some(MARKUP, 12))
def test_a_hostile_name_changes_no_dataset_card(selection, name):
    check_dataset_card(selection, name)


@settings(max_examples=cases(15, 600), suppress_health_check=CHANCE)
@given(name=NAMES)
def test_any_name_changes_no_dataset_card(selection, name):
    tried()
    if name.strip():
        check_dataset_card(selection, name)


def comparison_of(name):
    runs = [
        Run(strategy, share, 0, 5, {name: 0.5}) for strategy, share in (("all", 1.0), ("random", 0.5), (name, 0.5))
    ]
    settings = {name: name, "rows": name}
    return Comparison(
        runs=runs,
        metric=name,
        greater_is_better=True,
        strategies=["random", name],
        fractions=[0.5],
        tolerance=0.01,
        settings=settings,
        guessing={},
        eval_rows=5,
    )


@settings(max_examples=cases(15, 400), suppress_health_check=CHANCE)
@given(name=NAMES)
def test_any_name_changes_no_comparison(name):
    tried()
    comparison = comparison_of(name)
    assert tags(comparison.card()) == tags(comparison_of("plain").card())
    check_terminal(comparison.table(), comparison.recommendation)


def check_terminal(*things):
    """Nothing that is printed moves a cursor, has a style of the data, or is taken for markup."""
    for make in (Console, PlainConsole):
        file = io.StringIO()
        console = make(file=file, width=100, force_terminal=False, color_system=None)
        for each in things:
            if not isinstance(each, str):
                console.print(each)
            elif make is PlainConsole:
                console.print(each, markup=False)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", file.getvalue()), (
            file.getvalue()
        )


@settings(max_examples=cases(15, 400), suppress_health_check=CHANCE)
@given(name=NAMES)
def test_any_name_stays_text_in_the_terminal(selection, name):
    tried()
    named = replace(
        selection,
        stats=replace(selection.stats, groups=[replace(selection.stats.groups[0], name=name)], group_by=name),
    )
    row = ShownRow(1, name, 0.5, 0.5, name, name, 0.5, name, {name: name})
    column = name.replace("\0", "")  # datasets has no column with a NUL in its name
    rows = Dataset.from_dict({column: ["x", "y"], "label": [name, "b"]}) if column != "label" else None
    things = [summary(named), table_of([row], 100), str(named)]
    if rows is not None:
        things.append(issues_of(rows, ["b", name]).table(5))
    check_terminal(*things, name)
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", str(named) + str(SageError(name, where=name, fix=name))
    )
    logging.getLogger("sage_hf.x").warning("%s", name)


@settings(max_examples=cases(10, 300), suppress_health_check=CHANCE)
@given(name=NAMES)
def test_any_name_stays_text_on_pages(name):
    tried()
    for render in (render_page, render_small):
        page = read(render(hostile_facts(name)))
        check_is_alone(page)
        assert {*page.tags} <= {*read(render(hostile_facts("plain"))).tags}


@settings(max_examples=cases(6, 200), suppress_health_check=CHANCE)
@given(name=NAMES)
def test_any_name_stays_text_in_what_was_corrected(tmp_path_factory, name):
    tried()
    name = re.sub("[\x00\ud800-\udfff]", "", name)
    if not name.strip() or name.strip().casefold() in ("keep", "drop", "relabel"):
        return
    folder = tmp_path_factory.mktemp("cleaned")
    rows = Dataset.from_dict({"text": ["x", "y", "z"], "label": [name, "b", "b"]})
    issues = issues_of(rows, ["b", name, name]).to_dataset()
    issues = issues.remove_columns("sage_action").add_column("sage_action", ["drop", "relabel", "keep"])
    done = cleaned(rows, issues)
    card = save_cleaned(done, folder / "clean", source_name=name)
    again = DatasetCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    assert set(again.data.to_dict()) <= {"pretty_name", "tags", "size_categories"}
    plain_card = save_cleaned(cleaned(*_plain()), folder / "plain", source_name="plain").read_text(encoding="utf-8")
    assert tags(again.text) == tags(DatasetCard(plain_card).text)


def _plain():
    rows = Dataset.from_dict({"text": ["x", "y", "z"], "label": ["plain", "b", "b"]})
    issues = issues_of(rows, ["b", "plain", "plain"]).to_dataset()
    return rows, issues.remove_columns("sage_action").add_column("sage_action", ["drop", "relabel", "keep"])


def test_templates_escape_what_nobody_marked():
    text = fill(
        "comparison.md",
        {
            "recommendation": "<b>",
            "picture": None,
            "metric": "m",
            "rows": [],
            "greater_is_better": True,
            "seeds": [1],
            "judged": 0,
            "settings": {},
            "tolerance": 1,
        },
    )
    assert "\\<b\\>" in text


@settings(max_examples=cases(10, 300), suppress_health_check=CHANCE)
@given(name=NAMES)
def test_cells_of_a_list_are_no_formulas_and_come_back_as_they_were(tmp_path_factory, name):
    tried()
    name = re.sub("[\x00\ud800-\udfff]", "", name).strip() or "x"
    rows = Dataset.from_dict({"text": [f"={name}", f"@{name}", name], "label": [f"={name}", f"-{name}", f"'={name}"]})
    file = issues_of(rows, [f"-{name}", f"={name}", f"={name}"]).save(tmp_path_factory.mktemp("list") / "issues.csv")
    with file.open(newline="", encoding="utf-8") as opened:
        lines = list(csv.reader(opened))
    numbers = lines[0].index("sage_row"), lines[0].index("sage_label_doubt")
    for line in lines:
        assert not any(
            cell[:1] in tuple("=+-@\t\r") and cell for place, cell in enumerate(line) if place not in numbers
        ), line
    for number, line in enumerate(lines[1:]):
        line[lines[0].index("sage_action")] = "relabel" if number == 0 else ""
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows(lines)
    done = cleaned(rows, file)  # labels are held against the dataset's
    assert done.listed == 3


def test_values_of_text_files_are_not_changed(tmp_path):
    rows = Dataset.from_dict({"text": ["=1+1", "@x", "-1"]}, features=Features({"text": Value("string")}))
    write_table(rows, tmp_path / "rows.csv")  # rows for programs, which would not know of an apostrophe
    assert (tmp_path / "rows.csv").read_text().splitlines()[1:] == ['"=1+1"', '"@x"', '"-1"']
