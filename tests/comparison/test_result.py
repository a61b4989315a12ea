"""What follows from finished trainings: numbers alone, no model."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from sage_hf import Comparison
from sage_hf.comparison.intervals import estimate, student_t
from sage_hf.comparison.metrics import Accuracy, guessing, is_greater_better, numbers_of
from sage_hf.comparison.picture import save_picture
from sage_hf.comparison.runs import Run
from sage_hf.errors import ConfigError, OutputError
from sage_hf.hub.markdown import escaped
from sage_hf.hub.pictures import render


def made(groups, metric="accuracy", greater=True, tolerance=0.01, **changes):
    """A comparison from {(strategy, fraction): a value a seed}."""
    runs = [
        Run(strategy, fraction, seed, round(1000 * fraction), {metric: value})
        for (strategy, fraction), values in groups.items()
        for seed, value in enumerate(values)
    ]
    strategies = list(dict.fromkeys(strategy for strategy, _ in groups if strategy != "all"))
    fractions = sorted({fraction for strategy, fraction in groups if strategy != "all"})
    return Comparison(runs, metric, greater, strategies, fractions, tolerance, **changes)


def shown(comparison):
    """The table as the shell prints it."""
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(comparison.table())
    return console.export_text()


USUAL = {
    ("auto", 0.05): [0.80, 0.82, 0.81],
    ("random", 0.05): [0.70, 0.73, 0.71],
    ("auto", 0.25): [0.90, 0.91, 0.89],
    ("random", 0.25): [0.89, 0.93, 0.88],
    ("all", 1.0): [0.90, 0.91, 0.90],
}


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 29, 100])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_students_t_is_scipys(degrees, confidence):
    assert student_t(degrees, confidence) == pytest.approx(stats.t.ppf((1 + confidence) / 2, degrees), rel=1e-9)


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_the_interval_is_scipys(count):
    values = np.random.default_rng(count).normal(0.8, 0.05, count)
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    found = estimate(values.tolist())
    assert (found.mean, found.half) == (pytest.approx(values.mean()), pytest.approx((high - low) / 2))


def test_one_value_has_no_interval_and_none_no_mean():
    assert estimate([0.3]).half is None
    assert not estimate([0.3]).differs_from_zero
    assert math.isnan(estimate([]).mean)


def test_differences_are_taken_seed_by_seed():
    comparison = made(USUAL)
    found = comparison.group("auto", 0.05).difference
    wanted = stats.ttest_rel(USUAL["auto", 0.05], USUAL["random", 0.05]).confidence_interval(0.95)
    assert found.mean - found.half == pytest.approx(wanted.low)
    assert found.mean + found.half == pytest.approx(wanted.high)
    assert comparison.group("random", 0.05).difference is None
    assert comparison.reference.difference is None


def test_only_seeds_of_both_are_paired():
    groups = {("auto", 0.1): [0.5, 0.6, 0.9], ("random", 0.1): [0.4, 0.5], ("all", 1.0): [0.9, 0.9, 0.9]}
    found = made(groups).group("auto", 0.1).difference
    assert (found.count, found.mean) == (2, pytest.approx(0.1))


def test_luck_that_a_seed_brings_to_both_goes_out_of_the_difference():
    luck = np.array([-0.2, 0.0, 0.2, 0.1])
    groups = {
        ("auto", 0.1): (0.6 + luck).tolist(),
        ("random", 0.1): (0.55 + luck + [0, 0.01, -0.01, 0]).tolist(),
        ("all", 1.0): [0.8] * 4,
    }
    comparison = made(groups)
    assert comparison.group("auto", 0.1).value.half > 0.2
    assert comparison.group("auto", 0.1).gain == 1


def test_it_says_what_is_best_where_it_beats_random_rows_and_how_few_rows_suffice():
    said = made(USUAL).recommendation
    assert "auto is best on average over 5 % and 25 % of the rows: accuracy 0.855, of random rows 0.807." in said
    assert "beats random rows by more than the 95 % interval at 5 %" in said
    assert "at 25 % no difference from random rows can be shown" in said
    assert "auto at 25 % (250 rows) is the least that reaches training on all rows (0.903) to within 1 %" in said
    assert "0.900, 99.6 % of it" in said


def test_of_equals_the_one_named_first_is_best():
    groups = {(name, 0.1): [0.7, 0.8, 0.9] for name in ("coverage", "auto", "random")} | {("all", 1.0): [0.9] * 3}
    assert made(groups).recommendation.startswith("coverage is best")


def test_the_reference_may_be_out_of_reach():
    said = made({**USUAL, ("all", 1.0): [0.99, 0.98, 0.99]}).recommendation
    assert "None reaches training on all rows (0.987) to within 1 %; nearest is auto at 25 %: 0.900" in said


def test_a_wider_tolerance_needs_fewer_rows():
    assert "auto at 5 %" in made(USUAL, tolerance=0.15).recommendation


def test_random_rows_may_be_best():
    groups = {("auto", 0.1): [0.5, 0.52, 0.5], ("random", 0.1): [0.7, 0.71, 0.7], ("all", 1.0): [0.9] * 3}
    comparison = made(groups)
    assert comparison.group("auto", 0.1).gain == -1
    assert "random is best on average" in comparison.recommendation
    assert "no other strategy is worth its cost" in comparison.recommendation


def test_a_strategy_that_loses_at_one_share_is_said_to():
    groups = {
        ("auto", 0.1): [0.90, 0.91, 0.92],
        ("random", 0.1): [0.50, 0.51, 0.50],
        ("auto", 0.2): [0.60, 0.61, 0.61],
        ("random", 0.2): [0.70, 0.71, 0.70],
        ("all", 1.0): [0.9, 0.9, 0.9],
    }
    assert "worse than random rows by more than the interval at 20 %" in made(groups).recommendation


def test_less_of_a_loss_is_better():
    groups = {
        ("auto", 0.1): [2.0, 2.1, 2.0],
        ("random", 0.1): [2.5, 2.6, 2.6],
        ("auto", 0.5): [1.51, 1.5, 1.5],
        ("random", 0.5): [1.7, 1.8, 1.75],
        ("all", 1.0): [1.5, 1.5, 1.5],
    }
    comparison = made(groups, "loss", greater=False)
    group = comparison.group("auto", 0.1)
    assert group.difference.mean < 0
    assert group.gain == 1
    assert "better" in group.difference_text
    assert comparison.recommendation.startswith("auto is best")
    assert (
        "auto at 50 % (500 rows) is the least that reaches training on all rows (1.500)" in comparison.recommendation
    )


def test_one_seed_is_said_to_prove_nothing():
    comparison = made({key: values[:1] for key, values in USUAL.items()})
    assert "One seed gives no interval" in comparison.recommendation
    assert "beats" not in comparison.recommendation
    assert "±" not in comparison.card()


def test_two_seeds_are_too_few_to_call_anything_better():
    groups = {key: values[:2] for key, values in USUAL.items()} | {("auto", 0.05): [0.90, 0.9001]}
    comparison = made(groups)
    assert comparison.group("auto", 0.05).difference.half is not None
    assert comparison.group("auto", 0.05).gain == 0
    said = comparison.recommendation
    assert said.startswith("auto did best on average")
    assert "2 seeds are too few to call anything better: train with 3 or more." in said
    assert "beats" not in said
    for text in (comparison.card(), shown(comparison)):
        assert "0.900 better" not in text and "± 0.001 better" not in text
    assert "**" not in comparison.card()


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0, -3e7])
@pytest.mark.parametrize("count", [2, 3, 9])
def test_values_that_are_all_the_same_have_no_interval_and_prove_nothing(value, count):
    found = estimate([value + 1e-17] * count)
    assert (found.mean, found.half) == (pytest.approx(value), None)
    assert not found.differs_from_zero
    assert "±" not in found.text()


def test_a_difference_of_the_same_value_in_every_seed_is_not_called_better():
    groups = {("auto", 0.1): [0.75, 0.85, 0.95], ("random", 0.1): [0.5, 0.6, 0.7], ("all", 1.0): [0.9] * 3}
    comparison = made(groups)
    assert comparison.group("auto", 0.1).gain == 0
    assert "no difference from random rows can be shown" in comparison.recommendation
    assert "no ± where all" in comparison.card()


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8))
def test_an_interval_is_never_of_width_0(values):
    half = estimate(values).half
    assert half is None or half > 0


# ----------------------------------------------------------- all rows, and guessing
@pytest.mark.parametrize(
    ("reached", "guess", "rows", "learns"),
    [
        ([0.30, 0.31, 0.32], 0.10, 1000, True),
        ([0.10, 0.11, 0.10], 0.10, 1000, False),
        ([0.05, 0.06, 0.05], 0.10, 1000, False),
        ([0.60, 0.61, 0.62], 0.50, 20, False),  # 20 rows: the interval of a coin goes to 0.72
        ([0.60, 0.61, 0.62], 0.50, 2000, True),
        ([0.60, 0.61, 0.62], 0.50, None, True),
    ],
)
def test_all_rows_are_held_against_the_commonest_class(reached, guess, rows, learns):
    groups = {**USUAL, ("all", 1.0): reached}
    comparison = made(groups, guessing={"accuracy": guess}, eval_rows=rows)
    assert comparison.learns is learns
    assert comparison.recommendation.startswith("No conclusion") is not learns


def test_a_lead_over_guessing_that_may_be_chance_is_told_as_such_with_the_interval():
    comparison = made({**USUAL, ("all", 1.0): [0.38, 0.43]}, guessing={"accuracy": 0.324}, eval_rows=37)
    said = comparison.recommendation
    assert said.startswith("No conclusion: training on all rows reaches accuracy 0.405 ± 0.318 over 2 seeds")
    assert "gets 0.324: a lead that is within the chance of 37 test rows, ± 0.151" in said
    assert "more test rows" in said and "Train until all rows beat guessing" not in said


def test_the_heading_of_the_table_is_as_wide_as_the_screen():
    assert "after the same number of steps (more is better; ± is the 95 % interval)" in shown(made(USUAL))


def test_where_all_rows_learn_nothing_nothing_is_recommended_and_it_says_what_to_do():
    comparison = made({**USUAL, ("all", 1.0): [0.10, 0.10, 0.11]}, guessing={"accuracy": 0.104}, eval_rows=900)
    said = comparison.recommendation
    assert "training on all rows reaches accuracy 0.103" in said and "test rows gets 0.104" in said
    assert "--max-steps" in said and "best" not in said and "beats" not in said
    assert escaped(said) in comparison.card()
    assert "**" not in comparison.card()


def test_a_loss_is_held_against_nothing():
    comparison = made(USUAL, "loss", greater=False, guessing={"accuracy": 0.99}, eval_rows=100)
    assert comparison.learns


def test_a_comparison_from_before_has_nothing_to_be_held_against(tmp_path):
    values = made(USUAL).to_dict()
    del values["guessing"], values["eval_rows"]
    assert Comparison.from_dict(values) == made(USUAL)


@pytest.mark.parametrize(("classes", "share"), [([0, 1, 1, 2], 0.5), ([7], 1.0), ([3, 2, 1, 0], 0.25)])
def test_guessing_the_commonest_class_is_judged_by_the_metric(classes, share):
    assert guessing(Accuracy(), np.array(classes)) == {"accuracy": share}


def test_a_metric_that_cannot_judge_classes_and_a_loss_have_no_guess():
    class OfProbabilities:
        def compute(self, *, predictions, references):
            raise ValueError("wants [N, C]")

    assert guessing(OfProbabilities(), np.array([0, 1])) == {}
    assert guessing(None, np.array([0, 1])) == guessing(Accuracy(), np.zeros(0, dtype=np.int64)) == {}


def test_without_random_rows_the_gain_is_open():
    groups = {("auto", 0.1): [0.5, 0.6], ("all", 1.0): [0.9, 0.9]}
    assert "not known what the choice gains" in made(groups).recommendation


def test_a_training_that_went_astray_is_worst_and_not_an_error():
    groups = {**USUAL, ("auto", 0.05): [math.nan] * 3}
    assert made(groups).recommendation.startswith("random is best")
    assert "no finite accuracy" in made({**USUAL, ("all", 1.0): [math.nan] * 3}).recommendation


def test_saved_and_loaded_it_is_the_same(tmp_path):
    comparison = made(USUAL, settings={"rows": "1,000"})
    comparison.save(tmp_path / "folder")
    assert Comparison.load(tmp_path / "folder") == comparison
    assert Comparison.load(comparison.save(tmp_path / "one.json")) == comparison
    told = json.loads((tmp_path / "one.json").read_text())
    assert told["groups"][0]["value"]["half"] == pytest.approx(comparison.groups[0].value.half)
    assert told["recommendation"] == comparison.recommendation


def test_other_files_are_refused(tmp_path):
    with pytest.raises(OutputError, match="cannot be read"):
        Comparison.load(tmp_path)
    for text, words in (
        ("{}", "format None"),
        ('{"format_version": 2}', "lacks"),
        ('{"format_version": 1, "cells": []}', "format 1, and this sage_hf reads 2"),
        ("[1]", "format"),
        ("{", "read"),
    ):
        (tmp_path / "comparison.json").write_text(text)
        with pytest.raises(OutputError, match=words):
            Comparison.load(tmp_path)


def test_a_metric_or_a_group_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="'f1'"):
        replace(made(USUAL), metric="f1")
    with pytest.raises(ConfigError, match="not trained at"):
        made(USUAL).group("auto", 0.5)


def test_the_table_and_the_card_tell_every_group():
    comparison = made(USUAL, settings={"rows": "1,000 of a|b"})
    table, card = shown(comparison), comparison.card("comparison.png")
    for text in (table, card):
        for group in (*comparison.groups, comparison.reference):
            assert group.value.text() in text
        assert "+0.097 ± 0.014 better" in text
        assert "more" in text.lower()
    assert comparison.recommendation in card
    assert "](comparison.png)" in card
    assert r"1,000 of a\|b" in card
    assert "![" not in comparison.card()


def test_the_picture_is_the_same_bytes_again_and_names_every_line(tmp_path):
    pytest.importorskip("matplotlib")
    comparison = made(USUAL)
    png, svg = save_picture(comparison.plot(), tmp_path)
    assert png.read_bytes() == render(comparison.plot(), "png")
    assert svg.read_bytes() == render(comparison.plot(), "svg")
    text = svg.read_text()
    for word in ("all rows", "auto", "random", "accuracy", "25 %", "bars and the band: 95 % intervals over 3"):
        assert f">{word}" in text
    axes = comparison.plot().axes[0]
    styles = {(line.get_marker(), line.get_linestyle()) for line in axes.lines if line.get_marker() not in ("|", "_")}
    assert axes.get_xscale() == "log"
    assert len(styles) >= 3


def drawn(comparison):
    pytest.importorskip("matplotlib")
    axes = comparison.plot().axes[0]
    bars = [path.vertices[:, 1] for held in axes.collections for path in held.get_paths()]
    return axes.get_ylim(), np.concatenate(bars)


@pytest.mark.parametrize("near", [0.0, 1.0])
def test_the_axis_and_the_bars_of_an_accuracy_stay_within_its_range(near):
    groups = {key: [abs(near - value) for value in (0.0, 0.2, 0.01)] for key in USUAL}
    (low, high), bars = drawn(made(groups))
    assert low >= 0.0 and high <= 1.0
    assert bars.min() >= 0.0 and bars.max() <= 1.0


def test_a_loss_may_be_large_and_not_below_0():
    groups = {key: [0.0, 3.0, 0.1] for key in USUAL}
    (low, high), bars = drawn(made(groups, "loss", greater=False))
    assert low == 0.0 and high > 3.0 and bars.min() >= 0.0


def test_an_accuracy_in_per_cent_has_no_range_to_stay_in():
    groups = {key: [100 * value for value in values] for key, values in USUAL.items()}
    assert drawn(made(groups))[0][1] > 90


def test_no_bar_is_drawn_where_the_interval_is_not_known():
    _, bars = drawn(made({key: [0.5] * 3 for key in USUAL}))
    assert np.isnan(bars).all()


def test_accuracy_counts_what_has_a_reference():
    assert Accuracy().compute(predictions=[1, 2, 3], references=[1, 0, -100]) == {"accuracy": 0.5}
    with pytest.raises(ConfigError, match="shape"):
        Accuracy().compute(predictions=[1, 2], references=[1])
    with pytest.raises(ConfigError, match="no reference"):
        Accuracy().compute(predictions=[1], references=[-100])


def test_numbers_are_taken_of_what_a_metric_computes():
    assert numbers_of({"f1": np.float64(0.5), "by_class": [0.1, 0.2], "name": "x"}) == {"f1": 0.5}
    for nothing in (None, {}, {"by_class": [0.1]}, 0.5):
        with pytest.raises(ConfigError, match="which is not a number"):
            numbers_of(nothing)


def test_losses_and_errors_are_known_to_be_better_low():
    assert not any(map(is_greater_better, ("loss", "eval_loss", "perplexity", "mse", "word_error")))
    assert is_greater_better("accuracy")
