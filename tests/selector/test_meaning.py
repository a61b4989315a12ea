"""Whether scores mean anything is said once, in the log, the summary and the card, of datasets and streams."""

import io
import json

import pytest
from rich.console import Console

from sage_hf import SageConfig, SageSelector, Selection, select_over_checkpoints, warm_up
from sage_hf.hub.cards import selection_facts
from sage_hf.hub.markdown import fill
from sage_hf.selection.report import summary

from ..cases import image_rows, llama, pad_tokens, token_rows, vit

SMALL = {"sketch_size": 16, "shard_size": 16, "batch_size": 8, "fraction": 0.3}
LOSS_ALONE = {"strategy": "agreement", "gate": None}


def select(model, rows, collator=None, **settings):
    config = SageConfig(**{**SMALL, **settings})
    return SageSelector(model, data_collator=collator, config=config, progress=False).select(rows)


def shown(selection):
    console = Console(width=1000, record=True, file=io.StringIO())
    console.print(summary(selection))
    return console.export_text()


@pytest.fixture(scope="module")
def learned():
    model = vit()
    warm_up(model, image_rows(60), steps=15, learning_rate=1e-2)
    return model


@pytest.mark.parametrize("settings", [{}, LOSS_ALONE])
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_fresh_model_is_one_warning_and_one_that_has_learned_none(learned, caplog, settings, is_stream):
    rows = image_rows(60).to_iterable_dataset() if is_stream else image_rows(60)
    fresh = select(vit(), rows, **settings)
    assert fresh.stats.meaning.is_above_chance is False
    assert caplog.text.count("The scores mean little") == 1
    caplog.clear()
    good = select(learned, rows, **settings)
    assert good.stats.meaning.is_above_chance and good.stats.meaning.differs
    assert "The scores mean little" not in caplog.text


def test_summary_and_card_tell_targets_by_what_a_row_counts_and_of_how_many_models(learned):
    rows, targets = image_rows(60), {"judge": image_rows(6, seed=5), "docs": image_rows(6, seed=6)}
    config = SageConfig(**SMALL, target_reduction="max", group_by=None)
    selection = select_over_checkpoints([learned, vit()], rows, target=targets, config=config, progress=False)
    selection.stats.adam = True
    words = "towards judge, docs, a row by its largest agreement; the mean of 2 models, weighted 0.50, 0.50; "
    words += "Adam's updates in place of gradients"
    assert f"Scores: {words}." in " ".join(shown(selection).split())
    assert f"| scores | {words} |" in fill("selection.md", selection_facts(selection.stats, selection.config, []))
    plain = select(learned, rows)
    assert "Scores: " not in shown(plain)
    assert "| scores |" not in fill("selection.md", selection_facts(plain.stats, plain.config, []))


def test_the_summary_and_the_card_say_what_the_log_says(learned):
    fresh, good = (select(model, image_rows(60)) for model in (vit(), learned))
    warning = fresh.stats.meaning.warning
    assert warning in shown(fresh)
    assert "mean little" not in shown(good)
    card, clean = (fill("selection.md", selection_facts(each.stats, each.config, [])) for each in (fresh, good))
    assert card.startswith("> **The scores mean little: the model predicts the label of ")
    assert clean.startswith("| | |")


def test_a_card_of_facts_from_before_has_no_warning(learned):
    selection = select(learned, image_rows(60))
    facts = selection_facts(selection.stats, selection.config, [])
    del facts["warning"]
    assert fill("selection.md", facts).startswith("| | |")


def test_it_is_kept_with_the_selection_and_other_budgets_keep_it(tmp_path):
    fresh = select(vit(), image_rows(60), **LOSS_ALONE)
    fresh.save_to_disk(tmp_path / "kept")
    again = Selection.load_from_disk(tmp_path / "kept")
    assert again.stats.meaning == fresh.stats.meaning
    assert again.choose(fraction=0.5).stats.meaning == fresh.stats.meaning


def test_a_selection_from_before_is_read(tmp_path):
    select(vit(), image_rows(60), **LOSS_ALONE).save_to_disk(tmp_path / "kept")
    (file,) = (tmp_path / "kept").rglob("selection.json")
    values = json.loads(file.read_text())
    del values["stats"]["meaning"], values["checksum"], values["files"]
    values["format_version"] = 2
    file.write_text(json.dumps(values))
    assert Selection.load_from_disk(tmp_path / "kept").stats.meaning is None


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_language_model_is_held_against_guessing_words(caplog, is_stream):
    rows = token_rows(40)
    rows = rows.to_iterable_dataset() if is_stream else rows
    assert "mean loss is" in select(llama(), rows, pad_tokens).stats.meaning.warning
    model = llama()
    warm_up(model, token_rows(40), steps=40, learning_rate=1e-2, data_collator=pad_tokens)
    assert select(model, rows, pad_tokens).stats.meaning.is_above_chance


def test_a_loss_that_is_summed_is_not_held_against_guessing():
    assert select(llama(), token_rows(40), pad_tokens, loss_reduction="sum").stats.meaning.guessing_loss is None


def test_many_groups_of_a_row_or_two_are_told_to_be_grouped_by_less(learned):
    rows = image_rows(60).add_column("source", [str(number) for number in range(60)])
    text = select(learned, rows, group_by="source").stats.meaning.warning
    assert "60 groups have 1.0 rows each" in text


def test_rows_that_are_all_learned_are_told_apart_by_an_earlier_state():
    model = vit()
    warm_up(model, image_rows(60), steps=80, learning_rate=1e-2)
    text = select(model, image_rows(60)).stats.meaning.warning
    assert "nearly equal" in text and "an earlier checkpoint or a shorter warm-up" in text


def test_choosing_again_says_nothing_again(caplog):
    selector = SageSelector(vit(), config=SageConfig(**SMALL), progress=False)
    signals = selector.gather(image_rows(60))
    for fraction in (0.1, 0.2, 0.5):
        selector.choose(image_rows(60), signals, SageConfig(**{**SMALL, "fraction": fraction}))
    assert caplog.text.count("The scores mean little") == 1
