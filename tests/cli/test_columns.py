"""Columns that the shell is told of, and rows that lack a value."""

import csv
import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value, load_from_disk
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer

from sage_hf.cli.columns import missing_values, parse_mapping, rename_columns, with_whole_labels, without_missing
from sage_hf.errors import ConfigError, DatasetError

from ..training.runs import plain_args
from .test_main import TEXTS, folder, run  # noqa: F401  # a fixture

SMALL = ["--sketch-size", "8", "--batch-size", "8", "--shard-size", "16", "--device", "cpu"]
NAMES = st.text("abcxyz_ ", min_size=1, max_size=5).map(str.strip).filter(bool)


@given(st.dictionaries(NAMES, NAMES, min_size=1, max_size=4).filter(lambda d: len({*d.values()}) == len(d)))
def test_a_mapping_is_read_as_it_was_written(mapping):
    text = ", ".join(f"{old} = {new}" for old, new in mapping.items())
    assert parse_mapping(text, None) == mapping


@pytest.mark.parametrize(
    ("text", "label", "words"),
    [
        ("old", None, "The mapping is 'old'"),
        ("old=", None, "The mapping is"),
        ("a=b,a=c", None, "The mapping is"),
        ("a=c,b=c", None, "Two columns would be called 'c'"),
        ("a=label", "b", "Two columns would be called 'label'"),
        ("b=text", "b", "holds the labels"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(text, label, words):
    with pytest.raises(ConfigError, match=words):
        parse_mapping(text, label)


def test_the_label_column_is_called_label():
    assert parse_mapping(None, "sentiment") == {"sentiment": "label"}
    assert parse_mapping("a=b", "label") == {"a": "b"}
    assert parse_mapping("c=label", "c") == {"c": "label"}


def test_columns_are_renamed_and_may_change_places():
    rows = Dataset.from_dict({"a": [1], "b": [2], "c": [3]})
    assert rename_columns(rows, {"a": "b", "b": "a"}, rows.column_names, "x.csv")[0] == {"b": 1, "a": 2, "c": 3}
    with pytest.raises(DatasetError, match=r"no column 'd'.*The columns are a, b, c"):
        rename_columns(rows, {"d": "e"}, rows.column_names, "x.csv")
    with pytest.raises(DatasetError, match=r"already has a column 'c'.*c=old_c"):
        rename_columns(rows, {"a": "c"}, rows.column_names, "x.csv")


def test_of_a_table_with_one_column_the_separator_is_told():
    rows = Dataset.from_dict({"review;sentiment": ["a;b"]})
    with pytest.raises(DatasetError, match="with commas between its columns"):
        rename_columns(rows, {"sentiment": "label"}, rows.column_names, "x.csv")
    with pytest.raises(DatasetError) as caught:
        rename_columns(rows, {"sentiment": "label"}, rows.column_names, "me/rows")
    assert "between" not in str(caught.value)


GAPS = {"text": ["a", None, "c", None], "label": [0, 1, None, None], "note": [None, "n", "n", "n"], "id": [None] * 4}


@pytest.mark.parametrize(
    ("columns", "named", "wanted"),
    [
        (("text", "label", "note", "id"), None, {"text": [1, 3], "label": [2, 3]}),
        (("label", "note"), None, {"label": [2, 3], "note": [0]}),
        (("text", "note"), ["note"], {"note": [0]}),
        (("id",), None, {}),
    ],
)
def test_values_are_missed_where_a_model_would_read_them(columns, named, wanted):
    rows = Dataset.from_dict({name: GAPS[name] for name in columns})
    rows = rows.cast_column("id", Value("int64")) if "id" in columns else rows
    assert {name: gaps.tolist() for name, gaps in missing_values(rows, named).items()} == wanted


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_what_is_left_has_all_values_and_knows_its_row_numbers(gaps):
    values = {
        "text": [None if no_text else "t" for no_text, _ in gaps],
        "label": [None if no else 1 for _, no in gaps],
    }
    rows = Dataset.from_dict(values, features=Features({"text": Value("string"), "label": Value("int64")}))
    whole = [row for row, (no_text, no_label) in enumerate(gaps) if not (no_text or no_label)]
    if not whole:
        with pytest.raises(DatasetError, match=f"All {len(gaps)} rows lack a value"):
            without_missing(rows, None, drop=True, path="x")
        return
    kept, said = without_missing(rows, None, drop=True, path="x")
    assert len(kept) == len(whole)
    assert (said is None) == (len(whole) == len(gaps))
    if said is not None:
        assert kept["sage_row"][:] == whole
        assert said.startswith(f"{len(gaps) - len(whole)} of {len(gaps)} rows lack a value and are left out")


def test_without_the_option_missing_texts_and_labels_are_counted_together_and_the_first_named():
    rows = Dataset.from_dict({"text": [None, "a"] * 8, "label": [0, None] * 8})
    with pytest.raises(
        DatasetError, match=r"16 of 16 rows lack a value: 8 in column 'label', 8 in column 'text'; rows 0, 1, 2"
    ):
        without_missing(rows, None, drop=False, path="x")
    assert without_missing(rows.remove_columns("text"), None, drop=False, path="x")[1] is None  # a language model's


# -------------------------------------------------------------------- the shell
@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """A table with names of its own, gaps, and a class of two rows."""
    place = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    rows = [(text, ("good", "bad")[number % 2]) for number, text in enumerate(TEXTS)]
    rows[3], rows[8] = (rows[3][0], ""), ("", "good")
    rows[5] = rows[6] = ("the dog sat apart", "odd")
    with place.open("w", newline="") as file:
        csv.writer(file).writerows([("review", "sentiment"), *rows])
    return place


def test_a_table_with_gaps_and_other_names_becomes_rows_that_a_trainer_takes(folder, reviews, tmp_path):  # noqa: F811
    names = ["--label-column", "sentiment", "--column-mapping", "review=text", "--drop-missing"]
    done = run("select", folder / "bert", reviews, "--fraction", "0.4", "-o", tmp_path / "out", *names, *SMALL)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "2 of 24 rows lack a value and are left out" in said
    assert "1 in column 'sentiment', 1 in column 'review'; rows 3, 8." in said  # as the file calls them
    kept = load_from_disk(tmp_path / "out")
    assert kept.features["label"] == ClassLabel(names=["bad", "good", "odd"])
    table = list(csv.DictReader(reviews.open()))
    for row in kept:
        assert table[row["sage_row"]]["review"] == row["text"]
        assert table[row["sage_row"]]["sentiment"] == kept.features["label"].int2str(row["label"])
    assert "odd" in {kept.features["label"].int2str(label) for label in kept["label"]}
    tokenizer = AutoTokenizer.from_pretrained(folder / "bert")
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForSequenceClassification.from_pretrained(folder / "bert", num_labels=3)
    rows = kept.map(lambda row: tokenizer(row["text"]))
    Trainer(
        model, plain_args(tmp_path / "trained", max_steps=2), train_dataset=rows, processing_class=tokenizer
    ).train()
    command = json.loads((tmp_path / "out" / "selection.json").read_text())["stats"]["command"]
    assert [command[command.index(name) + 1] for name in names[:3:2]] == ["sentiment", "review=text"]
    assert "--drop-missing" in command


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--label-column", "sentimnt"], "no column 'sentimnt'. What to do: The columns are review, sentiment."),
        (
            ["--label-column", "sentiment"],
            "2 of 24 rows lack a value: 1 in column 'sentiment', 1 in column 'review'; rows 3, 8.",
        ),
        (["--label-column", "sentiment", "--streaming", "--drop-missing"], "Rows of a stream cannot be left out"),
    ],
)
def test_columns_that_are_not_there_and_gaps_are_told_with_what_to_do(folder, reviews, tmp_path, options, words):  # noqa: F811
    done = run("select", folder / "bert", reviews, "--fraction", "0.4", "-o", tmp_path / "out", *options, *SMALL)
    assert done.exit_code == 1
    assert words in " ".join(done.output.split())


def test_label_issues_of_rows_that_were_dropped_keep_the_numbers_of_the_file(folder, reviews, tmp_path):  # noqa: F811
    names = ["--label-column", "sentiment", "--text-columns", "review", "--drop-missing", "--device", "cpu"]
    done = run("label-issues", folder / "bert", reviews, "-o", tmp_path / "issues.csv", *names)
    assert done.exit_code == 0, done.output
    table = list(csv.DictReader(reviews.open()))
    for row in csv.DictReader((tmp_path / "issues.csv").open()):
        assert table[int(row["sage_row"])]["review"] == row["review"]


def test_row_numbers_are_those_of_the_first_source(folder):  # noqa: F811
    from sage_hf import SageConfig, SageSelector

    from ..cases import image_rows, vit

    config = SageConfig(fraction=0.5, sketch_size=8, batch_size=8, shard_size=16)
    first = SageSelector(vit(), config=config, progress=False).select(image_rows(40))
    assert np.array_equal(first.dataset["sage_row"], first.indices)
    second = SageSelector(vit(), config=config, progress=False).select(first.dataset)
    assert np.array_equal(second.dataset["sage_row"], first.indices[second.indices])


def test_whole_numbers_that_a_reader_of_csv_made_decimals_are_whole_again(tmp_path):
    place = tmp_path / "rows.csv"
    place.write_text("text,stars,price\na,0,1.5\nb,,2.5\nc,2,\n")
    rows = with_whole_labels(Dataset.from_csv(str(place), cache_dir=str(tmp_path)), "stars")
    assert rows["stars"][:] == [0, None, 2]
    assert with_whole_labels(rows.rename_column("stars", "label"))["label"][:] == [0, None, 2]
    assert with_whole_labels(rows, "price")["price"][:] == [1.5, 2.5, None]  # decimals stay
    assert with_whole_labels(rows, "absent") is rows
    whole = Dataset.from_dict({"label": [0.0, 1.0]})  # nothing was missing: somebody wrote decimals
    assert with_whole_labels(whole) is whole
