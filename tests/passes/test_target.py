import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification, Trainer

from sage_hf import GradientCollector, SageConfig, SageSelector
from sage_hf.errors import ConfigError, DatasetError, GroupError
from sage_hf.passes.extractor import GradientExtractor
from sage_hf.scoring.agreement import unit

from ..cases import image_rows, llama, pad_tokens, token_rows, vit
from ..training.runs import plain_args, train

SMALL = {"sketch_size": 16, "batch_size": 8, "shard_size": 16, "fraction": 0.3, "projection": 4}


def selector(model=None, **settings):
    model = model or vit()
    collator = pad_tokens if hasattr(model, "lm_head") else None
    return SageSelector(model, data_collator=collator, config=SageConfig(**{**SMALL, **settings}), progress=False)


def sketched(one, rows):
    """Unit sketched gradients of rows, by a fitted selector."""
    batch = {"pixel_values": torch.tensor(rows["pixel_values"][:]), "labels": torch.tensor(rows["label"][:])}
    return unit(unit(GradientCollector(one.model, projection=4)(batch)).double() @ directions_of(one).T)


def directions_of(one):
    """[l, D] orthonormal directions of the sketch: towards a target, scores are cosines in what they span."""
    return (one.sketch.sketch / one.sketch.singular_values[:, None]).double()


def test_rows_are_scored_by_their_agreement_with_the_target():
    rows, target = image_rows(50), image_rows(12, seed=7)
    one = selector(group_by=None)
    selection = one.select(rows, target=target)
    consensus = unit(sketched(one, target).sum(0, keepdim=True))
    wanted = (sketched(one, rows) @ consensus.T)[:, 0]
    assert np.allclose(selection.scores, wanted, atol=1e-4)
    assert selection.stats.strategy == "agreement"
    assert set(selection.indices) == set(np.argsort(-selection.scores)[:15])


def test_the_spectrum_counts_where_it_is_asked_for():
    rows, target = image_rows(50), image_rows(12, seed=7)
    one, plain = selector(group_by=None, spectrum_power=1), selector(group_by=None)
    selection = one.select(rows, target=target)
    batch = {"pixel_values": torch.tensor(rows["pixel_values"][:]), "labels": torch.tensor(rows["label"][:])}
    few = {"pixel_values": torch.tensor(target["pixel_values"][:]), "labels": torch.tensor(target["label"][:])}
    matrix = (one.sketch.sketch / one.sketch.singular_values[0]).double()
    z, z_target = (
        unit(unit(GradientCollector(one.model, projection=4)(each)).double() @ matrix.T) for each in (batch, few)
    )
    assert np.allclose(selection.scores, (z @ unit(z_target.sum(0, keepdim=True)).T)[:, 0], atol=1e-4)
    assert selection.config.spectrum_power == 1 and plain.select(rows, target=target).config.spectrum_power == 0


def test_each_class_has_the_consensus_of_the_targets_rows_of_the_class():
    rows, target = image_rows(50), image_rows(12, seed=7)
    one = selector()
    selection = one.select(rows, target=target)
    labels, target_labels = np.array(rows["label"][:]), np.array(target["label"][:])
    for label in range(3):
        consensus = unit(sketched(one, target)[target_labels == label].sum(0, keepdim=True))
        wanted = (sketched(one, rows)[labels == label] @ consensus.T)[:, 0]
        assert np.allclose(selection.scores[labels == label], wanted, atol=1e-4)


def test_a_target_of_one_class_draws_rows_of_this_class():
    rows = image_rows(60)
    target = rows.select([row for row in range(60) if rows["label"][row] == 1][:5])
    selection = selector(group_by=None, num_examples=10, fraction=None).select(rows, target=target)
    assert np.mean(np.array(rows["label"][:])[selection.indices] == 1) > 0.7


def test_several_targets_share_the_budget_as_they_are_told():
    rows = image_rows(60)
    parts = {
        name: rows.select([row for row in range(60) if rows["label"][row] == label][:5])
        for label, name in ((0, "dark"), (2, "bright"))
    }
    one = selector(num_examples=12, fraction=None)
    selection = one.select(rows, target=parts, target_shares={"dark": 1, "bright": 2})
    assert selection.group_names == ["dark", "bright"]
    assert [group.kept for group in selection.group_table] == [4, 8]
    assert selection.stats.targets == ["dark", "bright"]
    directions = torch.cat([unit(sketched(one, part).sum(0, keepdim=True)) for part in parts.values()])
    towards = sketched(one, rows) @ directions.T
    assert np.allclose(selection.scores, towards.max(1).values, atol=1e-4)
    assert np.array_equal(selection.groups, towards.argmax(1))
    even = selector(num_examples=12, fraction=None).select(rows, target=parts)
    assert [group.kept for group in even.group_table] == [6, 6]


@pytest.mark.parametrize("consensus", ["streaming", "exact"])
@pytest.mark.parametrize(("reduction", "reduced"), [("max", np.max), ("mean", np.mean)])
@pytest.mark.parametrize("group_by", [None, "label"])
def test_several_targets_by_the_largest_or_the_mean_agreement_share_one_budget(
    reduction, reduced, group_by, consensus
):
    rows, parts = image_rows(50), {"one": image_rows(9, seed=7), "other": image_rows(12, seed=8)}
    settings = {"group_by": group_by, "consensus": consensus, "strategy": "agreement"}
    each = [selector(**settings).select(rows, target=part).scores for part in parts.values()]
    one = selector(**settings, target_reduction=reduction)
    selection = one.select(rows, target=parts)
    assert np.allclose(selection.scores, reduced(each, axis=0), atol=1e-6)
    assert selection.stats.targets == ["one", "other"] and selection.stats.target_shares is None
    assert selection.stats.group_by == group_by and len(selection) == 15
    scored = one.score({name: rows[name][:8] for name in rows.column_names})
    assert np.allclose(scored["sage_score"], selection.scores[:8], atol=1e-5)
    assert np.array_equal(selection.choose(fraction=0.3).indices, selection.indices)


def test_one_target_is_the_same_by_every_reduction():
    rows, target = image_rows(40), image_rows(9, seed=7)
    plain = selector().select(rows, target=target)
    for reduction in ("max", "mean"):
        for given in (target, {"only": target}):
            one = selector(target_reduction=reduction).select(rows, target=given)
            assert np.allclose(one.scores, plain.scores, atol=1e-6)
            assert np.array_equal(one.indices, plain.indices)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of Trainer's checkpoint of a vision transformer after 3 steps."""
    folder = tmp_path_factory.mktemp("trained")
    args = plain_args(folder, save_strategy="steps", save_steps=3, max_steps=3)
    train(vit(), args, image_rows(24), Trainer)
    return folder / "checkpoint-3"


def aimed(folder, state, config=None, **others):
    model = AutoModelForImageClassification.from_pretrained(folder)
    config = config or SageConfig(**SMALL, group_by=None)
    return SageSelector(model, config=config, optimizer_state=state, progress=False, **others)


@pytest.mark.parametrize("most", [3, 10**6])
def test_updates_of_adam_are_held_against_the_targets_plain_gradients(trained, most):
    rows, target = image_rows(50), image_rows(12, seed=7)
    one = aimed(trained, trained)
    one._updates.rows = most
    selection = one.select(rows, target=target)
    batch, few = (
        {"pixel_values": torch.tensor(r["pixel_values"][:]), "labels": torch.tensor(r["label"][:])}
        for r in (rows, target)
    )
    matrix = directions_of(one)
    updates = GradientExtractor(one.collector, updates=one._updates).extract(batch).vectors
    z, z_target = (unit(unit(each.double()) @ matrix.T) for each in (updates, one.collector(few)))
    wanted = (z @ unit(z_target.sum(0, keepdim=True)).T)[:, 0]
    assert np.allclose(selection.scores, wanted, atol=1e-3)
    assert selection.stats.adam and not aimed(trained, None).select(rows, target=target).stats.adam
    assert set(selection.indices) == set(np.argsort(-selection.scores)[:15])


def test_updates_of_adam_need_a_target(trained):
    rows, one = image_rows(20), aimed(trained, trained)
    for call in (one.fit, one.select, one.gather, lambda rows: one.select(rows.to_iterable_dataset())):
        with pytest.raises(ConfigError, match="there is no target"):
            call(rows)


def test_what_is_finished_or_cached_belongs_to_one_state_of_the_optimizer(trained, tmp_path):
    rows, target = image_rows(40), image_rows(9, seed=7)
    other = tmp_path / "other"
    other.mkdir()
    state = torch.load(trained / "optimizer.pt", weights_only=True)
    for own in state["state"].values():
        own["exp_avg"] *= -1
    torch.save(state, other / "optimizer.pt")
    config = SageConfig(**SMALL, group_by=None, cache_gradients="float32")
    places = {"cache_dir": tmp_path / "cache", "resume_dir": tmp_path / "resume"}
    for state in (trained, None, other, trained):
        again = aimed(trained, state, config, **places).select(rows, target=target).scores
        assert np.array_equal(
            again, aimed(trained, state, config, cache_dir=tmp_path / "x").select(rows, target=target).scores
        )
    assert len(list((tmp_path / "resume").iterdir())) == 3


def test_text_towards_a_target():
    rows, target = token_rows(40), token_rows(6, seed=5)
    selection = selector(llama(), group_by=None).select(rows, target=target)
    assert len(selection) == 12
    assert selection.stats.mean_score_kept > selection.stats.mean_score


@pytest.mark.parametrize(
    ("target", "shares", "error", "words"),
    [
        ([1, 2], None, DatasetError, "is not a dataset"),
        (image_rows(4).select([]), None, DatasetError, "no rows"),
        ({}, None, ConfigError, "no target"),
        ({"a": image_rows(4)}, {"b": 1.0}, ConfigError, "the targets are"),
        ({"a": image_rows(4)}, {"a": 0.0}, ConfigError, "one positive number"),
        (image_rows(4), {"a": 1.0}, ConfigError, "one target"),
    ],
)
def test_what_is_no_target_is_refused_before_the_first_pass(target, shares, error, words, monkeypatch):
    monkeypatch.setattr(GradientCollector, "_collect", lambda *_: pytest.fail("a gradient was taken"))
    with pytest.raises(error, match=words):
        selector().select(image_rows(30), target=target, target_shares=shares)


@pytest.mark.parametrize("reduction", ["max", "mean"])
def test_shares_of_targets_that_have_one_budget_are_refused(reduction):
    parts = {"one": image_rows(4), "other": image_rows(4, seed=1)}
    with pytest.raises(ConfigError, match="all targets have one budget"):
        selector(target_reduction=reduction).select(image_rows(30), target=parts, target_shares={"one": 1, "other": 2})


def test_a_target_without_the_column_or_with_another_class_is_refused():
    rows = image_rows(30).add_column("source", ["a", "b"] * 15)
    with pytest.raises(GroupError, match="no column 'source'"):
        selector(group_by="source").select(rows, target=image_rows(6))
    with pytest.raises(GroupError, match="were not in the dataset"):
        selector(group_by="source").select(rows, target=image_rows(6).add_column("source", ["c"] * 6))
    with pytest.raises(ConfigError, match="not support a target yet"):
        selector(strategy="agreement").select(image_rows(30).to_iterable_dataset(), target=image_rows(6))


def test_with_clusters_each_has_the_consensus_of_the_targets_rows_in_it():
    rows, target = image_rows(50), image_rows(20, seed=7)
    one = selector(group_by="cluster", num_clusters=3)
    selection = one.select(rows, target=target)
    place = one.fitted.consensus.place
    z, z_target = sketched(one, rows), sketched(one, target)
    assert np.array_equal(place(z), selection.groups)
    codes = place(z_target)
    for group in range(3):
        members = z_target[codes == group] if (codes == group).any() else z_target
        consensus = unit(members.sum(0, keepdim=True))
        mine = selection.groups == group
        assert np.allclose(selection.scores[mine], (z[mine] @ consensus.T)[:, 0], atol=1e-4)


def test_the_choice_is_the_same_whether_at_once_or_of_gathered_signals_or_of_the_selection():
    rows = image_rows(60)
    parts = {"one": image_rows(9, seed=5), "other": image_rows(9, seed=8)}
    for target, shares in ((parts, {"one": 3.0, "other": 0.5}), (parts, None), (image_rows(9, seed=5), None)):
        one = selector()
        at_once = one.select(rows, target=target, target_shares=shares)
        signals = one.gather(rows, target=target, target_shares=shares)
        assert np.array_equal(one.choose(rows, signals).indices, at_once.indices)
        assert np.array_equal(at_once.choose(fraction=0.3).indices, at_once.indices)


@pytest.mark.parametrize("name", [1, None, ("a", "b"), "", " "])
def test_a_target_without_a_name_is_refused_before_any_pass(name):
    rows = image_rows(30)
    with pytest.raises(ConfigError, match=r"A target is called .* \[target\]"):
        selector().select(rows, target={"first": rows.select(range(3)), name: rows.select(range(3))})
