"""The benchmarks say of the committed measurements what they came to, and a part of a run leaves these as they are."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sage_hf.demo import build_vit

from .cases import llama

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "examples" / "benchmarks"
# What writes no results, or only where it is told to.
HELPERS = ("machine", "readme", "quality_tasks", "quality_patches", "quality_texts", "quality_report")
HELPERS += ("target_rules", "target_texts")
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem not in HELPERS)


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


@pytest.fixture(scope="module")
def targets(scripts):
    return scripts("targets")


@pytest.fixture(scope="module")
def target_rules(scripts):
    return scripts("target_rules")


def test_committed_results_are_compact_as_they_are_written(scripts):
    for path in (BENCHMARKS / "results").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        if path.name != "models.json":  # which names no machine
            assert text == scripts("machine").to_json(json.loads(text)) + "\n"


# -------------------------------------------------------------- where results go
def committed():
    return {path.name: path.read_bytes() for path in (BENCHMARKS / "results").iterdir()}


def run_script(name, *arguments, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)


def parsed(*words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--report", action="store_true")
    return parser, parser.parse_args(words)


def test_a_whole_run_with_settings_as_they_are_by_default_writes_the_committed_results(scripts):
    machine = scripts("machine")
    for words in ((), ("--report",), ("--seeds", "0", "1", "2"), ("--rounds", "3")):
        assert machine.results_of(*parsed(*words)) == BENCHMARKS / "results"


@pytest.mark.parametrize(
    "words", [("--seeds", "0"), ("--rounds", "1"), ("--seeds", "0", "1", "2", "3"), ("--report",)]
)
def test_any_other_run_writes_elsewhere_and_says_where_and_why(scripts, capsys, words):
    machine = scripts("machine")
    found = machine.results_of(*parsed(*words), is_whole="--report" not in words)
    said = capsys.readouterr().out
    assert found.resolve() != (BENCHMARKS / "results").resolve()
    assert found.parent == machine.PARTS
    assert str(found) in said and (words[0] in said or "not measured yet" in said)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(1, 5), st.booleans())
def test_only_the_defaults_are_a_whole_run(scripts, seeds, rounds, is_whole):
    parser, arguments = parsed("--seeds", *map(str, seeds), "--rounds", str(rounds))
    is_usual = seeds == [0, 1, 2] and rounds == 3
    found = scripts("machine").results_of(parser, arguments, is_whole=is_whole)
    assert (found == BENCHMARKS / "results") is (is_usual and is_whole)


def test_another_folder_is_another_run(scripts, tmp_path):
    parser, _ = parsed()
    parser.add_argument("--folder", type=Path, default=Path("out/x"))
    machine = scripts("machine")
    assert machine.results_of(parser, parser.parse_args(["--folder", str(tmp_path)])) == tmp_path / "results"
    assert machine.results_of(parser, parser.parse_args([]), is_whole=False) == Path("out/x/results")
    assert machine.results_of(parser, parser.parse_args([])) == BENCHMARKS / "results"


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_benchmark_asks_where_its_results_go(name):
    text = (BENCHMARKS / f"{name}.py").read_text(encoding="utf-8")
    assert "results_of(parser, arguments" in text
    assert "RESULTS" not in text
    assert 'write("' not in text


def test_a_part_of_a_run_leaves_the_committed_results_as_they_are(tmp_path):
    before = committed()
    part = ("--task", "tumours", "--seeds", "0", "--spoilt", "0", "--strategies", "herding", "--fractions", "0.1")
    done = run_script("quality", *part, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "its results are in out/quality/results" in done.stdout
    held = json.loads((tmp_path / "out/quality/results/quality.json").read_text())
    task = held["tasks"]["tumours-0"]
    assert sorted(task["values"]) == ["agreement", "all", "auto", "herding", "random"]
    assert (task["fractions"], task["seeds"]) == ([0.1], [0])
    assert "share of full accuracy reached" in (tmp_path / "out/quality/results/quality.md").read_text()
    # The same folder as a whole run's, of which nearly nothing is there.
    done = run_script("quality", "--report", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "not measured yet" in done.stdout
    # More of it: what was trained stays.
    done = run_script("quality", *part[:-1], "0.2", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    more = json.loads((tmp_path / "out/quality/results/quality.json").read_text())["tasks"]["tumours-0"]
    assert more["fractions"] == [0.1, 0.2]
    assert more["values"]["auto"]["0.1"] == task["values"]["auto"]["0.1"]
    assert committed() == before


def test_a_table_of_what_is_not_finished_is_not_a_whole_runs(tmp_path):
    before = committed()
    done = run_script("label_issues", "--report", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out/label_issues/results/label_issues.md").exists()
    assert committed() == before


def test_a_run_is_whole_when_every_seed_share_and_strategy_is_there(scripts):
    quality = scripts("quality")
    names = quality.strategies_for("digits", quality.COMPARED)
    values = {name: {} for name in ("all", *names)}
    task = {"seeds": [0, 1, 2], "fractions": list(quality.FRACTIONS), "values": values}
    assert quality.is_finished({"digits-0": task}, "digits", 0.0, [0, 1, 2])
    assert not quality.is_finished({"digits-0": task}, "digits", 0.2, [0, 1, 2])
    for less in (
        {"seeds": [0, 1]},
        {"fractions": [0.1]},
        {"values": {name: {} for name in ("all", *names[1:])}},
    ):
        assert not quality.is_finished({"digits-0": {**task, **less}}, "digits", 0.0, [0, 1, 2])
    assert "el2n" not in quality.strategies_for("language", list(quality.STRATEGIES))


# --------------------------------------------------------------------- the tables
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
        "pretrained": False,
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


def test_the_share_of_full_accuracy_is_a_ratio_of_means_with_the_interval_of_one(quality_report):
    values = {**MADE, "all": [0.8, 1.0, 0.9]}
    (cell,) = quality_report.cells_of(task_of(values))
    assert cell.of_all.mean == pytest.approx(0.6 / 0.9)
    rng = np.random.default_rng(0)
    whole = rng.normal(0.9, 0.02, 400)
    mine = 0.8 * whole + rng.normal(0, 0.01, 400)
    (many,) = quality_report.cells_of(task_of({name: (mine if name == "auto" else whole).tolist() for name in MADE}))
    drawn = [(mine[lot].mean() / whole[lot].mean()) for lot in rng.integers(0, 400, (2000, 400))]
    assert many.of_all.half == pytest.approx(1.96 * np.std(drawn), rel=0.1)


def test_of_a_loss_there_is_no_share(quality_report):
    (cell,) = quality_report.cells_of(task_of({name: [-value for value in each] for name, each in MADE.items()}, True))
    assert cell.of_all is None
    table = quality_report.short_table({"a": task_of(MADE, True)})
    assert "full accuracy" not in table
    assert "full accuracy" in quality_report.short_table({"a": task_of(MADE)})


def test_the_shortest_table_tells_shares_of_all_rows_and_losses_as_they_are(quality_report):
    task = {**task_of(MADE), "fractions": [0.05]}
    task["values"] = {name: {("1" if name == "all" else "0.05"): each} for name, each in MADE.items()}
    head, _, line = quality_report.shortest_table({"a": task, "other": task_of(MADE)}).splitlines()
    assert head == "| with 5 % of the rows | all rows | default | random rows | the paper's rule |"
    assert line.startswith("| a task | accuracy 90.0 % | **67 ± 28 %** | 56 ")
    loss = quality_report.shortest_table({"a": {**task, "metric": "loss", "lower_is_better": True}}).splitlines()[2]
    assert loss.startswith("| a task | loss 0.900 | **0.600 ± ")


def test_the_share_that_is_wanted_is_looked_at_where_it_is_wanted(quality_report):
    task = {**task_of(MADE), "pretrained": True, "fractions": [0.05]}
    task["values"] = {name: {("1" if name == "all" else "0.05"): each} for name, each in MADE.items()}
    (found,) = quality_report.summarize({"a": task})["reached_of_all_rows"]
    assert (found["fraction"], found["of_all"]) == (0.05, pytest.approx(0.6 / 0.9))


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
        "reached_of_all_rows": [
            {"task": "a task", "fraction": 0.25, "wanted": 0.98, "of_all": None, "half": None} for _ in range(2)
        ],
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
    assert (results / "quality_short.md").read_text(encoding="utf-8").strip() == quality_report.shortest_table(tasks)
    assert (results / "quality_counts.md").read_text(encoding="utf-8").strip() == quality_report.counts_table(tasks)
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
    assert label_issues.table(rows).splitlines()[-1] == f"| {task} | none | 3.0 |{'  |' * 8}"


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


def test_the_committed_table_of_targets_is_that_of_the_committed_lines(targets):
    results = BENCHMARKS / "results"
    found = json.loads((results / "targets.json").read_text(encoding="utf-8"))
    assert targets.summed_up(found["lines"]) == found["entries"]
    assert targets.table(found["entries"]) == (results / "targets.md").read_text(encoding="utf-8").strip()
    runs = {(line["kind"], line["seed"], line["rule"]) for line in found["lines"]}
    assert runs == {(kind, seed, rule) for kind in targets.KINDS for seed in targets.SEEDS for rule in targets.RULES}
    assert all(len(line[name]) == len(targets.SOURCES) for line in found["lines"] for name in ("shares", "losses"))


def test_means_of_targets_are_over_sources_and_intervals_over_seeds(targets):
    def line(seed, share, loss):
        some = np.array([-0.1, -0.1, 0.0, 0.1, 0.1])
        return {
            **{"kind": "lora", "seed": seed, "rule": "words, tf-idf"},
            **{"shares": (share + some).tolist(), "losses": (loss + some).tolist()},
        }

    (entry,) = targets.summed_up([line(0, 0.4, 5.0), line(1, 0.6, 5.0), line(2, 0.5, 5.0)])
    assert entry["seeds"] == [0, 1, 2]
    assert np.isclose(entry["shares"]["mean"], 0.5) and np.isclose(entry["shares"]["half_interval"], 0.2484, atol=1e-3)
    assert np.isclose(entry["losses"]["mean"], 5.0)
    assert np.isclose(entry["shares"]["by_source"]["scipy"], 0.4)
    assert targets.table([entry]).splitlines()[-1].startswith("| words, tf-idf | **50.0** ± 24.8 | 40 | 40 | 50 |")


def test_sources_share_no_text_and_neither_do_their_parts(scripts):
    parts = scripts("target_texts").split(3, rows=40, held=10, few=5)
    assert [len(part["train"]) for part in parts.values()] == [40] * 5
    texts = [text for part in parts.values() for rows in part.values() for text in rows]
    assert len(set(texts)) == len(texts) == 5 * 55
    assert parts == scripts("target_texts").split(3, rows=40, held=10, few=5)


FRUIT = [f"ripe {fruit} taste sweet in a bowl" for fruit in ("apples", "pears", "plums", "grapes")]
RINGS = [f"a ring with {word} has an ideal" for word in ("units", "zero divisors", "one prime", "two primes")]


@pytest.mark.parametrize("rule", ["word_importance", "tf_idf"])
def test_rules_of_words_find_the_rows_that_speak_of_the_target(target_rules, rule):
    scores = getattr(target_rules, rule)([*FRUIT, *RINGS], ["sweet grapes and ripe plums"])
    assert scores[:4].min() > scores[4:].max()
    again = getattr(target_rules, rule)([*RINGS, *FRUIT], ["sweet grapes and ripe plums"])
    assert np.allclose(np.concatenate([again[4:], again[:4]]), scores)


def test_word_importance_does_not_grow_with_length(target_rules):
    once = target_rules.word_importance([FRUIT[0], RINGS[0]], FRUIT[1:])
    twice = target_rules.word_importance([f"{FRUIT[0]} {FRUIT[0]}", RINGS[0]], FRUIT[1:])
    assert abs(once[0] - twice[0]) < 0.35


def test_embeddings_are_weighted_means_of_states_whatever_the_padding(target_rules):
    body = llama().model.eval()
    rows = [[3, 4, 5], [6, 7, 8, 9, 10, 3], [4]]
    rarity = target_rules.by_rarity(rows)
    found = target_rules.embed(body, rows, rarity, batch_size=2)
    for number, ids in enumerate(rows):
        states = body(input_ids=torch.tensor([ids])).last_hidden_state[0].detach().numpy()
        assert np.allclose(found[number], np.average(states, axis=0, weights=rarity(ids)), atol=1e-5)
    assert rarity([5])[0] > rarity([4])[0]
    near = target_rules.similarity(found, found[1:2])
    assert near.argmax() == 1 and np.isclose(near[1], 1.0)


# ------------------------------------------------------------------------- patches
@pytest.fixture(scope="module")
def patches(scripts):
    pytest.importorskip("skimage")
    return scripts("quality_patches")


def test_patches_are_many_real_and_tell_nothing_by_brightness_or_contrast(patches):
    held = patches.load_patches(0)
    assert len(held.train) > 2500 and len(held.test) > 800
    assert held.train.shape[1:] == (1, patches.EDGE, patches.EDGE)
    assert set(held.train_labels) == set(held.test_labels) == set(range(12))
    for pixels in (held.train, held.test):
        assert np.abs(pixels.mean((1, 2, 3))).max() < 1e-4
        assert np.abs(pixels.std((1, 2, 3)) - 1).max() < 1e-3


@pytest.mark.parametrize("seed", [0, 1])
def test_no_patch_to_judge_by_is_one_to_train_on(patches, seed):
    held = patches.load_patches(seed)
    train = {patch.tobytes() for patch in held.train}
    assert not any(patch.tobytes() in train for patch in held.test)
    again = patches.load_patches(seed)
    assert np.array_equal(held.train, again.train) and np.array_equal(held.test, again.test)
    assert not np.array_equal(held.train, patches.load_patches(seed + 1).train)


def test_wrong_labels_are_of_the_patches_to_train_on_alone(scripts, patches):
    tasks = scripts("quality_tasks")
    clean, spoilt = (
        tasks.wrong_labels(patches.load_patches(0).train_labels, share, "uniform", 0) for share in (0, 0.2)
    )
    assert not clean[1].any()
    assert spoilt[1].mean() == pytest.approx(0.2, abs=0.001)
    assert (spoilt[0] != clean[0])[spoilt[1]].all() and (spoilt[0] == clean[0])[~spoilt[1]].all()
