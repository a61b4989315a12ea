import random

import datasets
import numpy as np
import pytest
import torch
from torch import nn

from examples.python_text import train_tokenizer
from sage_hf import GradientCollector, SageConfig, SageSelector
from sage_hf.errors import (
    BudgetError,
    ConfigError,
    DatasetError,
    GradientError,
    GroupError,
    LabelError,
    SageError,
    SketchError,
)
from sage_hf.passes.run import Passes
from sage_hf.utils.fingerprint import model_fingerprint

from ..cases import bert, image_rows, llama, token_rows, vit
from ..gradients.test_collector import assert_same, state_of
from ..reference import exact_agreement

SMALL = {"strategy": "agreement", "sketch_size": 16, "shard_size": 16, "batch_size": 8}
TOKENIZER = train_tokenizer(["a b c"], 260)


def select(model, rows, **settings):
    tokenizer = TOKENIZER if "input_ids" in rows.column_names else None
    config = SageConfig(**{"fraction": 0.25, **SMALL, **settings})
    return SageSelector(model, processing_class=tokenizer, config=config).select(rows)


def gradient_rows(model, rows):
    """All gradient rows, one batch, in the order of the dataset."""
    batch = {"pixel_values": torch.tensor(rows["pixel_values"]), "labels": torch.tensor(rows["label"])}
    return GradientCollector(model)(batch)


# ------------------------------------------------------------------- the method
def test_exact_scores_are_the_formula_of_the_paper_end_to_end():
    model, rows = vit(), image_rows(48)
    config = SageConfig(fraction=0.25, consensus="exact", **SMALL)
    selector = SageSelector(model, config=config)
    selection = selector.select(rows)
    wanted = exact_agreement(gradient_rows(model, rows), selector.sketch.sketch, rows["label"])
    assert np.allclose(selection.scores, wanted, atol=1e-4)


def test_streaming_scores_are_the_formula_end_to_end():
    model, rows = vit(), image_rows(48)
    selector = SageSelector(model, config=SageConfig(fraction=0.25, **SMALL))
    selection = selector.select(rows)
    gradients, matrix = gradient_rows(model, rows).double(), selector.sketch.sketch.double()
    labels = torch.tensor(rows["label"])
    units = gradients / gradients.norm(dim=1, keepdim=True)
    for group in range(3):
        direction = matrix @ units[labels == group].sum(0)
        z = gradients[labels == group] @ matrix.T
        wanted = (z @ direction) / z.norm(dim=1) / direction.norm()
        assert np.allclose(selection.scores[np.array(labels) == group], wanted, atol=1e-4)


def test_the_sketch_of_the_shards_keeps_the_bound(tmp_path):
    model, rows = vit(), image_rows(60)
    config = SageConfig(fraction=0.25, cache_gradients="float32", **SMALL)  # rows that are not rounded
    selector = SageSelector(model, config=config, cache_dir=tmp_path).fit(rows)
    gradients, matrix = gradient_rows(model, rows).double(), selector.sketch.sketch.double()
    for x in (*torch.linalg.svd(gradients)[2][:20], *torch.randn(10, gradients.shape[1]).double()):
        x = x / x.norm()
        lost = float((gradients @ x).square().sum() - (matrix @ x).square().sum())
        assert -1e-4 <= lost <= selector.sketch.error_bound * 1.0001 + 1e-4


def test_losses_are_each_rows_own():
    model, rows = vit(), image_rows(20)
    selection = select(model, rows)
    model.eval()
    for index in range(20):
        batch = {
            "pixel_values": torch.tensor(rows[index : index + 1]["pixel_values"]),
            "labels": torch.tensor(rows[index : index + 1]["label"]),
        }
        assert selection.losses[index] == pytest.approx(model(**batch).loss.item(), rel=1e-4)


# ----------------------------------------------------------------- determinism
def test_the_same_seed_gives_the_same_selection_to_the_bit_whatever_the_global_random_state():
    rows = token_rows()
    first = select(llama(), rows)
    torch.manual_seed(99)
    np.random.seed(99)
    second = select(llama(), rows)
    assert np.array_equal(first.scores, second.scores)
    assert np.array_equal(first.indices, second.indices)


@pytest.mark.parametrize("consensus", ["streaming", "exact"])
def test_another_batch_size_gives_the_same_scores_up_to_rounding(consensus):
    rows = token_rows()
    wanted = select(llama(), rows, consensus=consensus)
    for batch_size in (1, 5, 40):
        found = select(llama(), rows, batch_size=batch_size, consensus=consensus)
        assert np.allclose(found.scores, wanted.scores, atol=1e-4)


def test_a_random_crop_is_the_same_crop_in_both_passes():
    seen = []
    before = random.getstate()

    def crop(batch):
        images = [np.array(image) + random.random() for image in batch["pixel_values"]]
        seen.append(np.mean([image.mean() for image in images]))
        return {"pixel_values": [image.astype(np.float32) for image in images], "label": batch["label"]}

    rows = image_rows(32).with_transform(crop)
    select(vit(), rows, check_gradients=False, group_by=None, cache_gradients=None)
    # The first call looks at one row, to find the columns.
    assert len(seen) == 9
    assert seen[1:5] == seen[5:9]
    assert random.getstate() == before


# ------------------------------------------------------- nothing is disturbed
def test_model_and_random_state_come_back_as_they_were():
    model, rows = vit(), image_rows(24)
    model.train()
    model.vit.embeddings.requires_grad_(False)
    before = state_of(model)
    select(model, rows)
    assert_same(before, state_of(model))


def test_model_and_random_state_come_back_after_an_exception():
    model, rows = vit(), image_rows(24)
    spoilt = rows.remove_columns("label").add_column("label", [0] * 20 + [7] * 4)
    model.train()
    before = state_of(model)
    with pytest.raises(LabelError, match=r"label is 7.*4 rows: 20, 21, 22, 23"):
        select(model, spoilt)
    assert_same(before, state_of(model))

    def fail(module, arguments):
        if len(fail.calls) > 3:
            raise KeyError("in the middle")
        fail.calls.append(module)

    fail.calls = []
    model.classifier.register_forward_pre_hook(fail)
    before = state_of(model)
    with pytest.raises(KeyError, match="in the middle"):
        select(model, rows)
    assert_same(before, state_of(model))


# --------------------------------------------------------------- choose and budget
def test_exactly_as_many_rows_as_asked_sorted_and_with_their_scores():
    rows = image_rows(50)
    for settings in ({"fraction": 0.1}, {"fraction": None, "num_examples": 7}, {"fraction": 1.0}):
        selection = select(vit(), rows, **settings)
        assert len(selection) == {0.1: 5, None: 7, 1.0: 50}[settings["fraction"]]
        assert (np.diff(selection.indices) > 0).all()
        assert selection.dataset["sage_score"] == selection.scores[selection.indices].tolist()
        assert selection.dataset["label"] == [rows["label"][index] for index in selection.indices]


def test_balance_shares_the_budget_between_the_classes():
    rows = image_rows(60).filter(lambda row, index: row["label"] != 2 or index < 15, with_indices=True)
    sizes = np.bincount(rows["label"]).tolist()
    assert sizes == [20, 20, 5]
    labels = np.array(rows["label"])
    kept = {
        balance: np.bincount(labels[select(vit(), rows, balance=balance, fraction=0.4).indices]).tolist()
        for balance in ("proportional", "equal")
    }
    assert kept == {"proportional": [8, 8, 2], "equal": [7, 6, 5]}
    everyone = select(vit(), rows, balance="none", fraction=0.4)
    assert set(everyone.indices) == set(np.argsort(-everyone.scores, kind="stable")[:18])


def test_groups_come_from_the_label_a_column_or_nowhere():
    rows = image_rows(30).add_column("source", ["web", "book"] * 15)
    assert select(vit(), rows).group_names == ["class 0", "class 1", "class 2"]
    assert select(vit(), rows, group_by="source").group_names == ["book", "web"]
    assert select(vit(), rows, group_by=None).group_names == ["all"]
    assert select(llama(), token_rows()).group_names == ["all"]
    regression = image_rows(30)
    assert select(vit(num_labels=1), regression.cast_column("label", datasets.Value("float32"))).group_names == ["all"]


# ------------------------------------------------------------------ rows set aside
class Sensitive(nn.Module):
    """A linear classifier; the dataset decides what is wrong with a row."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return {"logits": self.layer(x)}


@pytest.mark.parametrize("consensus", ["streaming", "exact"])
def test_rows_that_cannot_be_scored_are_set_aside_named_and_leave_the_others_alone(consensus):
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    labels = (np.arange(30) % 3).astype(int)
    clean = datasets.Dataset.from_dict({"x": x, "label": labels})
    x = np.concatenate([x, [[np.nan] * 4, [np.inf] * 4, [1] * 4]]).astype(np.float32)
    spoilt = datasets.Dataset.from_dict({"x": x, "label": [*labels, 0, 1, -100]})
    settings = {"group_by": None, "consensus": consensus, "shard_size": 50}
    wanted = select(Sensitive(), clean, **settings, fraction=0.5)
    selection = select(Sensitive(), spoilt, **settings, fraction=None, num_examples=15)
    assert np.allclose(selection.scores[:30], wanted.scores, atol=1e-6)
    assert np.array_equal(selection.indices, wanted.indices)
    assert np.isnan(selection.scores[30:]).all()
    assert np.isnan(selection.losses[30:]).all()
    assert selection.set_aside == {
        30: "gradient or loss not finite",
        31: "gradient or loss not finite",
        32: "gradient exactly zero",
    }
    assert selection.stats.set_aside == 3


@pytest.mark.parametrize("consensus", ["streaming", "exact"])
def test_huge_and_tiny_gradients_are_scored_by_their_direction(consensus):
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    scale = np.where(np.arange(30) % 2, 1e25, 1e-12).astype(np.float32)[:, None]
    rows = datasets.Dataset.from_dict({"x": x * scale, "label": [index % 3 for index in range(30)]})
    selection = select(Sensitive(), rows, group_by=None, consensus=consensus, check_gradients=False)
    # Of a row with huge logits and the right label the loss is exactly flat; all others have a score.
    assert all(row % 2 and reason == "gradient exactly zero" for row, reason in selection.set_aside.items())
    assert len(selection.set_aside) < 8
    assert np.isfinite(np.delete(selection.scores, list(selection.set_aside))).all()


def test_when_too_few_rows_can_be_scored_all_of_them_are_kept_and_said(caplog):
    rows = datasets.Dataset.from_dict({"x": np.ones((4, 4), np.float32), "label": [0, 1, 2, -100]})
    selection = select(Sensitive(), rows, fraction=1.0, group_by=None)
    assert selection.indices.tolist() == [0, 1, 2]
    assert "4 rows were asked for and 3 could be scored" in caplog.text


def test_a_dataset_without_any_usable_row_is_an_error():
    rows = datasets.Dataset.from_dict({"x": np.ones((4, 4), np.float32), "label": [-100] * 4})
    with pytest.raises(GradientError, match="No row has a usable gradient: 0 are not finite, 4 are exactly zero"):
        select(Sensitive(), rows, group_by=None)


# ------------------------------------------------------------------ datasets.map
def test_score_as_an_ordinary_map_gives_the_scores_of_select():
    rows = image_rows(40)
    selection = select(vit(), rows)
    selector = SageSelector(vit(), config=SageConfig(**SMALL)).fit(rows)
    scored = rows.map(selector.score, batched=True, batch_size=11)
    assert np.allclose(scored["sage_score"], selection.scores, atol=1e-6)
    assert np.allclose(scored["sage_loss"], selection.losses, rtol=1e-5)


def test_score_gives_null_for_a_row_that_cannot_be_scored():
    rows = datasets.Dataset.from_dict({"x": np.ones((4, 4), np.float32), "label": [0, 1, 2, -100]})
    selector = SageSelector(Sensitive(), config=SageConfig(group_by=None, **SMALL)).fit(rows)
    assert rows.map(selector.score, batched=True)["sage_score"][3] is None


def test_a_map_is_cached_by_weights_configuration_and_fit_without_pickling_the_model(tmp_path):
    image_rows(40).save_to_disk(tmp_path / "rows")
    rows = datasets.load_from_disk(tmp_path / "rows")

    class Unpicklable(type(vit())):
        def __reduce_ex__(self, protocol):
            raise AssertionError("the model was pickled")

    def fingerprint(change=lambda model: None, **settings):
        model = vit()
        model.__class__ = Unpicklable
        change(model)
        selector = SageSelector(model, config=SageConfig(**{**SMALL, **settings})).fit(rows)
        return rows.map(selector.score, batched=True)._fingerprint

    first = fingerprint()
    assert fingerprint() == first
    assert fingerprint(lambda model: model.eval()) == first
    assert fingerprint(sketch_size=8) != first
    assert fingerprint(lambda model: nn.init.ones_(model.classifier.bias)) != first


def test_a_selector_that_is_not_fitted_or_sent_away_says_so():
    rows = image_rows(20)
    selector = SageSelector(vit(), config=SageConfig(**SMALL))
    with pytest.raises(SketchError, match="not fitted"):
        selector.score(rows[:2])
    selector.fit(rows)
    with pytest.raises(GroupError, match="no column 'label'"):
        selector.score({"pixel_values": rows[:2]["pixel_values"]})
    import pickle

    with pytest.raises(SageError, match="without num_proc"):
        pickle.loads(pickle.dumps(selector))


def test_the_fingerprint_of_a_model_follows_its_weights_alone():
    model = vit()
    before = model_fingerprint(model)
    model.train().requires_grad_(False)
    assert model_fingerprint(model) == before == model_fingerprint(vit())
    with torch.no_grad():
        model.classifier.weight[0, 0] += 1e-6
    assert model_fingerprint(model) != before


# ------------------------------------------------------------------ padding that shows
class Blind(nn.Module):
    """Sees no attention mask: padding changes a row."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.layer = nn.Embedding(64, 8), nn.Linear(8, 3)

    def forward(self, input_ids):
        return self.layer(self.embed(input_ids).mean(1))


def test_a_model_that_sees_padding_is_scored_row_by_row_without_any(caplog):
    rows = token_rows(30).add_column("label", [index % 3 for index in range(30)])
    wanted = select(Blind(), rows, batch_size=1)
    found = select(Blind(), rows, batch_size=8)
    assert found.stats.one_at_a_time
    assert "one at a time" in caplog.text
    assert np.allclose(found.scores, wanted.scores, atol=1e-6)
    # With its padding masked out by the model, batches are trusted.
    assert not select(llama(), token_rows(30)).stats.one_at_a_time


def test_a_model_that_takes_one_row_only_is_scored_row_by_row():
    class Single(Sensitive):
        def forward(self, x):
            if len(x) > 1:
                raise ValueError("Cannot handle batch sizes > 1")
            return super().forward(x)

    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    rows = datasets.Dataset.from_dict({"x": x, "label": [index % 3 for index in range(20)]})
    assert np.allclose(select(Single(), rows).scores, select(Sensitive(), rows).scores, atol=1e-6)


def test_formats_of_the_dataset_change_nothing():
    rows = image_rows(24)
    wanted = select(vit(), rows)
    for name in ("torch", "numpy"):
        assert np.array_equal(select(vit(), rows.with_format(name)).scores, wanted.scores)
    selector = SageSelector(vit(), config=SageConfig(**SMALL)).fit(rows)
    scored = rows.with_format("torch").map(selector.score, batched=True)
    assert np.allclose(scored.with_format(None)["sage_score"], wanted.scores, atol=1e-6)
    with pytest.raises(ConfigError, match="batched=True"):
        rows.map(selector.score)


# ------------------------------------------------------------------------ bad input
@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"fraction": None}, BudgetError, "Neither"),
        ({"fraction": None, "num_examples": 31}, BudgetError, "31 rows were asked for, and the dataset has 30"),
        ({"strategy": "best"}, ConfigError, r"Use one of \['auto', 'coverage'"),
        ({"group_by": "topic"}, GroupError, "no column 'topic'"),
        ({"group_by": "holes"}, GroupError, r"nulls, first in rows \[0\]"),
        ({"group_by": "weight"}, GroupError, "holds a float"),
        ({"target_modules": ["attention_is"]}, SageError, "matches no layer"),
        ({"projection": None, "sketch_size": 10**9}, ConfigError, "MB are free"),
    ],
)
def test_bad_input_is_refused_before_the_first_pass(settings, error, words, monkeypatch):
    rows = image_rows(30).add_column("holes", [None, *["a"] * 29]).add_column("weight", [0.5] * 30)
    monkeypatch.setattr(GradientCollector, "_collect", lambda *_: pytest.fail("a gradient was taken"))
    with pytest.raises(error, match=words):
        select(vit(), rows, **settings)


def test_datasets_that_cannot_be_selected_from_are_refused():
    with pytest.raises(DatasetError, match="no rows"):
        select(vit(), image_rows(3).select([]))
    with pytest.raises(LabelError, match="no label column"):
        select(vit(), image_rows(30).remove_columns("label"))
    text = datasets.Dataset.from_dict({"text": ["a"], "label": [0]})
    with pytest.raises(DatasetError, match="processing_class"):
        select(bert(), text)


def test_many_wide_groups_fall_back_to_the_exact_consensus_and_say_so(monkeypatch, caplog):
    monkeypatch.setattr("sage_hf.passes.memory._CONSENSUS_BYTES", 100)
    selection = select(vit(), image_rows(30))
    assert selection.stats.consensus == "exact"
    assert "exact consensus is used" in caplog.text


# ------------------------------------------------------------- signals and choices
KEPT = {**SMALL, "fraction": 0.25}


def test_a_stream_is_refused_by_gather_before_any_pass(monkeypatch):
    monkeypatch.setattr(Passes, "run", lambda *given: pytest.fail("a pass was run"))
    selector = SageSelector(vit(), config=SageConfig(**KEPT))
    with pytest.raises(DatasetError, match="no row numbers"):
        selector.gather(image_rows(20).to_iterable_dataset())


def test_a_choice_goes_by_the_signals_that_it_is_given_whatever_was_fitted_since():
    first = datasets.Dataset.from_dict({"x": np.ones((6, 4), np.float32), "label": [0, 1, 2, -100, 0, 1]})
    second = datasets.Dataset.from_dict({"x": np.ones((6, 4), np.float32), "label": [-100, -100, 2, 0, 0, 1]})
    selector = SageSelector(Sensitive(), config=SageConfig(group_by=None, **KEPT), progress=False)
    signals = selector.gather(first, ())
    wanted = selector.choose(first, signals)
    selector.gather(second, ())
    later = selector.choose(first, signals)
    assert later.set_aside == wanted.set_aside == {3: "gradient exactly zero"}
    later.stats.choose_seconds = wanted.stats.choose_seconds
    assert later.stats == wanted.stats
    assert np.array_equal(later.indices, wanted.indices)


def test_signals_can_be_chosen_from_at_any_budget_as_a_selection_would():
    rows = image_rows(40)
    signals = SageSelector(vit(), config=SageConfig(**KEPT), progress=False).gather(rows)
    for settings in ({"fraction": 0.1}, {"fraction": 0.5, "strategy": "random"}, {"strategy": "gradient_norm"}):
        config = SageConfig(**{**KEPT, **settings})
        selector = SageSelector(vit(), config=config, progress=False)
        assert np.array_equal(selector.choose(rows, signals).indices, selector.select(rows).indices)


@pytest.mark.parametrize("settings", [{}, {"spectrum_power": 0.5}, {"num_clusters": 5}, {"strategy": "coverage"}])
def test_after_clusters_score_gives_the_scores_of_the_selection(settings):
    rows = image_rows(60)
    config = SageConfig(**{**KEPT, "group_by": "cluster", "num_clusters": 3, **settings})
    selector = SageSelector(vit(), config=config, progress=False)
    selection = selector.select(rows)
    scored = rows.map(selector.score, batched=True, batch_size=11)
    assert np.allclose(scored["sage_score"], selection.scores, atol=1e-5)
    new = image_rows(20, seed=9).map(selector.score, batched=True)
    assert all(-1 <= score <= 1 for score in new["sage_score"])


def test_after_several_targets_score_gives_the_scores_of_the_selection():
    rows = image_rows(60)
    parts = {name: image_rows(9, seed=seed) for name, seed in (("one", 5), ("other", 8))}
    selector = SageSelector(vit(), config=SageConfig(**KEPT), progress=False)
    selection = selector.select(rows, target=parts)
    scored = rows.map(selector.score, batched=True, batch_size=11)
    assert np.allclose(scored["sage_score"], selection.scores, atol=1e-5)


def test_maps_after_other_clusters_or_targets_are_cached_apart():
    rows = image_rows(40)

    def fingerprint(target=None, **settings):
        selector = SageSelector(vit(), config=SageConfig(**{**KEPT, **settings}), progress=False)
        selector.select(rows, target=target)
        return rows.map(selector.score, batched=True)._fingerprint

    clusters = {"group_by": "cluster", "num_clusters": 3}
    assert fingerprint(**clusters) == fingerprint(**clusters)
    parts = [{"a": image_rows(9, seed=seed), "b": image_rows(9, seed=1)} for seed in (5, 6)]
    made = [fingerprint(), fingerprint(**clusters), fingerprint(parts[0]), fingerprint(parts[1])]
    assert len(set(made)) == 4
