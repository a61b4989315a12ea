import json
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, load_from_disk
from hypothesis import given
from hypothesis import strategies as st

from sage_hf import SageConfig, SageSelector, Selection
from sage_hf.errors import BudgetError, ConfigError, DatasetError, OutputError

from ..cases import image_rows, vit


@pytest.fixture(scope="module")
def rows():
    return image_rows(30)


@pytest.fixture(scope="module")
def selection(rows):
    config = SageConfig(strategy="agreement", fraction=0.2, sketch_size=8, shard_size=16, batch_size=8)
    return SageSelector(vit(), config=config).select(rows)


def assert_equal(one, other):
    for name in ("indices", "scores", "losses", "groups", "status"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True), name
    assert one.group_names == other.group_names
    assert one.stats == other.stats
    assert one.config == other.config


def test_a_saved_selection_comes_back_and_its_folder_opens_as_a_dataset(selection, rows, tmp_path):
    selection.save_to_disk(tmp_path / "kept")
    loaded = Selection.load_from_disk(tmp_path / "kept")
    assert_equal(selection, loaded)
    assert loaded.dataset["sage_score"] == selection.dataset["sage_score"]
    assert load_from_disk(str(tmp_path / "kept"))["label"] == selection.dataset["label"]
    again = Selection.load_from_disk(tmp_path / "kept", source=rows)
    assert again.dataset["pixel_values"] == selection.dataset["pixel_values"]
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_scores_alone_take_few_bytes_and_need_the_source(selection, rows, tmp_path):
    selection.save_to_disk(tmp_path / "kept", include_dataset=False)
    loaded = Selection.load_from_disk(tmp_path / "kept")
    with pytest.raises(DatasetError, match="source=dataset"):
        _ = loaded.dataset
    assert Selection.load_from_disk(tmp_path / "kept", source=rows).dataset["label"] == selection.dataset["label"]
    with pytest.raises(DatasetError, match="30 rows with fingerprint"):
        Selection.load_from_disk(tmp_path / "kept", source=rows.shuffle(seed=0))


def test_nothing_on_disk_is_a_pickle(selection, tmp_path):
    selection.save_to_disk(tmp_path / "kept")
    kinds = {path.suffix for path in (tmp_path / "kept").iterdir()}
    assert kinds == {".json", ".safetensors", ".arrow"}
    assert json.loads((tmp_path / "kept" / "selection.json").read_text())["format_version"] == 3


def test_a_folder_that_holds_something_is_never_lost(selection, tmp_path):
    selection.save_to_disk(tmp_path / "kept")
    with pytest.raises(OutputError, match="another selection"):
        selection.save_to_disk(tmp_path / "kept")
    selection.save_to_disk(tmp_path / "kept", overwrite=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("all of it")
    with pytest.raises(OutputError, match="not a selection"):
        selection.save_to_disk(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "all of it"
    (tmp_path / "empty").mkdir()
    selection.save_to_disk(tmp_path / "empty")


def test_a_folder_that_cannot_be_made_is_refused(selection, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="Nothing can be written"):
        selection.save_to_disk(tmp_path / "file" / "kept")


def test_rows_with_a_transform_can_be_saved(selection, rows, tmp_path):
    config = SageConfig(strategy="agreement", fraction=0.2, sketch_size=8, shard_size=16, batch_size=8)
    shown = SageSelector(vit(), config=config).select(rows.with_transform(lambda batch: batch))
    shown.save_to_disk(tmp_path / "kept")
    assert Selection.load_from_disk(tmp_path / "kept").dataset["label"] == selection.dataset["label"]


def test_a_write_that_fails_leaves_the_old_selection_and_no_debris(selection, tmp_path, monkeypatch):
    selection.save_to_disk(tmp_path / "kept")
    monkeypatch.setattr("sage_hf.hub.files.save_file", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OutputError, match="disk full"):
        selection.save_to_disk(tmp_path / "kept", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert_equal(selection, Selection.load_from_disk(tmp_path / "kept"))


def test_what_is_no_selection_or_a_later_one_is_refused(selection, tmp_path):
    with pytest.raises(OutputError, match="holds no selection"):
        Selection.load_from_disk(tmp_path)
    selection.save_to_disk(tmp_path / "kept")
    about = tmp_path / "kept" / "selection.json"
    about.write_text(about.read_text().replace('"format_version": 3', '"format_version": 99'))
    with pytest.raises(OutputError, match="format 99"):
        Selection.load_from_disk(tmp_path / "kept")
    about.write_text('{"format_version": 2}')
    with pytest.raises(OutputError, match="lacks 'group_names'"):
        Selection.load_from_disk(tmp_path / "kept")
    about.write_text("[]")
    with pytest.raises(OutputError, match="format None"):
        Selection.load_from_disk(tmp_path / "kept")
    about.write_text("{")
    with pytest.raises(OutputError, match="cannot be read"):
        Selection.load_from_disk(tmp_path / "kept")


def test_the_group_table_counts_every_row_once(selection):
    table = selection.group_table
    assert [entry.name for entry in table] == ["class 0", "class 1", "class 2"]
    assert sum(entry.rows for entry in table) == 30
    assert sum(entry.kept for entry in table) == len(selection) == 6
    assert all(entry.mean_score_kept >= entry.mean_score for entry in table)


def test_an_old_score_column_is_replaced(rows):
    config = SageConfig(strategy="agreement", fraction=0.2, sketch_size=8, shard_size=16, batch_size=8)
    again = SageSelector(vit(), config=config).select(rows.add_column("sage_score", [9.0] * 30))
    assert max(again.dataset["sage_score"]) <= 1


# --------------------------------------------------------------------------- other rows by the same scores
@pytest.mark.parametrize(
    "settings",
    [
        {"fraction": 0.5},
        {"num_examples": 7},
        {"fraction": 0.4, "balance": "equal"},
        {"fraction": 0.4, "balance": "none"},
        {"strategy": "random"},
        {"num_examples": 11, "strategy": "random", "balance": "none"},
    ],
)
def test_other_settings_keep_the_rows_that_a_new_selection_keeps(selection, rows, settings, monkeypatch):
    wanted_settings = {
        "strategy": "agreement",
        "fraction": 0.2,
        "sketch_size": 8,
        "shard_size": 16,
        "batch_size": 8,
        **settings,
    }
    if "num_examples" in settings:
        del wanted_settings["fraction"]
    wanted = SageSelector(vit(), config=SageConfig(**wanted_settings)).select(rows)
    monkeypatch.setattr(SageSelector, "select", None)  # no model is asked
    made = selection.choose(**settings)
    assert made.indices.tolist() == wanted.indices.tolist()
    assert made.group_table == wanted.group_table
    assert made.config == wanted.config
    for name in ("kept", "mean_score_kept", "groups"):
        assert made.stats[name] == wanted.stats[name], name
    assert made.dataset["label"][:] == wanted.dataset["label"][:]
    assert len(selection) == 6  # as it was


@given(
    st.integers(1, 30), st.sampled_from(["proportional", "equal", "none"]), st.sets(st.integers(0, 29), max_size=12)
)
def test_what_is_chosen_is_as_many_scored_rows_as_there_are(selection, number, balance, aside):
    broken = replace(selection, status=selection.status.copy(), scores=selection.scores.copy())
    broken.status[list(aside)], broken.scores[list(aside)] = 1, np.nan
    made = broken.choose(num_examples=number, balance=balance)
    assert len(made) == min(number, 30 - len(aside))
    assert not aside & set(made.indices.tolist())
    assert np.array_equal(made.indices, np.unique(made.indices))


def test_what_needs_more_than_scores_is_not_chosen_from_scores(selection, rows):
    for settings, told in (
        ({"strategy": "auto"}, "needs embeddings, sketched of every row"),
        ({"strategy": "k_center"}, "needs embeddings of every row"),
    ):
        with pytest.raises(ConfigError, match=told):
            selection.choose(fraction=0.5, **settings)
    by_default = SageSelector(vit(), config=SageConfig(fraction=0.2, sketch_size=8, shard_size=16)).select(rows)
    by_default.signals = None
    with pytest.raises(ConfigError, match="Select again with strategy='auto', and store the signals"):
        by_default.choose(fraction=0.5)
    assert len(by_default.choose(fraction=0.5, strategy="loss")) == 15


def test_what_cannot_be_chosen_is_told(selection):
    with pytest.raises(BudgetError):
        selection.choose(fraction=0.5, num_examples=3)
    with pytest.raises(BudgetError):
        selection.choose(num_examples=31)
    with pytest.raises(ConfigError, match="best"):
        selection.choose(strategy="best")


def test_a_source_is_known_by_its_rows_however_it_was_made(selection, rows, tmp_path):
    selection.save_to_disk(tmp_path / "kept", include_dataset=False)
    same = Dataset.from_dict(rows[:], features=rows.features)
    assert same._fingerprint != rows._fingerprint
    assert Selection.load_from_disk(tmp_path / "kept", same).dataset["label"][:] == selection.dataset["label"][:]
    labels = [1 - label if row == 17 else label for row, label in enumerate(rows["label"])]
    for other in (image_rows(30, seed=1), image_rows(29), rows.remove_columns("label").add_column("label", labels)):
        with pytest.raises(DatasetError, match="30 rows with fingerprint"):
            Selection.load_from_disk(tmp_path / "kept", other)


def test_a_source_that_is_no_dataset_is_refused(selection, rows, tmp_path):
    selection.save_to_disk(tmp_path / "kept", include_dataset=False)
    for source, message in (
        (DatasetDict(train=rows), "several splits"),
        (rows.to_iterable_dataset(), "no row numbers"),
        (5, "A int is not a dataset"),
    ):
        with pytest.raises(DatasetError, match=rf"{message}.*\[source\]"):
            Selection.load_from_disk(tmp_path / "kept", source=source)
