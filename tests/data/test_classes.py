"""Classes that a dataset and a model number differently are told by their names."""

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from sage_hf import SageConfig, SageSelector
from sage_hf.data.classes import by_name, class_ids, model_classes, tells_classes_apart
from sage_hf.selector.label_issues import find_label_issues
from sage_hf.training.warmup import warm_up

from ..cases import HEADS, bert, head, image_rows, llama, vit

NAMES = ["class 0", "class 1", "class 2"]
TURNED = ["class 2", "class 0", "class 1"]


def named(names=NAMES, kind=vit):
    """A model whose config names its classes."""
    model = kind()
    model.config.label2id = {name: number for number, name in enumerate(names)}
    model.config.id2label = dict(enumerate(names))
    return model


def turned(rows, names=TURNED):
    """The same rows, whose classes are numbered in another order."""
    texts = [rows.features["label"].int2str(label) for label in rows["label"]]
    ids = [names.index(text) for text in texts]
    return rows.remove_columns("label").add_column("label", ids).cast_column("label", ClassLabel(names=names))


def select(model, rows, **settings):
    settings = {"fraction": 0.3, **settings}
    return SageSelector(model, config=SageConfig(**settings), progress=False).select(rows)


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_numbered_in_another_order_are_scored_as_the_same_rows(streaming, caplog):
    rows = image_rows()
    other = turned(rows)
    strategy = {"strategy": "agreement"}
    if streaming:
        rows, other = rows.to_iterable_dataset(), other.to_iterable_dataset()
    straight, mapped = select(named(), rows, **strategy), select(named(), other, **strategy)
    assert sorted(mapped.group_names) == NAMES
    assert mapped.group_names == TURNED
    assert mapped.indices.tolist() == straight.indices.tolist()
    # Groups are summed in another order.
    assert np.allclose(mapped.scores, straight.scores, atol=1e-5)
    said = [record.message for record in caplog.records if "mapped by name" in record.message]
    assert len(said) == 1 and str(NAMES) in said[0] and str(TURNED) in said[0]


def test_the_kept_rows_keep_their_own_numbers_and_names():
    kept = select(named(), turned(image_rows())).dataset
    assert kept.features["label"].names == TURNED


def test_label_issues_and_a_warm_up_go_by_the_names_too():
    models = [named() for _ in range(2)]
    found = []
    for model, rows in zip(models, (image_rows(), turned(image_rows())), strict=True):
        warm_up(model, rows, steps=3, learning_rate=1e-2)
        found.append(find_label_issues(model, rows, progress=False))
    first, second = (model.state_dict() for model in models)
    assert all(first[name].equal(second[name]) for name in first)
    assert np.allclose(found[0].label_doubt, found[1].label_doubt, atol=1e-6)
    assert found[0].rows.tolist() == found[1].rows.tolist()


def test_a_comparison_judges_by_the_names_and_says_so_once(caplog):
    from sage_hf import compare

    def accuracy(rows):
        found = compare(
            named(),
            rows.select(range(40)),
            rows.select(range(40, 60)),
            model_init=lambda seed: named(),
            fractions=[0.5],
            strategies=["random"],
            seeds=1,
            training_args={"max_steps": 3, "learning_rate": 1e-2},
            progress=False,
        )
        return [run.metrics for run in found.runs if run.strategy == "all"]  # random rows follow the numbers

    straight = accuracy(image_rows())
    assert "mapped by name" not in caplog.text
    assert accuracy(turned(image_rows())) == straight
    assert caplog.text.count("mapped by name") == 1


def test_lists_of_classes_are_mapped_and_what_is_no_class_stays():
    rows = Dataset.from_dict(
        {"input_ids": [[1, 2, 3]], "labels": [[0, -100, 1]]},
        features=Features({"input_ids": List(Value("int64")), "labels": List(ClassLabel(names=["b", "a"]))}),
    )
    model = named(["a", "b"], bert)
    assert class_ids(model, rows.features, ["labels"]) == {"labels": {0: 1, 1: 0}}


@pytest.mark.parametrize(
    ("here", "there", "ids"),
    [
        (["a", "b"], ["b", "a"], {0: 1, 1: 0}),
        (["NO", "Yes"], ["yes", "no"], {0: 1, 1: 0}),
        (["a", "A"], ["A", "a"], {0: 1, 1: 0}),
        (["a", "A"], ["a", "b"], None),
        (["a"], ["a", "b"], None),
        (["0", "1", "10", "2"], ["0", "1", "2", "10"], {0: 0, 1: 1, 2: 3, 3: 2}),
    ],
)
def test_names_are_the_same_set_or_nothing_is_mapped(here, there, ids):
    assert by_name(here, there) == ids


@pytest.mark.parametrize(
    ("names", "config", "words"),
    [
        (["class 0", "class 1", "other"], NAMES, "the names differ"),
        (["class 0", "class 1"], NAMES, None),  # the model knows one more
        (["0", "1", "2"], NAMES, None),  # numbers are no names
        (["CLASS 0", "class 1", "Class 2"], NAMES, None),
        (NAMES, ["LABEL_0", "LABEL_1", "LABEL_2"], None),
    ],
)
def test_names_that_differ_are_told_and_no_names_are_not(names, config, words, caplog):
    features = Features({"label": ClassLabel(names=names)})
    assert class_ids(named(config), features, ["label"]) == {}
    assert [words in record.message for record in caplog.records] == ([True] if words else [])
    if words:
        assert str(names) in caplog.text and str(config) in caplog.text


def test_a_training_maps_nothing_and_says_so(tmp_path, caplog):
    from sage_hf import SageTrainer, SageTrainingArguments

    rows = turned(image_rows()).with_format("torch")
    args = SageTrainingArguments(
        str(tmp_path), sage_fraction=0.3, sage_warmup_epochs=0, num_train_epochs=1, report_to=[], use_cpu=True
    )
    model = named()
    SageTrainer(model=model, args=args, train_dataset=rows).train()
    said = [record.message for record in caplog.records if "go by their numbers" in record.message]
    assert len(said) == 1 and "align_labels_with_mapping" in said[0]


def test_a_collator_of_the_users_gets_the_numbers_of_the_dataset(caplog):
    rows = turned(image_rows()).rename_column("pixel_values", "picture")
    seen = set()

    def collate(batch):
        import torch

        seen.update(row["label"] for row in batch)
        return {
            "pixel_values": torch.tensor([row["picture"] for row in batch]),
            "labels": torch.tensor([row["label"] for row in batch]),
        }

    SageSelector(named(), data_collator=collate, config=SageConfig(fraction=0.3), progress=False).select(rows)
    assert seen == {0, 1, 2}
    assert "go by their numbers" in caplog.text


def test_default_names_are_none():
    assert model_classes(vit()) is None
    assert model_classes(named()) == NAMES
    assert model_classes(llama()) is None


def test_heads_whose_loss_is_over_a_class_a_row_tell_classes_apart():
    found = {kind for kind in HEADS if tells_classes_apart(head(kind)[0])}
    assert found == {"sequence", "multi-label", "image", "resnet"}


@pytest.mark.parametrize("labels", [[f"free text {row}" for row in range(20)], list(range(20)), [0, 1] * 10])
def test_a_label_column_of_a_language_model_makes_no_groups(labels):
    ids = [[3 + row % 5, 4, 5] for row in range(20)]
    rows = Dataset.from_dict({"input_ids": ids, "attention_mask": [[1, 1, 1]] * 20})
    plain = select(llama(), rows)
    labelled = select(llama(), rows.add_column("label", labels))
    assert labelled.group_names == ["all"]
    assert labelled.indices.tolist() == plain.indices.tolist()
    assert (labelled.scores == plain.scores).all()
    grouped = select(llama(), rows.add_column("label", labels), group_by="label")
    assert len(grouped.group_names) == len(set(labels))


@pytest.mark.parametrize("streaming", [False, True])
def test_groups_nearly_as_many_as_rows_are_a_warning(streaming, caplog):
    rows = image_rows(12).add_column("id", [f"row {row // 2 if row < 6 else row}" for row in range(12)])
    if streaming:
        rows = rows.to_iterable_dataset()
    select(vit(), rows, group_by="id", strategy="agreement")
    (said,) = [record.message for record in caplog.records if "compared with its own group" in record.message]
    assert "'id' makes 9 groups of 12 rows" in said and "group_by=None" in said


@pytest.mark.parametrize(
    "feature",
    [Value("bool"), Value("uint8"), Value("int8"), Value("string"), Value("large_string"), ClassLabel(num_classes=2)],
    ids=str,
)
def test_labels_of_any_kind_make_the_same_choice(feature):
    values = [row % 2 for row in range(30)]
    texts = isinstance(feature, Value) and feature.dtype.endswith("string")
    rows = image_rows(30).remove_columns("label")
    column = datasets.Dataset.from_dict(
        {"label": [["no", "yes"][value] for value in values] if texts else values},
        features=Features({"label": feature}),
    )
    straight = select(named(["no", "yes"], lambda: vit(2)), rows.add_column("label", values))
    found = select(named(["no", "yes"], lambda: vit(2)), datasets.concatenate_datasets([rows, column], axis=1))
    assert found.stats.group_by == "label" and len(found.group_names) == 2
    assert found.indices.tolist() == straight.indices.tolist()


# ------------------------------------------------------- text labels of kept rows
def text_rows(names=("yes", "no", "rare"), count=60):
    """Images whose labels are text; the last of the names is rare."""
    labels = [names[row % 2] for row in range(count)]
    labels[5:8] = [names[2]] * 3
    return image_rows(count).remove_columns("label").add_column("label", labels)


@pytest.mark.parametrize("kind", ["dataset", "stream", "generator"])
def test_text_labels_of_kept_rows_are_the_models_numbers_with_all_names(kind, tmp_path):
    known = ["no", "rare", "yes"]
    rows = text_rows()
    given = {
        "dataset": lambda: rows,
        "stream": rows.to_iterable_dataset,
        "generator": lambda: datasets.IterableDataset.from_generator(lambda: iter(rows)),
    }[kind]()
    found = select(named(known), given, strategy="agreement", fraction=0.1, min_per_group=0)
    assert found.stats.lost_groups == ["rare"]
    found.save_to_disk(tmp_path / "kept")
    saved = datasets.load_from_disk(str(tmp_path / "kept"))
    assert saved.features["label"].names == known
    texts = [rows[int(row)]["label"] for row in found.indices]
    assert [known[label] for label in saved["label"]] == texts
    assert [known[row["label"]] for row in found.dataset] == texts
    assert list(next(iter(found.dataset))) == ["pixel_values", "label", "sage_row", "sage_score"]


def test_a_model_that_knows_more_classes_keeps_its_numbers():
    found = select(named(["no", "maybe", "rare", "yes"], lambda: vit(4)), text_rows())
    assert found.dataset.features["label"].names == ["no", "maybe", "rare", "yes"]


def test_a_collator_that_reads_the_texts_still_gets_them():
    import torch

    number = {"yes": 0, "no": 1, "rare": 2}

    def collate(batch):
        pixels = torch.tensor([row["picture"] for row in batch])
        return {"pixel_values": pixels, "labels": torch.tensor([number[row["label"]] for row in batch])}

    rows = text_rows().rename_column("pixel_values", "picture")
    for given in (rows, rows.to_iterable_dataset()):
        selector = SageSelector(vit(), data_collator=collate, config=SageConfig(fraction=0.3), progress=False)
        assert {row["label"] for row in selector.select(given).dataset} <= set(number)


def test_a_transform_that_reads_the_texts_still_gets_them():
    rows = text_rows()

    def as_numbers(batch):
        return {**batch, "label": [["no", "rare", "yes"].index(label) for label in batch["label"]]}

    found = select(named(["no", "rare", "yes"]), rows.with_transform(as_numbers))
    assert {row["label"] for row in found.dataset} <= {0, 1, 2}
    assert found.dataset.features["label"].dtype == "string"


def test_kept_rows_of_text_labels_train_with_a_plain_trainer(tmp_path):
    from transformers import Trainer, TrainingArguments

    found = select(named(["no", "rare", "yes"]), text_rows(), min_per_group=1)
    args = TrainingArguments(str(tmp_path), max_steps=2, report_to=[], use_cpu=True, save_strategy="no")
    model = vit()
    Trainer(model=model, args=args, train_dataset=found.dataset.remove_columns(["sage_row", "sage_score"])).train()


def test_text_in_the_label_column_of_a_language_model_stays_text():
    ids = [[3 + row % 5, 4, 5] for row in range(20)]
    rows = Dataset.from_dict({"input_ids": ids, "attention_mask": [[1, 1, 1]] * 20, "label": ["some text"] * 20})
    assert select(llama(), rows).dataset["label"][0] == "some text"


def test_other_splits_become_numbers_where_all_their_texts_are_known():
    from sage_hf.data.classes import with_class_names

    known = {"column": "label", "names": ["no", "yes"]}
    rows = Dataset.from_dict({"label": ["yes", None, "no"], "text": ["a", "b", "c"]})
    made = with_class_names(rows, known)
    assert made.column_names == rows.column_names and made["label"][:] == [1, None, 0]
    assert with_class_names(made, known) is made
    other = Dataset.from_dict({"label": ["yes", "maybe"]})
    assert with_class_names(other, known) is other
    assert with_class_names(rows, None) is rows
