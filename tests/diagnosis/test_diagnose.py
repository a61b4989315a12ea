"""A diagnosis tells what a selection would meet, all of it, and changes nothing."""

import json
import logging
import random
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Image
from peft import LoraConfig, get_peft_model
from PIL import Image as Picture
from torch import nn
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

import sage_hf
from examples.python_text import train_tokenizer
from sage_hf import SageConfig, SageSelector, diagnose
from sage_hf.diagnosis.text import duration, percent, size
from sage_hf.errors import ConfigError, DatasetError
from sage_hf.gradients import GradientCollector

from ..cases import VIT, bert, gpt2, head, image_rows, llama, mixtral, pad_tokens, token_rows, vit
from ..gradients.test_collector import assert_same, state_of

TEXTS = ["a b c", "d e", "f g a b", "c d", "b"] * 8
TOKENIZER = train_tokenizer(TEXTS, 280)
SIZE = {"vocab_size": 280}
LABELS = [0, 1, 2, 1] * 10
TENTH = SageConfig(fraction=0.1)


def of(report, severity):
    return [problem for problem in report.problems if problem.severity == severity]


def texts(**columns):
    return Dataset.from_dict({"text": TEXTS, **columns})


def told(report):
    """The report's words, in one line, after a look at its lines and its JSON."""
    text = str(report)
    assert max(map(len, text.splitlines())) <= 80
    assert json.loads(json.dumps(report.to_dict()))["ok"] == report.ok
    return " ".join(text.split())


# ------------------------------------------------------------------------- the model
@pytest.mark.parametrize("target_modules", ["auto", "all", "head"])
@pytest.mark.parametrize("make", [llama, gpt2, mixtral, bert, vit])
def test_kinds_of_weights_add_up_to_the_trainable_ones(make, target_modules):
    model = make()
    collector = GradientCollector(model, target_modules=target_modules)
    report = diagnose(model, config=SageConfig(target_modules=target_modules))
    found = report.model
    assert found.trainable == found.weights == sum(parameter.numel() for parameter in model.parameters())
    assert sum(kind.weights for kind in found.targets) == found.targeted == collector.num_target_weights
    assert sum(kind.weights for kind in (*found.targets, *found.others)) == found.trainable
    assert found.share == collector.layout.share and found.width == collector.width
    names = dict(model.named_parameters())
    for kind in (*found.targets, *found.others):
        assert set(kind.examples) <= set(names)
    text = told(report)
    assert report.ok and ("Nothing to change" in text) == (not of(report, "warning"))


def test_each_kind_of_layer_has_its_rule():
    found = diagnose(bert(), config=SageConfig(target_modules="all")).model
    rules = {(kind.layer, kind.rule): kind.parameters for kind in found.targets}
    # Two layers of six linear ones, pooler and classifier, each with a bias.
    assert rules == {
        ("Linear", "outer product"): 14,
        ("Linear", "per number"): 14,
        ("Embedding", "table lookup"): 3,
        ("LayerNorm", "per number"): 10,
    }
    assert found.others == () and found.share == 1.0


def test_of_a_frozen_body_and_of_adapters_the_rest_is_all():
    model = bert()
    model.bert.requires_grad_(False)
    report = diagnose(model)
    assert (report.model.trainable, report.model.targeted) == (16 * 3 + 3, 16 * 3)
    assert [kind.layer for kind in report.model.targets] == ["Linear"]
    adapted = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    report = diagnose(adapted)
    assert report.model.kind == "PeftModel"
    assert report.model.share == 1.0 and report.model.trainable == 4 * (2 * 16 + 16 * 2)
    assert "Nothing to change" in told(report)


def test_targets_under_a_half_are_a_warning_that_names_what_is_missing():
    report = diagnose(llama(**SIZE))
    (warning,) = of(report, "warning")
    assert report.ok and report.model.share < 0.5
    assert "Embedding 31.6 % (model.embed_tokens.weight)" in warning.what and "lm_head.weight" in warning.what
    assert 'target_modules="all"' in warning.fix
    assert not diagnose(llama(**SIZE), config=SageConfig(target_modules="all")).problems
    (note,) = diagnose(llama(**SIZE), config=SageConfig(target_modules="head")).problems
    assert note.severity == "note"  # who names the head wants no more


def test_what_hooks_do_not_see_is_named_as_left_out():
    report = diagnose(vit(), image_rows(), config=SageConfig(target_modules="all", fraction=0.5))
    rules = {kind.rule for kind in (*report.model.targets, *report.model.others)}
    left_out = GradientCollector(vit(), target_modules="all").left_out
    assert ("left out" in rules) == bool(left_out)
    assert sum(kind.weights for kind in (*report.model.targets, *report.model.others)) == report.model.trainable


# ------------------------------------------------------------------------- healthy
def test_a_healthy_model_and_dataset_have_nothing_to_change():
    report = diagnose(vit(), image_rows(), config=TENTH)
    text = told(report)
    assert report.ok and report.problems == () and "Nothing to change" in text
    assert report.check.verdict == "whole batches" and report.check.seconds > 0
    assert report.rows.rows == report.rows.looked_at == 60 and report.rows.label_column == "label"
    assert {each.name: each.rows for each in report.rows.classes.classes} == dict.fromkeys(
        ["class 0", "class 1", "class 2"], 20
    )
    assert sum(each.kept for each in report.rows.classes.classes) == 6
    assert report.time.gradient_passes == 1 and report.time.seconds > 0
    assert "about a second for 60 rows" in text


def test_columns_lengths_and_cut_rows_of_text():
    rows = texts(id=range(40), label=LABELS)
    report = diagnose(bert(**SIZE), rows, processing_class=TOKENIZER, config=SageConfig(max_length=3))
    found, lengths = report.rows, [len(TOKENIZER(text).input_ids) for text in TEXTS]
    assert (found.read, found.unread) == (("text", "label"), ("id",))
    assert found.lengths.shortest == min(lengths) and found.lengths.longest == 3
    assert found.lengths.cut == sum(length > 3 for length in lengths) > 0
    assert found.lengths.median == int(np.median(np.minimum(lengths, 3)))
    assert any("are cut at 3 tokens" in problem.what for problem in report.problems)
    exact = diagnose(bert(**SIZE), rows, processing_class=TOKENIZER, config=SageConfig(max_length=max(lengths)))
    assert exact.rows.lengths.cut == 0


def test_a_class_is_none_for_a_language_model():
    report = diagnose(llama(**SIZE), texts(label=LABELS), processing_class=TOKENIZER, config=TENTH)
    assert report.rows.read == ("text",) and report.rows.unread == ("label",)
    assert report.rows.classes is None and report.rows.label_column is None


def test_a_large_dataset_is_sampled_from_all_over_it():
    rows = Dataset.from_dict({"input_ids": [[3, 4]] * 9_999 + [[3, 4, 5]]})
    report = diagnose(llama(), rows, config=TENTH)
    assert report.rows.looked_at == 4_096 and report.rows.rows == 10_000
    assert (report.rows.lengths.shortest, report.rows.lengths.longest) == (2, 3)
    wanted = 10_000 * (report.time.encode_seconds + report.time.gradient_seconds + report.time.sketch_seconds)
    assert np.isclose(report.time.seconds, wanted)
    assert "4,096 from all parts of it were looked at" in told(report)


def test_a_class_that_the_model_does_not_know_and_a_null_are_found_anywhere_in_a_large_dataset():
    labels = [0, 1] * 5_000
    labels[5_003], labels[7_001] = 8, None
    report = diagnose(bert(), Dataset.from_dict({"input_ids": [[3, 4]] * 10_000, "label": labels}), config=TENTH)
    wheres = {problem.what: problem.where for problem in of(report, "error")}
    assert wheres["The label is null"] == "column 'label', row 7001"
    assert wheres["The label is 8, and the model has the classes 0 to 2"].startswith(
        "column 'label', row 5003, of 4,09"
    )
    assert report.check.verdict == "whole batches"


@pytest.mark.parametrize("kind", ["regression", "multi-label", "question", "causal-gpt2", "multiple-choice"])
def test_every_head_is_looked_at(kind):
    model, batch = head(kind)
    rows = Dataset.from_dict({name: value.tolist() for name, value in batch.items()})
    report = diagnose(model, rows, config=SageConfig(fraction=0.5))
    told(report)
    assert report.ok, report.problems
    assert report.check.verdict == "whole batches" and report.time is not None


def test_half_precision_and_a_model_without_a_config_are_looked_at():
    report = diagnose(llama(**SIZE).to(torch.bfloat16), texts(), processing_class=TOKENIZER, config=TENTH)
    assert report.ok and report.check.verdict == "whole batches"
    report = diagnose(MLP(), numbers(), config=TENTH)
    assert report.ok and report.model.kind == "MLP" and report.rows.classes.order == "by number"


def test_dialogues_and_collators_are_looked_at():
    turns = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c d"}]
    tokenizer = train_tokenizer(TEXTS, 280)
    rows = Dataset.from_dict({"messages": [turns] * 20, "id": range(20)})
    without = diagnose(llama(**SIZE), rows, processing_class=tokenizer, config=TENTH)
    assert not without.ok and "no chat template" in without.problems[0].what
    assert without.check.verdict == "not run" and without.time is None
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    report = diagnose(llama(**SIZE), rows, processing_class=tokenizer, config=TENTH)
    assert report.ok and report.rows.read == ("messages",) and report.time is not None
    padded = diagnose(llama(), token_rows(), data_collator=pad_tokens, config=TENTH)
    assert padded.ok and padded.check.verdict == "whole batches"


# ------------------------------------------------------------------------- the check
class MLP(nn.Module):
    """A model without a config; `mixes` makes its rows depend on each other, `compares` its loss."""

    def __init__(self, mixes=False, compares=False):
        super().__init__()
        self.layer, self.out = nn.Linear(4, 8), nn.Linear(8, 3)
        self.mixes, self.compares = mixes, compares

    def forward(self, x, labels):
        hidden = self.layer(x).tanh()
        if self.mixes:
            hidden = hidden - 0.5 * hidden.mean(0, keepdim=True)
        if self.compares:
            return {"loss": nn.functional.cross_entropy(hidden @ hidden.T, torch.arange(len(x)))}
        return {"loss": nn.functional.cross_entropy(self.out(hidden), labels)}


def numbers(count=40):
    generator = torch.Generator().manual_seed(0)
    return Dataset.from_dict(
        {"x": torch.randn(count, 4, generator=generator).tolist(), "labels": [0, 1] * (count // 2)}
    )


def test_rows_that_mix_are_taken_one_at_a_time_and_the_reason_is_told():
    report = diagnose(MLP(mixes=True), numbers(), config=TENTH)
    assert report.ok and report.check.verdict == "one at a time"
    (warning,) = of(report, "warning")
    assert "sees other rows with them" in report.check.reason and report.check.reason in warning.what
    assert "one at a time" in told(report) and report.time is not None


def test_a_loss_that_compares_rows_is_refused():
    report = diagnose(MLP(compares=True), numbers(), config=TENTH)
    (error,) = of(report, "error")
    assert report.check.verdict == "refused" and report.time is None and not report.ok
    assert "compares the rows of a batch" in error.what and "loss of single rows" in error.fix


def test_a_packing_collator_and_a_model_that_fails_are_told():
    def packs(features):
        ids = torch.tensor([[token for feature in features for token in feature["input_ids"]]])
        return {"input_ids": ids, "labels": ids}

    report = diagnose(llama(), token_rows(), data_collator=packs, config=TENTH)
    assert report.check.verdict == "refused" and "4 rows into 1" in of(report, "error")[0].what

    class Fails(MLP):
        def forward(self, x, labels):
            raise KeyError("a key that is not there")

    report = diagnose(Fails(), numbers(), config=TENTH)
    assert report.check.verdict == "refused" and "KeyError" in of(report, "error")[0].what


def test_weights_that_are_no_numbers_are_told():
    model = MLP()
    nn.init.constant_(model.out.weight, torch.nan)
    report = diagnose(model, numbers(), config=TENTH)
    assert not report.ok and of(report, "error")[0].what.startswith(
        "40 of 40 rows of the timed batches have a loss or"
    )


# ------------------------------------------------------------------------- faults
def test_all_faults_of_a_broken_dataset_are_told_at_once_and_the_rest_goes_on():
    rows = texts(label=LABELS).to_dict()
    rows["text"][3] = None
    rows["label"][7] = rows["label"][9] = None
    rows["label"][11] = 9
    rows["text"][20] = ""
    rows["label"][39] = -5
    rows = Dataset.from_dict(rows)
    config = SageConfig(num_examples=1_000, text_columns=["text"])
    plain = train_tokenizer(TEXTS, 280)
    report = diagnose(bert(**SIZE), rows, processing_class=plain, config=config)
    found = {problem.what: problem for problem in report.problems}
    assert "1000 rows were asked for, and the dataset has 40" in found
    assert found["The label is null"].where == "column 'label', 2 rows: 7, 9"
    assert found["The row holds None, but a text is needed"].where == "column 'text', row 3"
    out_of_range = found["The label is 9, and the model has the classes 0 to 2"]
    assert out_of_range.where == "column 'label', 2 rows: 11, 39"
    assert found["1 of 40 rows have no tokens: they are set aside, and never chosen"].where == "row 20"
    assert report.rows.null_labels == 2 and report.rows.unusable == 5 and report.rows.empty == 1
    assert report.check.verdict == "whole batches" and report.time is not None  # with the rows that are fine
    assert [problem.severity for problem in report.problems] == sorted(
        (problem.severity for problem in report.problems), key=["error", "warning", "note"].index
    )
    told(report)


def test_files_that_are_broken_or_gone_are_told(tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(12)]
    for path in paths:
        Picture.new("L", (8, 8), 40).save(path)
    (tmp_path / "3.png").write_text("no image")
    (tmp_path / "5.png").unlink()
    rows = Dataset.from_dict({"image": paths, "label": [0, 1, 2] * 4}).cast_column("image", Image())
    model = ViTForImageClassification(ViTConfig(**{**VIT, "num_channels": 3}, num_labels=3))
    processor = ViTImageProcessor(size={"height": 8, "width": 8})
    report = diagnose(model, rows, processing_class=processor, config=TENTH)
    (error,) = of(report, "error")
    assert error.where == "dataset, 2 rows: 3, 5" and report.rows.unusable == 2
    assert report.check.verdict == "whole batches"


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (Dataset.from_dict({"input_ids": [], "label": []}), "The dataset has no rows"),
        (Dataset.from_dict({"input_ids": [[]] * 4, "label": [0] * 4}), "4 of 4 rows have no tokens"),
        (Dataset.from_dict({"input_ids": [[3]] * 4, "label": [7] * 4}), "The label is 7"),
        (Dataset.from_dict({"input_ids": [[99]] * 4, "label": [1] * 4}), "The row holds 99"),
        (Dataset.from_dict({"input_ids": [[3]] * 4}), "The dataset has no label column"),
        (Dataset.from_dict({"text": ["a"] * 4, "label": [0] * 4}), "It is not known how to make the model's inputs"),
        (Dataset.from_dict({"input_ids": [[3]] * 4, "label": [None] * 4}), "The label is null"),
    ],
)
def test_a_dataset_of_which_no_row_can_be_used_is_told(rows, what):
    report = diagnose(bert(), rows, config=TENTH)
    assert not report.ok and report.check.verdict == "not run" and report.time is None
    assert sum(problem.what.startswith(what) for problem in report.problems) == 1
    told(report)


def test_one_row_is_enough():
    report = diagnose(bert(), Dataset.from_dict({"input_ids": [[3, 4]], "label": [1]}), config=TENTH)
    assert report.ok and report.check.verdict == "whole batches" and report.time.batches == 1


def test_settings_that_cannot_work_are_told():
    rows = texts(label=LABELS)
    about = {"processing_class": TOKENIZER}
    report = diagnose(bert(**SIZE), rows, **about, config=SageConfig(target_modules=["nothing"]))
    assert "matches no layer" in of(report, "error")[0].what and report.model.targets == ()
    assert report.rows.lengths is not None and report.check.verdict == "not run"
    report = diagnose(bert(**SIZE), rows, **about, config=SageConfig(group_by="topic"))
    assert "no column 'topic'" in of(report, "error")[0].what
    report = diagnose(bert(**SIZE), rows, **about, config=SageConfig(sketch_size=2**24))
    assert "are free" in of(report, "error")[0].what and report.time is None and not report.spaces[0].fits
    with pytest.raises(ConfigError, match="strategy is 'best'"):
        diagnose(bert(**SIZE), rows, **about, config=SageConfig(strategy="best"))


def test_what_is_no_model_or_dataset_is_refused():
    rows = texts(label=LABELS)
    with pytest.raises(DatasetError, match=r"Dataset\.from_list"):
        diagnose(bert(), rows.to_iterable_dataset())
    with pytest.raises(DatasetError, match="several splits"):
        diagnose(bert(), DatasetDict(train=rows))
    with pytest.raises(DatasetError, match="list is not a dataset"):
        diagnose(bert(), TEXTS)
    with pytest.raises(ConfigError, match="is given by the name 'bert'"):
        diagnose("bert")
    assert "no parameters" in diagnose(nn.ReLU()).problems[0].what


# ------------------------------------------------------------------------- classes
def named(model_names, data_names, labels=LABELS):
    ids = {name: number for number, name in enumerate(model_names)}
    model = bert(**SIZE, label2id=ids, id2label=dict(enumerate(model_names)))
    rows = texts(label=labels)
    if data_names is not None:
        rows = rows.cast_column("label", ClassLabel(names=data_names))
    return diagnose(model, rows, processing_class=TOKENIZER, config=TENTH)


@pytest.mark.parametrize(
    ("names", "order", "severity"),
    [
        (["x", "y", "z"], "same", None),
        (["X", "Y", "Z"], "same", None),
        (["z", "x", "y"], "mapped by name", "note"),
        (["u", "v", "w"], "differs", "warning"),
        (["0", "1", "2"], "by number", None),
        (None, "by number", None),
    ],
)
def test_the_order_of_classes_is_held_against_the_models(names, order, severity):
    report = named(["x", "y", "z"], names)
    assert report.rows.classes.order == order
    found = [problem.severity for problem in report.problems if problem.where == "column 'label'"]
    assert found == ([severity] if severity else [])


def test_text_labels_are_looked_up_and_unknown_ones_are_counted():
    report = named(["x", "y", "z"], None, labels=["x", "y"] * 20)
    assert report.rows.classes.order == "same" and report.ok
    report = named(["x", "y", "z"], None, labels=["x", "other"] * 20)
    assert report.rows.classes.order == "unknown texts"
    assert of(report, "error")[0].where == "column 'label', 20 rows, first 1, 3, 5, 7, 9"


@pytest.mark.filterwarnings("ignore")
def test_classes_that_would_lose_every_row_are_those_that_a_selection_loses():
    labels = [0, 1] * 19 + [2, 2]
    rows = texts(label=labels)
    for least in (0, 1):
        config = SageConfig(fraction=0.1, min_per_group=least, sketch_size=8, strategy="agreement")
        report = diagnose(bert(**SIZE), rows, processing_class=TOKENIZER, config=config)
        lost = [each.name for each in report.rows.classes.classes if each.kept == 0]
        chosen = SageSelector(bert(**SIZE), processing_class=TOKENIZER, config=config, progress=False).select(rows)
        assert lost == chosen.stats.lost_groups == ([] if least else ["2"])
        assert any("No row would be kept of 1 of 3 classes: '2' (2 rows)" in p.what for p in report.problems) == bool(
            lost
        )


def test_a_budget_that_does_not_reach_min_per_group_is_told():
    config = SageConfig(num_examples=6, min_per_group=10)
    report = diagnose(bert(**SIZE), texts(label=LABELS), processing_class=TOKENIZER, config=config)
    assert any("leaves 3 of 3 classes fewer than min_per_group=10 rows" in problem.what for problem in report.problems)
    assert sum(each.kept for each in report.rows.classes.classes) == 6


# ------------------------------------------------------------------------- nothing is changed
@pytest.mark.parametrize("broken", [False, True])
def test_the_model_the_random_states_and_the_log_are_as_before(broken, caplog):
    model, rows = bert(**SIZE), texts(label=LABELS)
    model.train()
    model.bert.encoder.eval()
    model.bert.embeddings.requires_grad_(False)
    if broken:
        rows = Dataset.from_dict({**rows.to_dict(), "label": [None, 9] * 20})
    before, state = state_of(model), random.getstate()
    level = logging.getLogger("sage_hf").level
    with caplog.at_level(logging.WARNING):
        diagnose(model, rows, processing_class=TOKENIZER, config=TENTH)
    assert_same(before, state_of(model))
    assert random.getstate() == state and logging.getLogger("sage_hf").level == level
    assert not [record for record in caplog.records if record.name.startswith("sage_hf")]


def test_a_selection_after_a_diagnosis_still_warns(caplog):
    ids = {"x": 0, "y": 1, "z": 2}
    model = bert(**SIZE, label2id=ids, id2label={number: name for name, number in ids.items()})
    rows = texts(label=LABELS).cast_column("label", ClassLabel(names=["z", "x", "y"]))
    diagnose(model, rows, processing_class=TOKENIZER, config=TENTH)
    with caplog.at_level(logging.WARNING):
        config = SageConfig(fraction=0.1, sketch_size=8, strategy="agreement")
        SageSelector(model, processing_class=TOKENIZER, config=config, progress=False).fit(rows)
    assert "labels are mapped by name" in caplog.text


def test_a_diagnosis_is_frozen_and_exported():
    report = diagnose(bert())
    assert isinstance(report, sage_hf.Diagnosis)
    with pytest.raises(FrozenInstanceError):
        report.problems = ()


# ------------------------------------------------------------------------- words
def test_names_of_columns_and_classes_are_no_markup():
    rows = Dataset.from_dict({"text": TEXTS, "[bold]id[/]": TEXTS, "label": ["[red]a[/red]", "b"] * 20})
    report = diagnose(bert(**SIZE), rows, processing_class=TOKENIZER, config=SageConfig(text_columns=["text"]))
    text = told(report)
    assert "[bold]id[/]" in text and "'[red]a[/red]'" in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.01, "about a second"),
        (20, "about 20 seconds"),
        (89, "about 89 seconds"),
        (100, "about 2 minutes"),
        (12 * 60, "about 12 minutes"),
        (5_400, "about 1.5 hours"),
        (10_000, "about 2.8 hours"),
        (10 * 3600, "about 10 hours"),
        (3 * 86_400, "about 3 days"),
    ],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_sizes_and_shares_in_words():
    assert [size(count) for count in (10, 3 << 20, 40 << 30, 5 << 40)] == ["under 1 MB", "3.0 MB", "40 GB", "5.0 TB"]
    assert [percent(share) for share in (0.0, 0.0001, 0.5, 0.99999, 1.0)] == [
        *("0 %", "< 0.1 %", "50.0 %", "99.9 %", "100 %")
    ]
