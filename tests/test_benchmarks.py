"""The benchmarks of quality, label_issues and width say of the committed measurements what they came to."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from sage_hf.demo import build_vit

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"


@pytest.fixture(scope="module")
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module


@pytest.fixture(scope="module")
def quality_report(scripts):
    return scripts("quality_report")


@pytest.fixture(scope="module")
def label_issues(scripts):
    return scripts("label_issues")


@pytest.fixture(scope="module")
def width(scripts):
    return scripts("width")


def test_committed_results_are_compact_as_they_are_written(scripts):
    for path in (BENCHMARKS / "results").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        if path.name != "models.json":  # which names no machine
            assert text == scripts("machine").to_json(json.loads(text)) + "\n"


def test_json_has_a_line_for_each_row_and_loses_nothing(scripts):
    held = {"rows": [{"seconds": [0.1] * 99, "name": "é"}, {}], "a": {"b": {"c": [1] * 99}, "d": None}, 3: []}
    text = scripts("machine").to_json(held)
    assert json.loads(text) == json.loads(json.dumps(held))
    assert text.splitlines()[3:5] == ["  {}", " ],"]


def task_of(values, lower=False):
    """One share, a value a seed."""
    return {
        "title": "a task",
        "metric": "loss" if lower else "accuracy",
        "lower_is_better": lower,
        "fractions": [0.1],
        "seeds": list(range(len(values["auto"]))),
        "values": {name: {"1" if name == "all" else "0.1": each} for name, each in values.items()},
    }


MADE = {
    "all": [0.9, 0.9, 0.9],
    "auto": [0.50, 0.60, 0.70],
    "agreement": [0.51, 0.59, 0.60],
    "coverage": [0.99, 0.99, 0.99],
    "random": [0.40, 0.50, 0.61],
    "herding": [0.52, 0.60, 0.70],
}


def test_gains_are_paired_by_seed_and_the_best_baseline_is_no_strategy_of_our_own(quality_report):
    (cell,) = quality_report.cells_of(task_of(MADE))
    assert np.isclose(cell.over_random.mean, (0.10 + 0.10 + 0.09) / 3) and cell.over_random.half < 0.02
    assert cell.best == "herding" and np.isclose(cell.over_best.mean, -0.02 / 3)
    assert cell.falls_short == ["behind herding"]


def test_less_is_better_where_the_task_says_so(quality_report):
    (cell,) = quality_report.cells_of(task_of({name: [-value for value in each] for name, each in MADE.items()}, True))
    (other,) = quality_report.cells_of(task_of(MADE))
    assert np.isclose(cell.over_random.mean, other.over_random.mean) and cell.best == other.best


def test_what_a_cell_lacks_is_said(quality_report):
    (cell,) = quality_report.cells_of(task_of({**MADE, "auto": [0.40, 0.51, 0.60], "herding": [0.1, 0.1, 0.1]}))
    assert cell.best == "random"
    assert cell.falls_short == [
        "not better than random rows by more than the interval",
        "not better than the paper's rule",
    ]
    (cell,) = quality_report.cells_of(task_of({**MADE, "auto": [0.30, 0.40, 0.50]}))
    assert cell.falls_short[0] == "worse than random rows"


def test_cells_are_counted(quality_report):
    worse = {**MADE, "auto": [0.30, 0.40, 0.50]}
    assert quality_report.summarize({"one": task_of(MADE), "other": task_of(worse)}) == {
        "cells": 2,
        "not_worse_than_random_within_the_interval": 1,
        "cells_at_or_below_10_percent": 2,
        "better_than_random_by_more_than_the_interval_there": 1,
        "better_than_the_papers_rule": 1,
        "at_or_above_the_best_baseline": 0,
        "at_or_above_the_best_baseline_within_the_interval": 1,
        "at_or_above_each_baseline": {
            "random": {"cells": 2, "at_or_above": 1},
            "herding": {"cells": 2, "at_or_above": 0},
        },
    }


def test_the_committed_tables_of_quality_are_those_of_the_committed_trainings(quality_report):
    results = BENCHMARKS / "results"
    found = json.loads((results / "quality.json").read_text(encoding="utf-8"))
    tasks = found["tasks"]
    assert found["summary"] == quality_report.summarize(tasks)
    assert (results / "quality.md").read_text(encoding="utf-8").strip() == quality_report.short_table(tasks)
    assert (results / "quality_all.md").read_text(encoding="utf-8").strip() == quality_report.long_tables(tasks)
    for task in tasks.values():
        assert len(task["seeds"]) >= 5
        assert all(len(each) == len(task["seeds"]) for values in task["values"].values() for each in values.values())


def test_the_committed_table_of_label_issues_is_that_of_the_committed_measurements(label_issues):
    rows = json.loads((BENCHMARKS / "results" / "label_issues.json").read_text(encoding="utf-8"))["rows"]
    lines = [
        {"task": row["task"], "kind": row["kind"], "share": row["share"], "found": run}
        for row in rows
        for run in row["runs"]
    ]
    assert label_issues.summed_up(lines) == rows
    assert (BENCHMARKS / "results" / "label_issues.md").read_text(encoding="utf-8").strip() == label_issues.table(rows)
    assert all(row["seeds"] >= 5 for row in rows)
    planted = {(row["task"], row["kind"], row["share"]) for row in rows}
    assert planted == {(task, *each) for task in label_issues.TASKS for each in label_issues.PLANTED}


def test_a_clean_dataset_has_no_precision_to_show(label_issues):
    task = next(iter(label_issues.TASKS))
    rows = label_issues.summed_up([{"task": task, "kind": "clean", "share": 0.0, "found": {"listed": 0.03}}])
    assert label_issues.table(rows).splitlines()[-1] == f"| {task} | none | 3 |{'  |' * 7}"


def test_widths_are_held_against_the_reference_of_the_same_seed_and_the_same_scoring_model(width):
    def line(seed, scorer, setting, value, auc):
        more = {"0.1": 0.9} if setting == width.REFERENCE.name else {}
        return {
            "task": "text",
            "share": 0.2,
            "seed": seed,
            "scorer": scorer,
            "setting": setting,
            "values": {"0.02": value, **more},
            "overlap": {"0.02": 0.5, **more},
            "auc": auc,
        }

    lines = [
        line(0, "own", width.REFERENCE.name, 0.50, 0.80),
        line(1, "own", width.REFERENCE.name, 0.60, 0.80),
        line(0, "own", "4,096 wide", 0.49, 0.81),
        line(1, "own", "4,096 wide", 0.59, 0.83),
        line(0, "deeper", width.REFERENCE.name, 0.70, 0.60),
        line(0, "deeper", width.LAST.name, 0.75, 0.90),
    ]
    found = {entry["setting"]: entry for entry in width.summed_up(lines, None)}
    narrow, last = (found[name]["tasks"]["text"] for name in ("4,096 wide", width.LAST.name))
    assert np.isclose(narrow["value"]["mean"], -0.01) and narrow["value"]["half_interval"] is None
    assert np.isclose(narrow["auc"]["mean"], 0.02) and narrow["auc"]["count"] == 2
    assert np.isclose(last["value"]["mean"], 0.05) and np.isclose(last["auc"]["mean"], 0.30)
    assert np.isclose(found[width.REFERENCE.name]["tasks"]["text"]["areas"]["auc"], 0.80)
    assert found["1,024 wide"]["tasks"] == {}


def test_an_upper_share_of_the_layers_takes_what_is_behind_them_too(width):
    names = width.targets(build_vit(0), 0.5)
    assert names[-1] == "classifier.weight"
    assert {name.split(".")[2] for name in names[:-1]} == {"1", "2"}


def test_the_committed_table_of_widths_is_that_of_the_committed_lines(width):
    results = BENCHMARKS / "results"
    found = json.loads((results / "width.json").read_text(encoding="utf-8"))
    assert width.summed_up(found["lines"], found["cost"]) == found["settings"]
    text = (results / "width.md").read_text(encoding="utf-8").strip()
    assert width.table(found["settings"], found["cost"]) == text
    assert len({line["seed"] for line in found["lines"]}) >= 2
