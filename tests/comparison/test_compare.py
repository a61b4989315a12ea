"""The comparison itself: small trainings of small models on real images."""

import importlib
import json
from dataclasses import replace

import datasets
import evaluate
import numpy as np
import pytest
import torch
from torch import nn

import sage_hf
from examples.python_text import train_tokenizer
from sage_hf import Comparison, SageConfig, SageSelector, compare
from sage_hf.comparison.experiment import Experiment, complete
from sage_hf.comparison.folder import RunFolder
from sage_hf.comparison.runs import Run
from sage_hf.demo import load_noisy_digits
from sage_hf.errors import BudgetError, ConfigError, DatasetError, LabelError, OutputError
from sage_hf.hub.markdown import escaped
from sage_hf.utils.deprecation import about_old
from sage_hf.utils.fingerprint import model_fingerprint

from ..cases import image_rows, llama, pad_tokens, token_rows, vit

_print_of = importlib.import_module("sage_hf.comparison.compare")._print_of
_classes_of = importlib.import_module("sage_hf.comparison.compare")._classes_of
CONFIG = SageConfig(sketch_size=8, batch_size=64)
TRAINING = {"max_steps": 3, "learning_rate": 1e-2, "per_device_train_batch_size": 16}


@pytest.fixture(autouse=True)
def _uncollected(monkeypatch):
    """Half of such short trainings' time is the collection of garbage after them."""
    monkeypatch.setattr("sage_hf.comparison.experiment.clear_device_cache", lambda **_: None)


@pytest.fixture(scope="module")
def digits():
    held = load_noisy_digits(0)
    return held.train.select(range(200)), held.test.select(range(90))


def build(seed):
    torch.manual_seed(seed)  # cases seed their own; the weights of a seed are drawn again here
    model = vit(10)
    torch.manual_seed(seed)
    nn.init.normal_(model.classifier.weight)
    return model


def run(digits, **changes):
    """A comparison of two strategies at one share with two seeds: six trainings."""
    settings = {
        "model_init": build,
        "fractions": [0.1],
        "strategies": ["agreement", "random"],
        "seeds": 2,
        "config": CONFIG,
        "training_args": TRAINING,
        "progress": False,
    }
    return compare(vit(10), *digits, **{**settings, **changes})


@pytest.fixture
def trained(monkeypatch):
    """Every training that is run, as rows and seed."""
    ran, real = [], Experiment.run

    def counted(self, rows, seed):
        ran.append((rows.tolist(), seed))
        return real(self, rows, seed)

    monkeypatch.setattr(Experiment, "run", counted)
    return ran


def test_every_group_trains_on_the_rows_that_a_selection_keeps(digits, trained):
    comparison = run(digits, strategies=["auto", "agreement", "random"], seeds=[0])
    wanted = [
        SageSelector(vit(10), config=replace(CONFIG, strategy=name, fraction=0.1), progress=False).select(digits[0])
        for name in ("auto", "agreement", "random")
    ]
    assert trained == [(list(range(200)), 0), *((each.indices.tolist(), 0) for each in wanted)]
    assert [each.key for each in comparison.runs] == [
        *(("all", 1.0, 0), ("auto", 0.1, 0), ("agreement", 0.1, 0), ("random", 0.1, 0))
    ]
    assert [each.rows for each in comparison.runs] == [200, 20, 20, 20]


def test_it_knows_what_guessing_gets_on_the_test_rows(digits):
    comparison = run(digits, seeds=[0], strategies=["random"])
    labels = np.array(digits[1]["label"][:])
    assert comparison.guessing == {"accuracy": pytest.approx(np.bincount(labels).max() / 90)}
    assert comparison.eval_rows == 90
    assert not comparison.learns  # after three steps
    assert comparison.recommendation.startswith("No conclusion")


def test_a_language_model_is_held_against_no_class():
    rows = token_rows(30)
    settings = {"model_init": lambda seed: llama(), "strategies": ["random"], "data_collator": pad_tokens}
    halves = rows.select(range(20)), rows.select(range(20, 30))
    comparison = compare(
        llama(), *halves, **settings, fractions=[0.5], seeds=[0], config=CONFIG, training_args=TRAINING
    )
    assert (comparison.guessing, comparison.learns) == ({}, True)


@pytest.mark.parametrize(
    ("values", "codes"), [([3, 1, 3], [3, 1, 3]), ([True, False, True], [1, 0, 1]), (["b", "a", "b"], [1, 0, 1])]
)
def test_classes_are_numbers_whatever_they_are(values, codes):
    rows = datasets.Dataset.from_dict({"label": values})
    assert _classes_of(rows, "label").tolist() == codes
    assert _classes_of(rows, None).tolist() == []


def test_rows_are_scored_once_and_the_model_stays_as_it_was(digits, monkeypatch):
    passes, real = [], SageSelector.gather
    monkeypatch.setattr(SageSelector, "gather", lambda self, *given: (passes.append(1), real(self, *given))[1])
    model, state = vit(10), torch.get_rng_state()
    model.train()
    before = model_fingerprint(model)
    settings = {"model_init": build, "config": CONFIG, "training_args": TRAINING, "progress": False}
    compare(model, *digits, fractions=[0.05, 0.1], seeds=1, **settings)
    assert len(passes) == 1
    assert model.training
    assert model_fingerprint(model) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_a_killed_run_goes_on_with_what_is_missing_and_ends_alike(digits, tmp_path, monkeypatch):
    whole = run(digits, output_dir=tmp_path / "whole")
    real, ran = Experiment.run, []

    def killed(self, rows, seed):
        ran.append(seed)
        if len(ran) == 4:
            raise KeyboardInterrupt
        return real(self, rows, seed)

    monkeypatch.setattr(Experiment, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        run(digits, output_dir=tmp_path / "killed")
    path = tmp_path / "killed" / "runs.jsonl"
    assert len(path.read_text().splitlines()) == 3
    path.write_text(path.read_text() + '{"fingerprint": "1', encoding="utf-8")  # torn while it was written
    monkeypatch.setattr(SageSelector, "fit", None)  # rows are chosen already
    again = run(digits, output_dir=tmp_path / "killed")
    assert len(ran) == 4 + 3
    assert again == whole == Comparison.load(tmp_path / "killed")
    assert (tmp_path / "killed" / "comparison.png").read_bytes() == (
        tmp_path / "whole" / "comparison.png"
    ).read_bytes()
    assert escaped(again.recommendation) in (tmp_path / "killed" / "comparison.md").read_text()
    assert run(digits, output_dir=tmp_path / "killed") == whole
    assert len(ran) == 4 + 3


def test_shares_strategies_and_seeds_can_be_added(digits, tmp_path, trained):
    few = run(digits, output_dir=tmp_path, seeds=1)
    more = run(digits, output_dir=tmp_path, fractions=[0.1, 0.2], strategies=["loss", "random"], seeds=2)
    assert len(trained) == 3 + 10 - 2
    assert more.group("random", 0.1).value.count == 2
    assert [each for each in more.runs if each in few.runs] == [few.runs[0], few.runs[2]]


def test_other_settings_in_the_folder_are_refused_and_named(digits, tmp_path, trained):
    run(digits, output_dir=tmp_path, seeds=1)
    other = {**TRAINING, "learning_rate": 1e-3}
    with pytest.raises(OutputError, match=r"training.learning_rate is 0.001 and was 0.01"):
        run(digits, output_dir=tmp_path, seeds=1, training_args=other)
    with pytest.raises(OutputError, match="test_rows"):
        run((digits[0], digits[1].select(range(50))), output_dir=tmp_path, seeds=1)
    with pytest.raises(OutputError, match="fresh_model"):
        run(digits, output_dir=tmp_path, seeds=1, model_init=lambda seed: vit(10))
    assert len(trained) == 3
    replaced = run(digits, output_dir=tmp_path, seeds=1, training_args=other, overwrite_output_dir=True)
    assert len(trained) == 6
    assert Comparison.load(tmp_path) == replaced


def test_a_folder_with_other_things_is_left_alone(digits, tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(OutputError, match="not a comparison"):
        run(digits, output_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_broken_lines_before_the_last_are_kept_aside_and_those_trainings_made_again(tmp_path, caplog):
    folder, path = RunFolder(tmp_path, {}), tmp_path / "runs.jsonl"
    for seed in range(3):
        folder.add(Run("auto", 0.1, seed, 5, {"accuracy": 0.5}))
    folder.close()
    held = path.read_text()
    path.write_text(held.replace('"seed": 1', '"seed": 7') + '{"finger\n{}\n')
    again = RunFolder(tmp_path, {})
    assert [key[2] for key in again.runs] == [0, 2]
    assert "3 of its lines, first line 2: its checksum" in caplog.text
    assert '"seed": 7' in (tmp_path / "runs.jsonl.damaged").read_text()
    again.add(Run("auto", 0.1, 1, 5, {"accuracy": 0.5}))
    assert sorted(path.read_text().splitlines()) == sorted(held.splitlines())


def test_trainings_of_an_older_version_have_no_checksum_and_count(tmp_path):
    folder, path = RunFolder(tmp_path, {}), tmp_path / "runs.jsonl"
    folder.add(Run("auto", 0.1, 0, 5, {"accuracy": 0.5}))
    folder.close()
    values = json.loads(path.read_text())
    del values["checksum"]
    path.write_text(json.dumps(values) + "\n")
    assert len(RunFolder(tmp_path, {}).runs) == 1


def test_the_same_seed_starts_every_group_from_the_same_weights(digits, monkeypatch):
    built = []

    def recorded(seed):
        built.append((seed, model_fingerprint(model := nn_head(seed))))
        return model

    def nn_head(seed):
        model = vit(10)
        torch.manual_seed(seed)
        nn.init.normal_(model.classifier.weight)
        return model

    run(digits, model_init=recorded, seeds=[3, 4])
    assert len(built) == 1 + 6
    by_seed = {seed: {print_ for one, print_ in built[1:] if one == seed} for seed in (3, 4)}
    assert [len(prints) for prints in by_seed.values()] == [1, 1]
    assert by_seed[3] != by_seed[4]


def test_a_model_of_language_is_judged_by_each_rows_own_loss(monkeypatch):
    tokenizer = train_tokenizer(["a"], 260)
    train, test = token_rows(60, seed=1), token_rows(21, seed=2)
    kept = []
    monkeypatch.setattr(
        Experiment, "judge", lambda self, losses, none: kept.append(losses) or {"loss": float(losses.mean())}
    )
    comparison = compare(
        llama(),
        *(train, test),
        model_init=lambda seed: llama(),
        fractions=[0.2],
        strategies=["random"],
        seeds=1,
        processing_class=tokenizer,
        config=SageConfig(sketch_size=8, batch_size=4),
        training_args={**TRAINING, "max_steps": 1, "learning_rate": 1e-30},
        progress=False,
    )
    model = llama().eval()
    own = [
        model(**{"input_ids": torch.tensor([row["input_ids"]])}, labels=torch.tensor([row["input_ids"]])).loss
        for row in test
    ]
    assert np.allclose(kept[0], torch.stack(own).tolist(), rtol=1e-5)  # whatever shares a batch with it
    assert comparison.metric == "loss"
    assert not comparison.greater_is_better
    assert "loss" in comparison.recommendation


def test_a_metric_of_evaluate_works_in_accuracys_place(digits, tmp_path):
    class Agreed(evaluate.Metric):
        def _info(self):
            features = datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            )
            return evaluate.MetricInfo(description="", citation="", features=features)

        def _compute(self, predictions, references):
            right = float(np.mean(np.array(predictions) == np.array(references)))
            return {"agreed": right, "wrong": 1 - right}

    one = run(digits, seeds=1)
    other = run(digits, seeds=1, metric=Agreed(cache_dir=str(tmp_path)))
    assert [each.metrics["agreed"] for each in other.runs] == [each.metrics["accuracy"] for each in one.runs]
    assert (one.metric, other.metric) == ("accuracy", "agreed")
    assert replace(other, metric="wrong", greater_is_better=False).reference.value.mean == pytest.approx(
        1 - one.reference.value.mean
    )


def test_a_metric_that_cannot_judge_is_said_to(digits):
    class Broken:
        def compute(self, *, predictions, references):
            raise ValueError("not these")

    with pytest.raises(ConfigError, match=r"cannot judge predictions of shape .90.: not these"):
        run(digits, metric=Broken())
    with pytest.raises(ConfigError, match="no compute"):
        run(digits, metric=object())


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"fractions": []}, BudgetError, "No fraction"),
        ({"fractions": [0.1, 1.5]}, BudgetError, "1.5"),
        ({"fractions": ["a tenth"]}, BudgetError, "a tenth"),
        ({"fractions": [float("nan")]}, BudgetError, "nan"),
        ({"strategies": []}, ConfigError, "No strategy"),
        ({"strategies": ["luck"]}, ConfigError, "luck"),
        ({"seeds": 0}, ConfigError, "seeds is 0"),
        ({"seeds": []}, ConfigError, "seeds"),
        ({"seeds": [-1]}, ConfigError, "seeds"),
        ({"tolerance": -0.1}, ConfigError, "tolerance"),
        ({"greater_is_better": ("f1",)}, ConfigError, "greater_is_better is"),
        ({"training_args": {"max_steps": 0}}, ConfigError, "max_steps"),
        ({"training_args": {"num_train_epochs": 3}}, ConfigError, "epochs"),
        ({"training_args": {"seed": 3}}, ConfigError, "seed"),
        ({"training_args": {"learning_speed": 3}}, ConfigError, "learning_speed"),
        ({"training_args": {"lr_scheduler_type": "bumpy"}}, ConfigError, "bumpy"),
        ({"model_init": lambda seed: None}, ConfigError, "NoneType"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_computed(digits, monkeypatch, changes, error, words):
    monkeypatch.setattr(SageSelector, "fit", None)
    with pytest.raises(error, match=words):
        run(digits, **changes)


def test_impossible_rows_are_refused_before_anything_is_computed(digits, monkeypatch):
    monkeypatch.setattr(SageSelector, "fit", None)
    train, test = digits
    with pytest.raises(LabelError, match="no column 'label'"):
        run((train, test.remove_columns("label")))
    with pytest.raises(DatasetError, match="are the training rows"):
        run((train, train))
    with pytest.raises(DatasetError, match="no rows"):
        run((train, test.select([])))
    with pytest.raises(LabelError, match="The label is 5"):
        run((image_rows(20), test.filter(lambda row: row["label"] == 5)), model_init=lambda seed: vit(3))


def test_a_strategy_that_these_rows_refuse_is_named_before_any_training(trained):
    with pytest.raises(ConfigError, match="'el2n' cannot choose from these rows"):
        compare(
            llama(),
            *(token_rows(30), token_rows(10, seed=5)),
            model_init=lambda seed: llama(),
            strategies=["random", "el2n"],
            fractions=[0.5],
            processing_class=train_tokenizer(["a"], 260),
            config=SageConfig(sketch_size=8, batch_size=4),
            progress=False,
        )
    assert trained == []


def test_settings_of_a_training_are_completed_and_the_users_stay():
    known = complete({"max_steps": 7, "use_cpu": False}, 64, on_cpu=True)
    assert (known["max_steps"], known["use_cpu"], known["per_device_eval_batch_size"]) == (7, False, 64)


def test_a_tokenizer_that_was_used_meanwhile_is_the_same():
    tokenizer = train_tokenizer(["a"], 260)
    tokenizer.pad_token = tokenizer.eos_token
    before = _print_of(tokenizer)
    tokenizer(["a", "a a a"], padding=True, truncation=True, max_length=2)
    assert _print_of(tokenizer) == before
    assert _print_of(train_tokenizer(["b"], 261)) != before
    assert _print_of(each for each in "unpicklable") == "builtins.generator"


def test_adapters_are_trained_and_judged():
    peft = pytest.importorskip("peft")

    def adapted(seed):
        return peft.get_peft_model(llama(), peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False))

    comparison = compare(
        adapted(0),
        *(token_rows(24, seed=1), token_rows(10, seed=2)),
        model_init=adapted,
        data_collator=pad_tokens,
        fractions=[0.5],
        strategies=["random"],
        seeds=2,
        config=SageConfig(sketch_size=4, batch_size=4),
        training_args=TRAINING,
        progress=False,
    )
    assert comparison.metric == "loss"
    assert len({each.metrics["loss"] for each in comparison.runs}) == 4


def test_both_names_are_in_the_package():
    assert {"compare", "Comparison"} <= set(sage_hf.__all__)


def test_the_old_names_of_arguments_work_with_a_warning(digits, tmp_path):
    config = {"fractions": [0.1], "strategies": ["random"], "seeds": 1, "config": CONFIG, "progress": False}
    new = compare(vit(10), *digits, model_init=build, training_args=TRAINING, output_dir=tmp_path / "new", **config)
    with pytest.warns(DeprecationWarning, match=r"compare\(") as warned:
        old = compare(
            vit(10),
            digits[0],
            test_dataset=digits[1],
            build_model=build,
            training=TRAINING,
            output=tmp_path / "new",
            overwrite=False,
            **config,
        )
    assert old == new
    assert {str(each.message) for each in warned if "compare(" in str(each.message)} == {
        about_old(f"compare({before}=)", f"compare({now}=)")
        for before, now in (
            ("build_model", "model_init"),
            ("test_dataset", "eval_dataset"),
            ("training", "training_args"),
            ("output", "output_dir"),
            ("overwrite", "overwrite_output_dir"),
        )
    }
    assert {each.filename for each in warned if "compare(" in str(each.message)} == {__file__}
    with pytest.raises(ConfigError, match="Both output_dir and output were given"):
        run(digits, output=tmp_path, output_dir=tmp_path)


def test_greater_is_better_goes_by_the_name_unless_it_is_told(digits, tmp_path):
    class Distance:
        def compute(self, *, predictions, references):
            return {"distance": float(np.abs(predictions - references).mean())}

    def is_greater_better(**changes):
        return run(digits, metric=Distance(), seeds=1, output_dir=tmp_path, **changes).greater_is_better

    assert is_greater_better()  # nobody knows
    assert not is_greater_better(greater_is_better=False)
    with pytest.warns(DeprecationWarning, match=r"lower_is_better=. is now compare.greater_is_better="):
        assert not is_greater_better(lower_is_better=True)
    assert is_greater_better(lower_is_better=False)
    assert is_greater_better(lower_is_better=None)
    assert not is_greater_better(lower_is_better=("distance",))  # names of metrics, as it was
    assert is_greater_better(lower_is_better=["another"])
    assert "Less distance is better" not in (tmp_path / "comparison.md").read_text()


def test_trainings_of_an_older_format_are_refused(digits, tmp_path, trained):
    (tmp_path / "cells.jsonl").write_text('{"fingerprint": "1"}\n')
    with pytest.raises(OutputError, match="trainings in format 1, of an older sage_hf"):
        run(digits, output_dir=tmp_path, overwrite_output_dir=True)
    assert [path.name for path in tmp_path.iterdir()] == ["cells.jsonl"]
    assert trained == []


def test_the_folder_tells_which_rows_were_trained_on(digits, tmp_path, trained):
    from safetensors.numpy import load_file

    run(digits, output_dir=tmp_path, seeds=1)
    rows = load_file(tmp_path / "rows.safetensors")
    assert rows[json.dumps(["random", 0.1, 0])].tolist() == trained[2][0]
    assert not (tmp_path / ".passes").exists()
