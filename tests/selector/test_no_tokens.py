"""A row without tokens is set aside for that, whoever meets it; the others are scored as if it were not there."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from sage_hf import SageConfig, SageSelector, find_label_issues
from sage_hf.errors import DatasetError
from sage_hf.training.warmup import warm_up

from ..cases import bert, llama, pad_tokens, token_rows

# The first rows, a whole batch, a whole shard, and the last.
EMPTY = [0, 1, 5, 8, 9, 10, 11, 12, 13, 14, 15, 39]
SETTINGS = {"fraction": 0.4, "strategy": "agreement", "sketch_size": 64, "batch_size": 4, "shard_size": 8}


def with_empty(is_causal=True):
    """Token rows of which some have none, and what is left without these."""
    columns = token_rows(40).to_dict()
    for name in columns:
        columns[name] = [[] if row in EMPTY else value for row, value in enumerate(columns[name])]
    if not is_causal:
        columns["label"] = [row % 3 for row in range(40)]
    rows = Dataset.from_dict(columns)
    return rows, rows.select([row for row in range(40) if row not in EMPTY])


def select(model, rows, **settings):
    collator = pad_tokens if "label" not in rows.column_names else None
    config = SageConfig(**{**SETTINGS, **settings})
    places = {name: settings.pop(name) for name in ("cache_dir", "resume_dir") if name in settings}
    return SageSelector(model, data_collator=collator, config=config, progress=False, **places).select(rows)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"consensus": "exact"},
        {"num_workers": 2},
        {"shard_size": 64},
        {"strategy": "auto"},
        {"group_by": "cluster", "num_clusters": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize(("model", "is_causal"), [(llama, True), (bert, False)])
def test_a_selection_sets_them_aside_and_scores_the_others_as_without_them(model, is_causal, settings):
    rows, left = with_empty(is_causal)
    found, wanted = select(model(), rows, **settings), select(model(), left, **settings)
    assert found.set_aside == dict.fromkeys(EMPTY, "no tokens")
    assert np.isnan(found.losses[EMPTY]).all() and np.isnan(found.scores[EMPTY]).all()
    scored = found.status == 0
    assert np.allclose(found.losses[scored], wanted.losses, atol=1e-6)
    if settings.get("group_by") != "cluster":  # whose clusters begin by chance
        assert np.allclose(found.scores[scored], wanted.scores, atol=1e-4)
    assert not np.intersect1d(found.indices, EMPTY).size


def test_a_stream_of_them_is_as_a_dataset_of_them():
    rows, _ = with_empty(is_causal=False)
    wanted = select(bert(), rows)
    for settings in ({}, {"shard_size": 2, "batch_size": 2}):
        found = select(bert(), rows.to_iterable_dataset(), **settings)
        assert found.set_aside == dict.fromkeys(EMPTY, "no tokens")
        assert found.stats.set_aside == len(EMPTY)
        assert found.indices.tolist() == wanted.indices.tolist() or settings


@pytest.mark.parametrize("place", ["cache_dir", "resume_dir"])
def test_what_was_kept_of_them_is_read_again(tmp_path, place):
    rows, _ = with_empty(is_causal=False)
    kept = {"cache_gradients": "float32"} if place == "cache_dir" else {}
    found = []
    for _ in range(2):
        config = SageConfig(**{**SETTINGS, **kept})
        selector = SageSelector(bert(), config=config, progress=False, **{place: tmp_path})
        found.append(selector.select(rows))
    assert found[0].set_aside == found[1].set_aside == dict.fromkeys(EMPTY, "no tokens")
    assert np.array_equal(found[0].scores, found[1].scores, equal_nan=True)


def test_a_map_gives_them_no_score():
    rows, _ = with_empty(is_causal=False)
    selector = SageSelector(bert(), config=SageConfig(**SETTINGS), progress=False).fit(rows)
    scores = rows.map(selector.score, batched=True)["sage_score"]
    assert [row for row, score in enumerate(scores) if score is None] == EMPTY


def test_label_issues_say_nothing_of_them():
    rows, left = with_empty(is_causal=False)
    model = bert()
    found, wanted = (find_label_issues(model, each, progress=False) for each in (rows, left))
    assert (found.label_doubt[EMPTY] == 0).all()
    assert np.allclose(np.delete(found.label_doubt, EMPTY), wanted.label_doubt, atol=1e-4)
    assert not np.intersect1d(found.rows, EMPTY).size


def test_a_warm_up_learns_nothing_from_them():
    rows, _ = with_empty(is_causal=False)
    model = bert()
    assert warm_up(model, rows, steps=30, batch_size=1).steps == 30
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    columns = rows.remove_columns("label").add_column("labels", [[-100] * len(ids) for ids in rows["input_ids"]])
    with pytest.raises(DatasetError, match="to learn from"):
        warm_up(llama(), columns, steps=1)


def test_rows_whose_labels_are_all_masked_have_a_gradient_of_zero():
    rows = token_rows(12)
    labels = [[-100] * len(ids) if row < 3 else ids for row, ids in enumerate(rows["input_ids"])]
    found = select(llama(), rows.add_column("labels", labels), fraction=0.5)
    assert found.set_aside == dict.fromkeys(range(3), "gradient exactly zero")


def test_a_dataset_of_nothing_else_is_refused():
    rows, _ = with_empty(is_causal=False)
    with pytest.raises(DatasetError, match="None of 3 rows has a token"):
        select(bert(), rows.select([0, 1, 5]))
    assert torch.is_grad_enabled()
