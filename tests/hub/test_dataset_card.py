"""A dataset card: metadata that the Hub reads, one section a configuration, and nothing of its owner's lost."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st

from sage_hf import SageConfig, SageSelector
from sage_hf.data.stats import TriedRecipe
from sage_hf.hub.dataset_card import (
    Pushed,
    card_facts,
    carry,
    citation,
    merge,
    metadata,
    render_section,
    size_category,
    withdraw,
)
from sage_hf.hub.markdown import cell

from ..cases import image_rows, vit

SOURCE = DatasetCard(
    "---\nlicense: cc-by-4.0\nlanguage: [en, de]\ntask_categories: [image-classification]\n"
    "pretty_name: Theirs\n---\n\n# Squares\n\n## Licensing\n\nOpen.\n\n"
    "## Citation Information\n\n```bibtex\n@misc{squares}\n```\n\n## Contact\n\nNobody.\n"
)


@pytest.fixture(scope="module")
def selection():
    config = SageConfig(fraction=0.2, sketch_size=8, shard_size=16, batch_size=8, group_by="label")
    return SageSelector(vit(), config=config).select(image_rows(30))


def facts(selection, config_name="default", **changes):
    about = {"repo_id": "me/kept", "split": "train", "splits": {"train": 6, "test": 3}, "pictures": ["scores"]}
    about |= {"config_name": config_name, "source_fingerprint": selection.source_fingerprint} | changes
    card, license = about.pop("source_card", SOURCE), about.pop("license", None)
    return card_facts(selection.stats, selection.config, Pushed(**about), card, license)


def section(selection, config_name="default", **changes):
    return render_section(facts(selection, config_name, **changes))


@given(st.integers(0, 2 * 10**12))
def test_sizes_are_the_hubs_words_for_an_interval_that_holds_them(rows):
    powers = dict(
        zip(("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"), range(3, 13), strict=True)
    )
    word = size_category(rows)
    if word.startswith("n<"):
        assert rows < 10 ** powers[word[2:]]
    elif word.startswith("n>"):
        assert rows >= 10 ** powers[word[2:]]
    else:
        low, high = word.split("<n<")
        assert 10 ** powers[low] <= rows < 10 ** powers[high]


def test_what_the_gate_took_out_is_told(selection):
    gate = selection.stats.gate
    assert gate.method == "cross-fold" and gate.judged == 30
    told = section(selection)
    assert f"{gate.doubted} of 30 rows were doubted (cross-fold)" in told
    assert "estimated share of wrong labels 0.0 %" in told and "| recipe | coverage" in told
    tried = [TriedRecipe("coverage", 0.5, 0.0, 0.0), TriedRecipe("another", 0.6, 0.1, 0.02)]
    probed = render_section({**facts(selection), "gate": {**vars(gate), "tried": tried, "copies": 12}})
    assert "coverage 50.0 %, another 60.0 % (+10.0 ± 2.0)" in probed
    assert "12 rows stayed out, because each looks the same to the model as another row" in probed
    assert (f"{gate.hard} hard rows" in told) == (gate.hard > 0)
    assert "7 hard rows" in render_section({**facts(selection), "gate": {**vars(gate), "hard": 7}})
    assert "hard rows" not in render_section({**facts(selection), "gate": {**vars(gate), "hard": 0}})


def test_the_source_gives_licence_language_task_and_citation(selection):
    told = facts(selection)
    assert carry(SOURCE) == {
        "license": "cc-by-4.0",
        "language": ["en", "de"],
        "task_categories": ["image-classification"],
    }
    assert citation(SOURCE) == "```bibtex\n@misc{squares}\n```"
    text = render_section(told)
    assert "Licence: cc-by-4.0, as the source states it." in text
    assert "@misc{squares}" in text
    data = metadata(told, SOURCE)
    assert data["size_categories"] == ["n<1K"]
    assert "Theirs" not in str(data)
    assert metadata(facts(selection, license="mit"), SOURCE)["license"] == "mit"


@pytest.mark.parametrize(
    "text", ["# A\n\nno such heading\n", "## Citation\n\n[More Information Needed]\n", "## Citation\n"]
)
def test_a_source_that_names_no_citation_has_none(text):
    assert citation(DatasetCard(text)) is None


def test_a_long_citation_is_pointed_at(selection):
    long = DatasetCard("## Citation\n\n" + "a word " * 2000)
    assert "see the source's card" in citation(long)
    assert citation(None) is None


def test_sections_stand_beside_each_other_and_the_owners_text_stays(selection):
    one, two = section(selection), section(selection, "tenth")
    data = metadata(facts(selection), SOURCE)
    card = merge(None, one, "default", data)
    card = merge(
        DatasetCard(str(card).replace("<!-- sage_hf: default", "Mine.\n\n<!-- sage_hf: default")), two, "tenth", data
    )
    assert card.text.count("<!-- sage_hf: ") == 2
    again = merge(card, one.replace("6 of the 30 rows", "SIX of the 30 rows"), "default", data)
    assert "SIX of the 30 rows" in again.text
    assert again.text.count("<!-- sage_hf: ") == 2
    assert "Mine." in again.text
    without = withdraw(again, "default")
    assert "SIX" not in without.text
    assert "<!-- sage_hf: tenth -->" in without.text
    assert "Mine." in without.text
    assert withdraw(without, "default") is None


def test_metadata_of_the_owner_stays_and_lists_are_joined(selection):
    held = DatasetCard("---\npretty_name: Mine\ntags: [squares]\nlicense: mit\nsize_categories: ['1M<n<10M']\n---\n")
    data = metadata(facts(selection), SOURCE)
    merged = merge(held, "text", "default", data).data
    assert (merged.pretty_name, merged.license) == ("Mine", "mit")
    assert merged.tags == ["squares", "sage", "data-selection"]
    assert merged.size_categories == ["n<1K"]
    assert merge(held, "text", "default", data, license="other").data.license == "other"


def test_a_repository_of_scores_alone_has_no_viewer_until_rows_come(selection):
    scores = metadata(facts(selection, scores_only=True), SOURCE)
    alone = merge(None, "text", "scores", scores)
    assert alone.data.viewer is False
    held = {**alone.data.to_dict(), "configs": [{"config_name": "default"}]}
    alone.data = type(alone.data)(**held)
    assert merge(alone, "text", "default", metadata(facts(selection), SOURCE)).data.get("viewer") is None


def test_every_knob_and_every_group_is_told(selection):
    text = section(selection)
    for name, value in selection.config.to_dict().items():
        assert f"| {name} | {cell(str(value))} |" in text
    for group in selection.group_table:
        assert f"| {group.name} | {group.rows} | {group.kept} | {group.set_aside} |" in text


def test_the_settings_told_make_the_same_selection(selection):
    text = section(selection)
    (call,) = [line for line in text.splitlines() if line.startswith("selection = SageSelector(")]
    names = {"SageSelector": SageSelector, "SageConfig": SageConfig, "model": vit(), "source": image_rows(30)}
    exec(call, {**names, "processor": None}, names)
    assert names["selection"].indices.tolist() == selection.indices.tolist()


def test_names_of_groups_and_splits_cannot_break_the_table(selection):
    group = replace(selection.stats.groups[0], name="a|b\n# c")
    stats = replace(selection.stats, groups=[group])
    pushed = Pushed("me/kept", "default", "train", {"train": 6}, pictures=[])
    assert "| a\\|b \\# c | " in render_section(card_facts(stats, selection.config, pushed))


def test_the_committed_card_is_what_the_template_renders():
    place = Path(__file__).parents[2] / "model_cards" / "language-reference-10pct"
    given = json.loads((place / "facts.json").read_text())
    card = merge(None, render_section(given["told"]), "default", given["data"])
    assert str(card) == (place / "README.md").read_text()
    assert given["data"] == metadata(given["told"], None)
    assert len(given["told"]["pictures"]) == 3
    for path, _ in given["told"]["pictures"]:
        assert (place / path).stat().st_size > 5000
