"""Columns of every type that `datasets` has, carried along and used, with nulls and odd values.

What is only carried comes out as it went in, in every format that can hold it; what a selection reads gives a result
or an error of ours that names the column.
"""

import io
import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value, load_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from examples.python_text import train_tokenizer
from sage_hf import SageConfig, SageSelector, Selection, find_label_issues
from sage_hf.cli.show import table_of
from sage_hf.errors import SageError
from sage_hf.hub.row_files import write_rows
from sage_hf.selection.report import summary
from sage_hf.selection.rows import rows_of

from ..cases import bert, llama, token_rows
from ..report.reader import read
from ..selector.issue_cases import issues_of
from .features import KINDS, NAMES, ROWS, TEXTS, columns, same, stored, table, values_of
from .scale import cases, some, tried

COLUMNS = columns()
# Of tokens alone: whatever else there is, is carried.
TOKENS = token_rows(ROWS)
SETTINGS = {"strategy": "agreement", "sketch_size": 4, "batch_size": 8, "num_examples": 4, "check_gradients": False}


def select(rows, model=None, **changes):
    config = SageConfig(**{**SETTINGS, **changes})
    return SageSelector(model or llama(), config=config, progress=False).select(rows)


def with_columns(**given):
    """Token rows with extra columns."""
    rows = table(**given)
    for name in TOKENS.column_names:
        rows = rows.add_column(name, TOKENS[name][:], feature=TOKENS.features[name])
    return rows


def check_carried(rows, folder, names):
    """A selection of the rows has their columns as they were: in memory, on disk, in files, and as people see them."""
    selection = select(rows)
    wanted = rows.select(selection.indices)
    place = selection.save_to_disk(folder / "saved")
    loaded = Selection.load_from_disk(place, source=rows)
    alone = Selection.load_from_disk(place)
    for kept in (selection.dataset, loaded.dataset, alone.dataset):
        for name in names:
            assert kept.features[name] == rows.features[name], name
            assert same(stored(kept, name), stored(wanted, name)), name
    check_files(selection, wanted, folder, names)
    read(alone.report()), read(selection.report())
    text = Console(file=io.StringIO(), width=120)
    for view in ("kept", "dropped", "highest"):
        try:
            shown = rows_of(loaded, view)
        except Exception:  # a broken image, which only a decoder of datasets finds
            assert "broken image" in names
            continue
        text.print(table_of(shown, 120))
    text.print(summary(selection))
    assert "\x1b" not in text.file.getvalue()


def answered(run):
    """(result, None), or (None, our error)."""
    try:
        return run(), None
    except SageError as error:
        return None, error


def check_files(selection, wanted, folder, names):
    for ending in ("parquet", "jsonl", "csv"):
        # Without tokens, of which a csv has no lists.
        rows = selection.dataset.remove_columns(TOKENS.column_names)
        file, error = answered(lambda: write_rows(rows, folder / f"kept.{ending}"))  # noqa: B023  # called at once
        if error is not None:
            assert any(repr(name)[:50] in str(error) for name in names), (ending, str(error))
            assert ending != "parquet" or "cannot hold the type" in str(error), str(error)
            continue
        if ending == "parquet":
            again = Dataset.from_parquet(str(file), cache_dir=str(folder / "cache"))
            for name in names:
                assert repr(stored(again, name).to_pylist()) == repr(stored(wanted, name).to_pylist()), name
        elif ending == "jsonl":
            lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
            assert len(lines) == len(wanted)
            for name in names:
                if wanted.features[name] in (Value("string"), Value("int64"), Value("bool")):
                    assert [line[name] for line in lines] == wanted[name][:], name
        else:
            again = load_dataset("csv", data_files=str(file), split="train", cache_dir=str(folder / "cache"))
            assert len(again) == len(wanted)


def test_all_types_at_once_are_carried(tmp_path):
    for left_out in some(("trans", "image audio Video Pdf Nifti list json"), 1):  # datasets cannot save both
        starts = tuple(left_out.split())
        whole = {name: each for name, each in COLUMNS.items() if not name.startswith((*starts, "broken"))}
        tried(len(whole))
        (tmp_path / starts[0]).mkdir()
        check_carried(with_columns(**whole), tmp_path / starts[0], list(whole))
    both = with_columns(image=COLUMNS["image as stored"], said=COLUMNS["translation"])
    with pytest.raises(SageError, match="column 'said'"):
        select(both).save_to_disk(tmp_path / "both")


@pytest.mark.parametrize("name", some(list(COLUMNS), 3))
def test_every_type_is_carried(name, tmp_path):
    check_carried(with_columns(**{name: COLUMNS[name]}), tmp_path, [name])


def test_columns_of_any_name_are_carried(tmp_path):
    values = (Value("string"), [*TEXTS[: ROWS - 1], None])
    own = {"sage_score", "sage_loss", "sage_group", "sage_row"}
    named = {name: values for name in NAMES if name not in own}
    tried(len(named))
    check_carried(with_columns(**named), tmp_path, list(named))


OURS = ("sage_score", "sage_loss", "sage_group", "sage_row", "sage_label", "sage_action")
AS_OURS = [(name, kind) for name in OURS for kind in ("string", "int64", "image as stored", "all null", "list")]


@pytest.mark.parametrize(("name", "kind"), some(AS_OURS, 5))
def test_columns_that_are_called_as_ours_make_a_result_or_an_error(name, kind, tmp_path):
    rows = with_columns(**{name: COLUMNS[kind]})

    def run():
        selection = select(rows)
        selection.save_to_disk(tmp_path / "saved")
        assert len(Selection.load_from_disk(tmp_path / "saved").dataset) == 4
        selection.save_rows(tmp_path / "kept.parquet")

    _, error = answered(run)
    assert error is None or name in str(error)


def test_three_hundred_columns_one_row_and_no_rows(tmp_path):
    many = {f"column {number}": COLUMNS["string"] for number in range(300)}
    check_carried(with_columns(**many), tmp_path, list(many)[::60])
    one = with_columns(text=COLUMNS["string"]).select([0])
    assert len(select(one, num_examples=1)) == 1
    with pytest.raises(SageError, match=r"no rows|empty"):
        select(one.select([]))


def test_huge_and_odd_texts_are_carried(tmp_path):
    texts = ["x" * 10_000_000, *TEXTS[: ROWS - 1]]
    check_carried(with_columns(text=(Value("large_string"), texts)), tmp_path, ["text"])


@settings(max_examples=cases(4, 150), suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_columns_by_chance_are_carried(tmp_path_factory, data):
    tried()
    names = st.text(st.characters(exclude_characters="\0"), max_size=5)  # at a NUL, Arrow ends a column's name
    kinds = data.draw(st.dictionaries(names | st.sampled_from(NAMES), KINDS, min_size=1, max_size=4))
    kinds = {
        name: kind for name, kind in kinds.items() if not name.startswith("sage_") and name not in TOKENS.features
    }
    if not kinds:
        return
    given = {name: (kind, [data.draw(values_of(kind)) for _ in range(ROWS)]) for name, kind in kinds.items()}
    check_carried(with_columns(**given), tmp_path_factory.mktemp("chance"), list(given))


# ------------------------------------------------------------------ what is read
def answers(name, run, *more):
    """A result, or an error of ours that names a column."""
    result, error = answered(run)
    assert error is None or any(word in str(error) for word in (name, repr(name), *more)), str(error)
    return result


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([f"the cat number {number} sat on the mat" for number in range(30)], 280)


@pytest.mark.parametrize("name", some(list(COLUMNS), 6))
def test_every_type_as_a_column_to_group_by(name):
    rows = with_columns(**{"by this": COLUMNS[name]})
    selection = answers("by this", lambda: select(rows, group_by="by this"))
    if selection is not None:
        values = [value if name != "class" else rows.features["by this"].names[value] for value in rows["by this"]]
        codes = [selection.group_names[code] for code in selection.groups]
        assert codes == [str(value) for value in values]


@pytest.mark.parametrize("name", some(list(COLUMNS), 6))
def test_every_type_as_a_label(name):
    rows = with_columns(label=COLUMNS[name])
    model = bert(num_labels=5)
    answers("label", lambda: select(rows, model), "classes", "labels")
    answers("label", lambda: find_label_issues(model, rows, progress=False), "classes", "labels")


@pytest.mark.parametrize("name", some(list(COLUMNS), 6))
def test_every_type_as_a_text(name, tokenizer):
    feature, values = COLUMNS[name]
    rows = table(text=(feature, values))
    selector = SageSelector(
        llama(vocab_size=len(tokenizer)), processing_class=tokenizer, config=SageConfig(**SETTINGS), progress=False
    )
    selection = answers("text", lambda: selector.select(rows), "column")
    if selection is not None:
        assert len(selection.scores) == ROWS


@pytest.mark.parametrize("name", some(list(COLUMNS), 6))
def test_every_type_as_row_numbers(name):
    rows = with_columns(sage_row=COLUMNS[name])
    selection = answers("sage_row", lambda: select(rows))
    if selection is not None:
        assert same(stored(selection.dataset, "sage_row"), stored(rows.select(selection.indices), "sage_row"))


@pytest.mark.parametrize("name", some(list(COLUMNS), 6))
def test_every_type_in_a_list_of_label_issues(name, tmp_path):
    features = {"extra": COLUMNS[name], "label": (ClassLabel(names=["a", "b"]), [0, 1] * (ROWS // 2))}
    rows = table(**features)
    issues = issues_of(rows, [1, 0] * (ROWS // 2))
    Console(file=io.StringIO()).print(issues.table(5))
    for ending in ("csv", "jsonl", "parquet"):
        answers("extra", lambda: issues.save(tmp_path / f"issues.{ending}"))  # noqa: B023  # called at once
    assert len(issues.to_dataset()) == ROWS


def test_labels_that_are_not_classes_are_refused_by_their_row():
    features = Features({"label": ClassLabel(names=["a", "b"])})
    for value in (-1, None):
        labels = [0, 1, 0, value, 1, 0, 1, 0]
        rows = Dataset.from_dict({"label": labels}, features=features)
        for name in TOKENS.column_names:
            rows = rows.add_column(name, TOKENS[name][:])
        with pytest.raises(SageError, match=r"label.*3|3.*label"):
            select(rows, bert(num_labels=2))


def test_scores_do_not_depend_on_what_is_carried():
    plain = select(TOKENS)
    carried = select(with_columns(**{name: each for name, each in COLUMNS.items() if name != "broken image"}))
    assert np.array_equal(plain.scores, carried.scores)
