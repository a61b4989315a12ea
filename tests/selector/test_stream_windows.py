"""A choice window by window: every group's quota is met, rows of all windows count, nothing depends on the pieces."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sage_hf import SageConfig, SageSelector
from sage_hf.demo import load_noisy_digits
from sage_hf.selector import stream_windows
from sage_hf.selector.stream_windows import parts_of_quotas

from ..cases import image_rows, llama, pad_tokens, token_rows, vit

SMALL = {"fraction": 0.3, "sketch_size": 8, "batch_size": 5, "shard_size": 8}


def select(rows, window_rows, monkeypatch, **settings):
    monkeypatch.setattr(stream_windows, "WINDOW_ROWS", window_rows)
    is_text = "input_ids" in rows.column_names
    selector = SageSelector(
        llama() if is_text else vit(),
        data_collator=pad_tokens if is_text else None,
        config=SageConfig(**{**SMALL, **settings}),
        progress=False,
    )
    return selector.select(rows.to_iterable_dataset())


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=12),
    st.integers(0, 100),
)
def test_the_parts_of_a_quota_add_up_and_no_window_gives_more_than_it_has(windows, share):
    sizes = np.array([sum(windows)])
    quotas = sizes * share // 100
    seen, given_rows = np.zeros(1, dtype=np.int64), 0
    for rows in windows:
        part = parts_of_quotas(quotas, sizes, seen, seen + rows)
        assert 0 <= part[0] <= rows
        given_rows += part[0]
        seen = seen + rows
    assert given_rows == quotas[0]


@pytest.mark.parametrize("window_rows", [8, 20, 24, 61, 200])
@pytest.mark.parametrize("strategy", ["auto", "coverage", "loss"])
@pytest.mark.parametrize("balance", ["proportional", "equal", "none"])
def test_every_group_keeps_its_quota_in_windows_of_any_size(monkeypatch, window_rows, strategy, balance):
    rows = image_rows(75)
    streamed = select(rows, window_rows, monkeypatch, strategy=strategy, balance=balance)
    config = SageConfig(**SMALL, strategy=strategy, balance=balance)
    whole = SageSelector(vit(), config=config, progress=False).select(rows)
    assert len(streamed) == len(whole) == len(set(streamed.indices.tolist()))
    assert (np.diff(streamed.indices) > 0).all()
    if balance != "none":
        kept = {group.name: group.kept for group in streamed.group_table}
        assert kept == {group.name: group.kept for group in whole.group_table}
    scores = dict(zip(whole.indices.tolist(), whole.kept_scores.tolist(), strict=True))
    again = dict(zip(streamed.indices.tolist(), streamed.kept_scores.tolist(), strict=True))
    assert all(again[row] == scores[row] for row in scores.keys() & again.keys())
    if window_rows >= 75:
        assert streamed.indices.tolist() == whole.indices.tolist()


def test_rows_of_every_window_are_kept(monkeypatch):
    indices = select(token_rows(80), 16, monkeypatch, group_by=None).indices
    assert np.bincount(indices // 16, minlength=5).tolist() == [5, 5, 4, 5, 5]


def test_what_the_gate_took_out_of_all_windows_is_counted(monkeypatch):
    selection = select(image_rows(75), 30, monkeypatch, gate=0.2, strategy="agreement")
    assert selection.stats.gate.judged == 75
    assert 10 <= selection.stats.gate.doubted <= 20
    assert "gate" in selection.stats.to_dict() and len(selection) == 23


def test_rows_that_cannot_be_scored_are_no_part_of_a_quota(monkeypatch):
    rows = image_rows(60)
    pixels = np.array(rows["pixel_values"], dtype=np.float32)
    pixels[[3, 17, 18, 50]] = np.nan
    broken = rows.remove_columns("pixel_values").add_column("pixel_values", pixels.tolist())
    selection = select(broken, 16, monkeypatch, fraction=1.0)
    assert selection.set_aside.keys() == {3, 17, 18, 50}
    assert selection.indices.tolist() == [row for row in range(60) if row not in (3, 17, 18, 50)]


class LossAlone(nn.Module):
    """A classifier of digits that shows its loss and no logits."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, pixel_values, labels=None):
        return {"loss": nn.functional.cross_entropy(self.head(self.body(pixel_values.flatten(1)).tanh()), labels)}


def test_wrong_labels_are_found_in_a_stream_too_where_the_model_shows_no_logits():
    rows = load_noisy_digits(0, 0.2).train.select(range(600))
    config = SageConfig(fraction=0.2, sketch_size=8, batch_size=32)
    whole, stream = (
        SageSelector(LossAlone(), config=config, progress=False).select(given_rows)
        for given_rows in (rows, rows.to_iterable_dataset())
    )
    assert stream.indices.tolist() == whole.indices.tolist()
    assert stream.stats.gate == whole.stats.gate and whole.stats.gate.wrong_share == pytest.approx(0.2, abs=0.05)


def test_a_window_of_one_class_is_told_and_the_recipe_waits_for_one_that_can_be_probed(monkeypatch, caplog):
    rows = load_noisy_digits(0, 0.0).train.select(range(700))
    labels = np.array(rows["label"][:])
    by_class = rows.select([*np.flatnonzero(labels == 0), *np.flatnonzero(labels)])
    size, config = int((labels == 0).sum()), SageConfig(fraction=0.2, sketch_size=8, shard_size=8)
    for window_rows, is_probed in ((size, False), (350, True)):
        caplog.clear()
        monkeypatch.setattr(stream_windows, "WINDOW_ROWS", window_rows)
        with caplog.at_level(logging.WARNING):
            found = SageSelector(LossAlone(), config=config, progress=False).select(by_class.to_iterable_dataset())
        said = [each.message for each in caplog.records if "Wrong labels cannot be found" in each.message]
        assert bool(found.stats.gate.tried) == is_probed
        assert len(found) == 140 and len(said) == 1 - is_probed
        assert is_probed or f"rows 0 to {size - 1} " in said[0]
