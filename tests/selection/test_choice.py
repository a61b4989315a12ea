"""A group that loses every row is told by name, and `min_per_group` keeps some of each."""

import io
import logging

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, load_from_disk
from rich.console import Console

from sage_hf import SageConfig, SageSelector, SageTrainer, SageTrainingArguments, Selection
from sage_hf.data.stats import GroupStats
from sage_hf.data.status import ZERO_GRADIENT
from sage_hf.errors import ConfigError
from sage_hf.selection.choice import Settled, about_lost, choose_within, quotas_for
from sage_hf.selection.recipes import RECIPES
from sage_hf.selection.report import summary
from sage_hf.strategies.jobs import JobRunner

from ..cases import image_rows, vit
from .noisy_labels import digits, signals_of


def rare_rows(rare=3, count=60):
    """Rows of two common classes and one of a few rows."""
    rows = image_rows(count)
    labels = [row % 2 for row in range(count)]
    labels[5 : 5 + rare] = [2] * rare
    return (
        rows.remove_columns("label")
        .add_column("label", labels)
        .cast_column("label", ClassLabel(names=["a", "b", "rare"]))
    )


def select(rows, **settings):
    return SageSelector(vit(), config=SageConfig(**{"fraction": 0.1, **settings}), progress=False).select(rows)


def kept_of(selection):
    return {group.name: group.kept for group in selection.stats.groups}


def warnings(caplog):
    return [record.message for record in caplog.records if "No row is kept" in record.message]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_class_that_vanishes_is_named_once_with_what_keeps_it(streaming, caplog):
    rows = rare_rows()
    found = select(rows.to_iterable_dataset() if streaming else rows, strategy="agreement", min_per_group=0)
    assert kept_of(found) == {"a": 3, "b": 3, "rare": 0}
    assert found.stats.lost_groups == ["rare"]
    (said,) = warnings(caplog)
    assert "'rare' (3 rows)" in said and "min_per_group=1" in said and "--min-per-group 1" in said
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(summary(found))
    assert said in " ".join(console.export_text().split())


@pytest.mark.parametrize("settings", [{}, {"strategy": "agreement"}, {"strategy": "random"}, {"strategy": "coverage"}])
def test_a_least_number_keeps_it_and_the_budget_is_the_same(settings, caplog):
    found = select(rare_rows(), **settings)
    assert kept_of(found) == {"a": 3, "b": 2, "rare": 1}
    assert found.stats.lost_groups == [] and not warnings(caplog)


def test_of_a_budget_below_one_row_a_group_the_large_groups_get_it_and_the_others_are_named(caplog):
    found = select(rare_rows(), strategy="agreement", fraction=None, num_examples=2)
    assert kept_of(found) == {"a": 1, "b": 1, "rare": 0}
    (said,) = warnings(caplog)
    assert "'rare' (3 rows)" in said and "A larger budget keeps some of each." in said


def test_roots_of_sizes_favour_small_groups(caplog):
    found = select(rare_rows(rare=4), balance="sqrt", fraction=0.2)
    kept = kept_of(found)
    assert sum(kept.values()) == 12 and kept["rare"] == 2
    stream = select(rare_rows(rare=4).to_iterable_dataset(), balance="sqrt", fraction=0.2)
    assert kept_of(stream) == kept


@pytest.mark.parametrize("budget", [{"fraction": 0.1}, {"fraction": None, "num_examples": 6}])
def test_a_stream_keeps_as_a_dataset_does(budget):
    settings = {"strategy": "agreement", "min_per_group": 2, **budget}
    rows = rare_rows()
    whole, stream = select(rows, **settings), select(rows.to_iterable_dataset(), **settings)
    assert kept_of(stream) == kept_of(whole) == {"a": 2, "b": 2, "rare": 2}
    assert stream.indices.tolist() == whole.indices.tolist()


def test_clusters_and_targets_keep_the_least_each():
    clusters = select(rare_rows(), group_by="cluster", num_clusters=5, min_per_group=1, consensus="exact")
    assert all(group.kept for group in clusters.stats.groups if group.rows > group.set_aside)
    rows = rare_rows()
    targets = {"one": rows.select([0, 2]), "other": rows.select([5, 6])}
    config = SageConfig(num_examples=10, min_per_group=4)
    shares = {"one": 99.0, "other": 1.0}
    found = SageSelector(vit(), config=config, progress=False).select(rows, target=targets, target_shares=shares)
    had = {group.name: group.rows for group in found.stats.groups}
    assert all(kept >= min(4, had[name]) for name, kept in kept_of(found).items())
    assert len(found) == 10


def test_another_choice_of_the_same_scores_tells_anew(caplog):
    found = select(rare_rows(), strategy="agreement", min_per_group=0)
    caplog.clear()
    assert kept_of(found.choose(min_per_group=1)) == {"a": 3, "b": 2, "rare": 1}
    assert not warnings(caplog)
    assert found.choose(min_per_group=1).stats.lost_groups == []
    again = found.choose(num_examples=4)
    assert again.stats.lost_groups == ["rare"] and len(warnings(caplog)) == 1


def test_a_budget_that_does_not_reach_all_groups_says_so(caplog):
    config = SageConfig(num_examples=3, min_per_group=2)
    with caplog.at_level(logging.WARNING):
        assert quotas_for(config, np.array([30, 30, 3]), 3).tolist() == [1, 1, 1]
    assert "min_per_group=2 needs 6 rows for 3 groups, but the budget is 3" in caplog.text


def test_groups_whose_rows_have_no_score_are_told_apart():
    table = [GroupStats("a", 3, 3, 0, 0.5, 0.5), GroupStats("b", 1, 0, 1, None, None)]
    said = about_lost(table, SageConfig())
    assert "'b' (1 row)." in said and "could be scored" in said and "min_per_group" not in said
    assert about_lost(table[:1], SageConfig()) == ""


def test_all_lost_groups_are_counted_and_five_are_named():
    table = [GroupStats(f"g{number}", 2, 0, 0, 0.5, None) for number in range(1200)]
    said = about_lost(table, SageConfig())
    assert "1,200 groups" in said and "'g4'" in said and "'g5'" not in said and "1,195 more" in said


def test_without_groups_there_is_no_least_number():
    with pytest.raises(ConfigError, match="balance 'none' reserves no rows for a group"):
        SageConfig(balance="none", min_per_group=2)
    assert SageConfig(balance="none").min_per_group == 1  # the default, which does not count there


def test_a_trainer_keeps_the_least_number(tmp_path, caplog):
    rows = rare_rows().with_format("torch")
    for least, kept in ((0, 0), (1, 1)):
        caplog.clear()
        args = SageTrainingArguments(
            str(tmp_path),
            sage_fraction=0.1,
            sage_warmup_epochs=0,
            sage_min_per_group=least,
            num_train_epochs=1,
            report_to=[],
            use_cpu=True,
        )
        trainer = SageTrainer(model=vit(), args=args, train_dataset=rows)
        trainer.train()
        assert kept_of(trainer.selection)["rare"] == kept
        assert len(warnings(caplog)) == 1 - kept


def test_the_names_of_lost_classes_stay_with_the_kept_rows(tmp_path):
    found = select(rare_rows(), strategy="agreement", min_per_group=0)
    kept = found.save_to_disk(tmp_path / "kept")
    for rows in (found.dataset, load_from_disk(str(kept)), Selection.load_from_disk(kept).dataset):
        assert isinstance(rows, Dataset)
        assert rows.features["label"].names == ["a", "b", "rare"]
        assert set(rows["label"]) == {0, 1}


def chosen(signals, budget, settled=None, **settings):
    config = SageConfig(num_examples=budget, **settings)
    found = choose_within(config, signals, quotas_for(config, signals.sizes(True), budget), JobRunner(), settled)
    return found.indices, found.gate


def test_of_near_duplicates_one_is_kept_where_there_are_rows_enough():
    images, labels = digits()
    images, labels = images[:400], labels[:400]
    copies = np.concatenate([images, images[:150]]) + np.random.default_rng(0).normal(0, 0.05, (550, 64))
    signals = signals_of(copies.astype(np.float32), np.concatenate([labels, labels[:150]]))
    rows, gate = chosen(signals, 200)
    assert 150 <= gate.copies <= 165
    source = np.where(rows < 400, rows, rows - 400)
    assert len(set(source.tolist())) == len(rows) == 200
    # Where a group has too few other rows, its copies stay.
    rows, _ = chosen(signals, 500)
    assert len(rows) == 500


def test_the_recipe_is_told_with_what_was_tried_and_windows_keep_to_the_first():
    images, labels = digits()
    signals = signals_of(images, labels)
    rows, gate = chosen(signals, 180)
    assert gate.recipe in [recipe.name for recipe in RECIPES]
    assert [each.name for each in gate.tried] == [recipe.name for recipe in RECIPES]
    assert gate.tried[0].lead == gate.tried[0].error == 0 and 0.5 < gate.tried[0].accuracy <= 1
    again, same = chosen(signals, 180)
    assert np.array_equal(rows, again) and same == gate
    quotas = quotas_for(SageConfig(), signals.sizes(True), 180)
    for recipe in RECIPES:
        _, gate = chosen(signals, 180, Settled(quotas, recipe.name))
        assert gate.recipe == recipe.name and gate.tried == []


def test_coverage_and_a_share_are_not_probed():
    images, labels = digits()
    for settings in ({"strategy": "coverage"}, {"gate": 0.2}):
        _, gate = chosen(signals_of(images, labels), 100, **settings)
        assert gate.recipe is None and gate.tried == []


@pytest.mark.parametrize("settings", [{}, {"gate": 0.3, "strategy": "random"}, {"strategy": "grad_match"}])
@pytest.mark.parametrize("has_classes", [True, False])
def test_where_no_row_has_a_score_none_is_kept_as_in_a_window_of_a_stream(settings, has_classes):
    images, labels = digits()
    signals = signals_of(images[:40], labels[:40])
    signals.status[:] = ZERO_GRADIENT
    signals.norms = np.ones(40, np.float32)
    if not has_classes:
        signals.labels = None
    quotas = np.full(signals.groups.count, 2)  # of all rows of the stream
    found = choose_within(SageConfig(num_examples=20, **settings), signals, quotas, JobRunner(), Settled(quotas))
    assert found.indices.tolist() == [] and found.gate is None
