"""An edited list of label issues, applied: what a person wrote is what is done, and anything else is refused."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pictures

import sage_hf
from sage_hf import apply_label_issues
from sage_hf.errors import DatasetError, LabelError
from sage_hf.selector.cleaning import cleaned, without_issues, without_rows

from .issue_cases import TEXTS, issues_of

CLASSES = ["neutral", "bad", "good"]  # in no order of the alphabet
ENDINGS = ("csv", "jsonl", "json", "parquet")


def rows_of(kind="names"):
    """Ten rows of three classes, as names, text or numbers."""
    labels = [n % 3 for n in range(10)]
    feature = Value("int64" if kind == "numbers" else kind) if kind != "names" else ClassLabel(names=CLASSES)
    if "string" in kind:
        labels = [CLASSES[label] for label in labels]
    features = Features({"text": Value("string"), "label": feature})
    return Dataset.from_dict({"text": TEXTS, "label": labels}, features=features)


def named(kind, number):
    return str(number) if kind == "numbers" else CLASSES[number]


def listed(rows, actions, **changes):
    """A list of all rows; the class after the given one is suggested. `actions` by row number."""
    values = rows["label"][:]
    codes = [CLASSES.index(value) if isinstance(value, str) else value for value in values]
    others = [(code + 1) % 3 for code in codes]
    if isinstance(values[0], str):
        others = [CLASSES[code] for code in others]
    found = issues_of(rows, others).to_dataset()
    for name, filled in {"sage_action": actions, **changes}.items():
        column = [filled.get(row, value) for row, value in enumerate(found[name])]
        found = found.remove_columns(name).add_column(name, column)
    return found


def saved(rows, file):
    """The list as a file, as a person's program may have written it."""
    if file.suffix == ".csv":
        rows.to_csv(str(file), quoting=csv.QUOTE_NONNUMERIC)
    elif file.suffix == ".parquet":
        rows.to_parquet(str(file))
    else:
        rows.to_json(str(file))
    return file


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["names", "numbers", "string", "large_string"])
def test_rows_are_relabelled_dropped_and_kept_as_the_list_says(tmp_path, kind, ending):
    rows = rows_of(kind)
    actions = {0: "relabel", 1: "drop", 2: "keep", 3: named(kind, 2), 5: " Drop ", 6: "RELABEL", 9: "keep"}
    file = saved(listed(rows, actions), tmp_path / f"issues.{ending}")
    done = cleaned(rows, file)
    clean = apply_label_issues(rows, file)
    stay = [row for row in range(10) if row not in (1, 5)]
    assert clean["sage_row"][:] == done.dataset["sage_row"][:] == stay
    assert clean["text"][:] == [TEXTS[row] for row in stay]
    wanted = {0: 1, 3: 2, 6: 1}
    values = [wanted.get(row, row % 3) for row in stay]
    assert clean["label"][:] == [CLASSES[value] if "string" in kind else value for value in values]
    assert clean.features["label"] == rows.features["label"]
    assert clean.column_names == ["text", "label", "sage_row"]
    first, second, third = (named(kind, number) for number in range(3))
    assert done.relabelled == {(first, second): 2, (first, third): 1}
    assert done.dropped == {second: 1, third: 1}
    assert (done.listed, done.kept, done.absent) == (10, 5, 0)
    assert rows["label"][:3] == rows_of(kind)["label"][:3]  # the source is as it was


@given(st.lists(st.sampled_from(["", "keep", "drop", "relabel", *CLASSES]), min_size=10, max_size=10))
def test_any_list_does_what_it_says(words):
    rows, words = rows_of(), [*words[:-1], "keep"]
    clean = apply_label_issues(rows, listed(rows, dict(enumerate(words))))
    labels = {}
    for row, word in enumerate(words):
        label = {"": row % 3, "keep": row % 3, "relabel": (row + 1) % 3}.get(word)
        if word != "drop":
            labels[row] = CLASSES.index(word) if label is None else label
    assert dict(zip(clean["sage_row"], clean["label"], strict=True)) == labels


def test_a_list_goes_through_a_csv_with_commas_quotes_newlines_and_emoji_as_it_was(tmp_path):
    rows = rows_of()
    issues = issues_of(rows, [0] * 10)
    file = issues.save(tmp_path / "issues.csv")
    with file.open(newline="", encoding="utf-8") as opened:
        lines = list(csv.DictReader(opened))
    for line in lines:
        line["sage_action"] = "drop" if "emoji" in line["text"] else "keep"
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    assert apply_label_issues(rows, file)["text"][:] == [text for text in TEXTS if "emoji" not in text]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_csv_as_a_spreadsheet_saves_it_is_read(tmp_path, separator):
    head = separator.join(["sage_row", "sage_label", "sage_action", "text"])
    lines = [f'1{separator}TRUE{separator}drop{separator}"a\nb"', f"0.0{separator}FALSE{separator}True{separator}x"]
    (tmp_path / "issues.csv").write_text("\ufeff" + "\r\n".join([head, *lines, separator * 3, ""]), encoding="utf-8")
    rows = Dataset.from_dict({"label": [False, True, True]})
    clean = apply_label_issues(rows, tmp_path / "issues.csv")
    assert clean[:] == {"label": [True, True], "sage_row": [0, 2]}


def test_class_names_that_look_like_nothing_or_like_an_action_are_classes(tmp_path):
    rows = Dataset.from_dict({"label": ["NA", "None", "drop", "null", "2.0", "2"]})
    issues = issues_of(rows, ["None"] * 6).to_dataset()
    actions = ["class:drop", "NA", "keep", "2", "2.0", "keep"]
    file = saved(issues.remove_columns("sage_action").add_column("sage_action", actions), tmp_path / "issues.csv")
    assert apply_label_issues(rows, file)["label"][:] == ["drop", "NA", "drop", "2", "2.0", "2"]


def test_images_in_folders_are_relabelled(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for label in ("cat", "dog"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(2):
            Pictures.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / "pictures" / label / f"{number}.png")
    rows = load_dataset("imagefolder", data_dir=str(tmp_path / "pictures"), split="train")
    file = issues_of(rows, [1, 1, 0, 0], [3, 0]).save(tmp_path / "issues.csv")
    text = file.read_text(encoding="utf-8").replace('"dog","cat",""', '"dog","cat","relabel"')
    file.write_text(text.replace('"cat","dog",""', '"cat","dog","drop"'), encoding="utf-8")
    clean = apply_label_issues(rows, file)
    assert clean["label"][:] == [0, 1, 0] and clean[2]["image"].getpixel((0, 0)) == (1, 0, 0)


def test_rows_that_know_their_number_are_found_by_it(tmp_path):
    rows = rows_of()
    issues = listed(rows, {0: "drop", 3: "drop", 4: "relabel"})
    part = rows.add_column("sage_row", np.arange(10)).select([4, 8, 3])
    done = cleaned(part, issues)
    assert done.dataset["sage_row"][:] == [4, 8] and done.dataset["label"][:] == [2, 2]
    assert (done.listed, done.absent) == (3, 7)
    # A second time, the dropped rows are gone, and the relabelled ones have other labels than the list knows.
    with pytest.raises(DatasetError, match=r"1 line with another label.*line 5 \(row 4\) says 'bad' for 'good'"):
        apply_label_issues(done.dataset, issues)


def test_a_label_column_of_another_name_is_named():
    rows = rows_of().rename_column("label", "mood")
    issues = listed(rows_of(), {1: "drop"})
    assert len(apply_label_issues(rows, issues, label_column="mood")) == 9
    with pytest.raises(LabelError, match="the columns are text, mood"):
        apply_label_issues(rows, issues)
    with pytest.raises(LabelError, match="'mod' is not there"):
        apply_label_issues(rows, issues, label_column="mod")


def test_an_empty_list_changes_nothing():
    rows = rows_of()
    clean = apply_label_issues(rows, issues_of(rows, [0] * 10, []).to_dataset())
    assert clean.remove_columns("sage_row")[:] == rows[:]


# ------------------------------------------------------------------- refused
@pytest.mark.parametrize(
    ("actions", "changes", "words"),
    [
        ({}, {}, "The list names no action"),
        (
            dict.fromkeys(range(7), "goood"),
            {},
            r"7 lines with an unknown action or class: line 1 \(row 0\) says ",
        ),
        (
            dict.fromkeys(range(7), "goood"),
            {},
            r"line 5 \(row 4\) says 'goood', \.\.\. .*classes bad, good, neutral",
        ),
        ({0: "relabel"}, {"sage_suggested_label": {0: "gone"}}, r"line 1 \(row 0\) says 'relabel' to 'gone'"),
        ({0: "relabel"}, {"sage_suggested_label": {0: ""}}, "1 line without a suggested label: line 1"),
        ({0: "drop"}, {"sage_row": {3: 4}}, r"2 lines .* stands there twice: line 4 \(row 4\), line 5 \(row 4\)"),
        ({0: "drop"}, {"sage_row": {3: 10}}, r"from 0 to 9: line 4 \(row 10\)"),
        ({0: "drop"}, {"sage_row": {3: -1}}, r"line 4 \(row -1\)"),
        ({0: "drop"}, {"sage_label": {3: "good"}}, r"another label .* line 4 \(row 3\) says 'good' for 'neutral'"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_first_lines(actions, changes, words):
    rows = rows_of()
    with pytest.raises(DatasetError, match=words):
        apply_label_issues(rows, listed(rows, actions, **changes))


@pytest.mark.parametrize("number", ["", "x", "1.5", "nan", "inf", "-0.5"])
def test_a_row_number_that_is_none_is_refused(tmp_path, number):
    (tmp_path / "issues.csv").write_text(f"sage_row,sage_label,sage_action\n0,a,drop\n{number},a,drop\n")
    with pytest.raises(DatasetError, match=r"line 3 \(row "):
        apply_label_issues(Dataset.from_dict({"label": ["a", "b"]}), tmp_path / "issues.csv")


def test_a_list_of_another_dataset_is_noticed():
    rows = rows_of()
    other = rows.select(np.roll(np.arange(10), 1))
    with pytest.raises(DatasetError, match=r"with another label than the dataset has in column 'label': .*, \.\.\."):
        apply_label_issues(other, listed(rows, {0: "drop"}))
    far = rows.add_column("sage_row", np.arange(100, 110))
    with pytest.raises(DatasetError, match="No line belongs to a row of this dataset"):
        apply_label_issues(far, listed(rows, {0: "drop"}))
    twice = rows.add_column("sage_row", [1] * 10)
    with pytest.raises(DatasetError, match="several rows with the same sage_row"):
        apply_label_issues(twice, listed(rows, {0: "drop"}))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("issues.txt", b"x", "cannot be a .txt file"),
        ("issues", b"x", "has no ending"),
        ("issues.csv", b"row,label\n1,2\n", "no column 'sage_row'; its columns are row, label"),
        ("issues.csv", b"sage_row,sage_label\n1,2\n", "no column 'sage_action'"),
        ("issues.csv", b"sage_row,sage_label,sage_action\n0,\xe4,drop\n", "cannot be read.*CSV UTF-8"),
        ("issues.csv", b"sage_row,sage_label,sage_action\n0,a,drop,x,y\n", "cannot be read"),
        ("issues.csv", b"", "cannot be read"),
        ("issues.jsonl", b'{"sage_row": 1', "cannot be read"),
        ("issues.jsonl", b"[1]\n", "cannot be read"),
        ("issues.jsonl", b'{"row": 1}\n', "no column 'sage_row'"),
        ("issues.parquet", b"x", "cannot be read"),
    ],
)
def test_a_file_that_is_no_list_is_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=words):
        apply_label_issues(rows_of(), tmp_path / name)
    with pytest.raises(DatasetError, match="no such file"):
        apply_label_issues(rows_of(), tmp_path / "none.csv")


# --------------------------------------------------------------- left out only
def test_rows_to_drop_are_left_out_and_keep_their_numbers():
    rows = rows_of()
    left, numbers, said = without_issues(rows, listed(rows, {1: "drop", 4: "DROP", 5: "relabel", 6: "keep"}))
    assert left["sage_row"][:] == [0, 2, 3, 5, 6, 7, 8, 9] and left["label"][:] == [
        row % 3 for row in left["sage_row"]
    ]
    assert said.startswith("2 of 10 rows are left out: issues says to drop them. sage_row stays")
    assert numbers == [1, 4] and without_rows(rows, numbers)[:] == left[:]
    assert "Other actions (1 rows) are not done here" in said


def test_all_rows_of_a_list_without_actions_are_left_out(tmp_path):
    rows = rows_of()
    file = issues_of(rows, [0] * 10, [2, 7]).save(tmp_path / "issues.jsonl")
    left, _, said = without_issues(rows, file)
    assert left["sage_row"][:] == [0, 1, 3, 4, 5, 6, 8, 9]
    assert said.startswith("2 of 10 rows are left out: issues.jsonl lists them, and says no sage_action.")
    with pytest.raises(DatasetError, match=r"unknown action or class: line 2 \(row 1\) says 'dorp'"):
        without_issues(rows, listed(rows, {0: "drop", 1: "dorp"}))
    with pytest.raises(DatasetError, match="No row is left"):
        without_issues(rows, listed(rows, {}))


def test_rows_without_labels_can_be_left_out_by_their_numbers_alone(tmp_path):
    (tmp_path / "rows.csv").write_text("sage_row\n1\n")
    left, _, _ = without_issues(Dataset.from_dict({"text": ["a", "b", "c"]}), tmp_path / "rows.csv")
    assert left[:] == {"text": ["a", "c"], "sage_row": [0, 2]}


def test_the_name_is_at_the_top():
    assert "apply_label_issues" in sage_hf.__all__


ONE_LINE = {"sage_row": [1], "sage_label": ["bad"], "sage_action": ["drop"]}


@pytest.mark.parametrize("act", [apply_label_issues, without_issues])
def test_what_is_no_dataset_or_no_list_is_refused(act):
    rows, one = rows_of(), Dataset.from_dict(ONE_LINE)
    with pytest.raises(DatasetError, match=r"several splits, \['train'\] \[dataset\]"):
        act(DatasetDict(train=rows), one)
    with pytest.raises(DatasetError, match=r"no row numbers to select by \[dataset\]"):
        act(rows.to_iterable_dataset(), one)
    with pytest.raises(DatasetError, match=r"A DatasetDict is no list of label issues \[issues\].*\['train'\]"):
        act(rows, DatasetDict(train=one))
    for other in (None, one.to_iterable_dataset(), [1], ONE_LINE):
        with pytest.raises(DatasetError, match=rf"A {type(other).__name__} is no list of label issues \[issues\]"):
            act(rows, other)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_list_with_a_column_twice_is_refused(tmp_path, ending):
    file = tmp_path / f"issues.{ending}"
    names = [*ONE_LINE, "sage_action"]
    table = pa.table([pa.array(["1"]), pa.array(["bad"]), pa.array(["drop"]), pa.array(["keep"])], names=names)
    (pyarrow.csv.write_csv if ending == "csv" else pyarrow.parquet.write_table)(table, file)
    with pytest.raises(DatasetError, match=rf"2 columns called sage_action \[issues.{ending}\]"):
        apply_label_issues(rows_of(), file)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ([None, *range(9)], "no row number in 1 row, but a null .column 'sage_row', row 0"),
        ([0, 1, "a", "b", *map(str, range(6))], "no row number in 2 rows, but 'a' .column 'sage_row', row 2"),
        ([*range(9), 1.5], "no row number in 1 row, but 1.5"),
        ([*range(9), float("nan")], "no row number in 1 row, but nan"),
        ([True] * 10, "no row number in 10 rows, but True"),
    ],
)
def test_a_dataset_whose_own_row_numbers_are_none_is_refused(own, message):
    own = list(map(str, own)) if "a" in own else own
    rows = rows_of().add_column("sage_row", own)
    with pytest.raises(DatasetError, match=message):
        apply_label_issues(rows, Dataset.from_dict(ONE_LINE))
    issues = issues_of(rows, [0] * 10)
    for use in (issues.to_dataset, issues.table):
        with pytest.raises(DatasetError, match=message):
            use()


@pytest.mark.parametrize(
    "own", [list(range(10, 20)), [float(n) for n in range(10, 20)], list(map(str, range(10, 20)))]
)
def test_numbers_of_an_earlier_selection_may_come_as_floats_or_text(own):
    rows = rows_of().add_column("sage_row", own)
    found = listed(rows, {3: "drop"})
    assert found["sage_row"][:] == list(range(10, 20))
    assert len(apply_label_issues(rows, found)) == 9


@pytest.mark.parametrize(
    ("action", "label"),
    [
        ("  a", "  a"),
        ("a", "a"),
        (" a", "a"),
        ("class:  a", "  a"),
        (" drop", " drop"),
        ("class: b", "b"),
        ("B ", "b"),
    ],
)
def test_spaces_are_taken_off_only_what_is_no_class_with_them(action, label):
    rows = Dataset.from_dict({"label": ["  a", "a", " drop", "b", "c"]})
    done = apply_label_issues(rows, Dataset.from_dict({"sage_row": [4], "sage_label": ["c"], "sage_action": [action]}))
    assert done["label"][:] == ["  a", "a", " drop", "b", label]


def test_names_that_differ_in_how_accents_are_written_are_told_apart():
    rows = Dataset.from_dict({"label": ["caf\u00e9", "tea"]})
    one = Dataset.from_dict({"sage_row": [0], "sage_label": ["cafe\u0301"], "sage_action": ["drop"]})
    with pytest.raises(DatasetError, match=r"looks the same but writes its accents with other characters"):
        apply_label_issues(rows, one)
    one = Dataset.from_dict({"sage_row": [1], "sage_label": ["tea"], "sage_action": ["cafe\u0301"]})
    with pytest.raises(DatasetError, match=r"unknown action.*looks the same but writes its accents"):
        apply_label_issues(rows, one)
    one = Dataset.from_dict({"sage_row": [1], "sage_label": ["tea"], "sage_action": ["coffee"]})
    with pytest.raises(DatasetError, match=r"says 'coffee' \[issues\]"):
        apply_label_issues(rows, one)
