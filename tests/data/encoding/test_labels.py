import numpy as np
import pytest
import torch
from datasets import Dataset

from sage_hf import GradientCollector, SageConfig
from sage_hf.data.columns import open_source
from sage_hf.data.encoding.labels import Labels
from sage_hf.errors import LabelError

from ...cases import bert, image_rows, vit

IDS = [[3, 4, 5], [3, 4], [6], [7, 8]]


def cast(values, task="classifier", **settings):
    labels = Labels(task, **{"classes": 3, **settings})
    return labels.cast([{"label": value} for value in values], "label", 10)


def prepared(model, labels, column="label"):
    """The labels of the batches that the model gets."""
    rows = Dataset.from_dict({"input_ids": IDS, column: labels})
    ((numbers, batch),) = open_source(model, rows, SageConfig(), None, None).batches(range(4))
    return batch["labels"][numbers.argsort()]


@pytest.mark.parametrize(
    "values",
    [
        [0, 1, 2],
        [0.0, 1.0, 2.0],
        [np.int64(0), np.float32(1.0), np.int8(2)],
        [torch.tensor(0), torch.tensor(1.0), np.array(2)],
        ["0", " 1", "2"],
        [False, True, 2],
    ],
)
def test_a_class_is_a_whole_number_whatever_its_type(values):
    found = cast(values)
    assert found == [0, 1, 2]
    assert all(type(label) is int for label in found)


def test_a_class_name_is_the_number_that_the_model_gives_it():
    assert cast(["b", "a"], names={"a": 0, "b": 1}) == [1, 0]
    assert cast(["1"], names={"1": 0, "0": 1}) == [0], "a name comes before a number"
    with pytest.raises(LabelError, match=r"no class '1', only \['a', 'b'\].*row 10"):
        cast(["1"], names={"a": 0, "b": 1})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0, None, None], r"The label is null \[column 'label', 2 rows among 10 to 12: 11, 12\]"),
        ([0, 0.5], r"The label is 0.5, but the model predicts classes.*row 11\].*num_labels=1"),
        ([3], "label is 3, and the model has the classes 0 to 2"),
        ([float("nan")], "label is nan"),
        ([b"a"], "takes numbers"),
        ([[1, 0]], "takes a list of 3 zeros and ones"),
        ([[1, 0, 2]], "takes a list of 3 zeros and ones"),
    ],
)
def test_what_is_no_class_is_named_by_its_row(values, said):
    with pytest.raises(LabelError, match=said):
        cast(values)


def test_several_classes_a_row_are_floats():
    for values in ([[1, 0, 1]], [[True, False, True]], [np.array([1, 0, 1])], [[1.0, 0.0, 1.0]]):
        for problem in (None, "multi_label_classification"):
            assert cast(values, problem_type=problem) == [[1.0, 0.0, 1.0]]
    with pytest.raises(LabelError, match="a list of 3 zeros and ones"):
        cast([1], problem_type="multi_label_classification")
    with pytest.raises(LabelError, match="takes one class a row"):
        cast([[1, 0, 1]], problem_type="single_label_classification")


def test_numbers_to_predict_are_floats():
    assert cast([1, True, "2.5", np.int64(3), [4]], classes=1) == [1.0, 1.0, 2.5, 3.0, 4.0]
    assert cast([[1, 2]], classes=2, problem_type="regression") == [[1.0, 2.0]]
    with pytest.raises(LabelError, match="predicts 2 numbers"):
        cast([1.0], classes=2, problem_type="regression")
    with pytest.raises(LabelError, match="holds 3 numbers"):
        cast([[1, 2, 3]], classes=2, problem_type="regression")


def test_the_label_of_a_choice_is_its_place_however_many_there_are():
    rows = [{"input_ids": [[3], [4], [5], [6]], "label": label} for label in (3, 0.0, 1)]
    assert Labels("choice", classes=2).cast(rows, "label", 0) == [3, 0, 1]
    with pytest.raises(LabelError, match=r"label is 4, but the row has the choices 0 to 3.*row 7"):
        Labels("choice").cast([{**rows[0], "label": 4}], "label", 7)


def test_a_model_says_what_its_loss_takes():
    assert prepared(bert(), [0.0, 1.0, 2.0, 0.0]).tolist() == [0, 1, 2, 0]
    assert prepared(bert(num_labels=1), [1, 2, 3, 4]).dtype is torch.float32
    many = [[1, 0, 1]] * 4
    model = bert(problem_type="multi_label_classification")
    assert torch.equal(prepared(model, many), torch.tensor(many, dtype=torch.float32))
    for column in ("label", "labels", "label_ids"):
        assert prepared(bert(), [0, 1, 2, 0], column).tolist() == [0, 1, 2, 0]
    rows = image_rows(4).cast_column("label", image_rows(4).features["label"])
    ((_, batch),) = open_source(vit(), rows, SageConfig(), None, None).batches(range(4))
    assert batch["labels"].tolist() == rows["label"][:]


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({"problem_type": "multi_label_classification"}, [[1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 1, 0]]),
        ({"num_labels": 1}, [1, 2, 3, 4]),
        ({}, [0.0, 1.0, 2.0, 1.0]),
    ],
)
def test_losses_are_those_of_each_row_alone(settings, labels):
    model = bert(**settings).eval()
    rows = Dataset.from_dict({"input_ids": IDS, "label": labels})
    source = open_source(model, rows, SageConfig(), None, None)
    ((numbers, batch),) = source.batches(range(4))
    losses = GradientCollector(model).collect(batch)[1][numbers.argsort()]
    kind = torch.float32 if settings else torch.int64
    for row in range(4):
        alone = model(torch.tensor(IDS[row : row + 1]), labels=torch.tensor(labels[row : row + 1]).to(kind)).loss
        assert losses[row] == pytest.approx(alone.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("values", "settings", "what", "fix"),
    [
        ([[0, 1, 1]], {"problem_type": "single_label_classification"}, "is the list", "multi_label_classification"),
        (["good"], {"classes": 1}, "is the text 'good', but the model predicts numbers", "num_labels=2"),
        ([0.5], {}, "is 0.5, but the model predicts classes", "num_labels=1"),
        ([{"a": 1}], {}, "is {'a': 1}, a dict", "Turn such labels into numbers"),
    ],
)
def test_a_kind_of_label_that_does_not_fit_is_told_with_its_column_and_what_to_do(values, settings, what, fix):
    with pytest.raises(LabelError, match="column 'label', row 10") as caught:
        cast(values, **settings)
    assert what in caught.value.what and fix in caught.value.fix


def test_texts_of_numbers_are_numbers_for_a_regression():
    assert cast(["1.5", 2], classes=1) == [1.5, 2.0]
