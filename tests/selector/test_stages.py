"""A selection numbers its stages from first to last, whatever it is of; an interrupted one says what is kept."""

import re

import pytest

from sage_hf import SageConfig, SageSelector, find_label_issues, select_over_checkpoints
from sage_hf.passes import memory
from sage_hf.passes.run import Passes
from sage_hf.utils import bars

from ..cases import image_rows, vit

SMALL = {"fraction": 0.3, "sketch_size": 8, "batch_size": 8, "shard_size": 16}


@pytest.fixture
def begun(monkeypatch):
    """The heads of all stages, in the order in which they were begun."""
    heads, begin = [], bars.Plan.begin

    def noted(self, name):
        heads.append(begin(self, name) + name)
        return heads[-1].removesuffix(name)

    monkeypatch.setattr(bars.Plan, "begin", noted)
    return heads


def numbers(heads):
    """(number, of how many) of every stage; none may be without."""
    found = [re.match(r"\[(\d+) of (\d+)\] ", head) for head in heads]
    assert all(found), heads
    return [tuple(map(int, each.groups())) for each in found]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"strategy": "agreement"},
        {"strategy": "agreement", "consensus": "exact"},
        {"consensus": "exact"},
        {"group_by": "cluster", "num_clusters": 3},
        {"cache_gradients": None},
    ],
    ids=str,
)
def test_every_stage_of_a_dataset_is_numbered_and_the_last_is_the_last(begun, settings):
    SageSelector(vit(), config=SageConfig(**SMALL, **settings), progress=False).select(image_rows(60))
    found = numbers(begun)
    assert found == [(place, len(found)) for place in range(1, len(found) + 1)], begun


@pytest.mark.parametrize("reduction", ["nearest", "max", "mean"])
@pytest.mark.parametrize("consensus", ["streaming", "exact"])
@pytest.mark.parametrize("targets", [1, 2])
def test_every_stage_towards_targets_is_numbered(begun, reduction, consensus, targets):
    config = SageConfig(**SMALL, consensus=consensus, target_reduction=reduction)
    rows = {str(number): image_rows(12) for number in range(targets)}
    target = rows if targets > 1 else rows["0"]
    SageSelector(vit(), config=config, progress=False).select(image_rows(60), target=target)
    found = numbers(begun)
    assert found == [(place, len(found)) for place in range(1, len(found) + 1)], begun


def test_the_exact_consensus_that_memory_asks_for_takes_its_place_in_the_plan(begun, monkeypatch):
    monkeypatch.setattr("sage_hf.selector.selector.is_streaming", lambda config, groups, width: False)
    monkeypatch.setattr("sage_hf.selector.fit.is_streaming", lambda config, groups, width: False)
    assert memory.is_streaming(SageConfig(), 1, 8)
    SageSelector(vit(), config=SageConfig(**SMALL), progress=False).select(image_rows(60))
    found = numbers(begun)
    assert begun[2].endswith("projecting gradients") and found == [(place, 4) for place in range(1, 5)]


@pytest.mark.parametrize("strategy", ["agreement", "auto"])
def test_every_stage_of_a_stream_is_numbered_but_for_choices_in_between(begun, strategy):
    config = SageConfig(**SMALL, strategy=strategy)
    SageSelector(vit(), config=config, progress=False).select(image_rows(60).to_iterable_dataset())
    found = numbers([head for head in begun if "of a window" not in head])
    assert found == [(1, 3), (2, 3), (3, 3)]


def test_every_stage_of_several_models_is_numbered(begun):
    select_over_checkpoints([vit(), vit()], image_rows(60), config=SageConfig(**SMALL), progress=False)
    found = numbers(begun)
    assert found == [(place, 7) for place in range(1, 8)], begun


def test_label_issues_have_three_stages(begun):
    find_label_issues(vit(), image_rows(60), config=SageConfig(batch_size=8, shard_size=16), progress=False)
    assert numbers(begun) == [(1, 3), (2, 3), (3, 3)]


def interrupted(monkeypatch, selector, rows, after):
    """Selects, and is interrupted in a shard."""
    count, run_shard = [], Passes.run_shard

    def stop(self, *given):
        if len(count) == after:
            raise KeyboardInterrupt
        count.append(1)
        return run_shard(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Passes, "run_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            selector.select(rows)


@pytest.mark.parametrize(
    ("after", "stage", "kept", "of"), [(2, 2, "2 of 4", "32 of 60"), (7, 3, "3 of 4", "48 of 60")]
)
def test_an_interrupted_selection_says_what_is_kept_and_goes_on(tmp_path, monkeypatch, caplog, after, stage, kept, of):
    rows, config = image_rows(60), SageConfig(**SMALL)
    selector = SageSelector(vit(), config=config, progress=False, resume_dir=tmp_path)
    interrupted(monkeypatch, selector, rows, after)
    (said,) = [message for message in caplog.messages if "Interrupted" in message]
    assert said.startswith(f"Interrupted in stage {stage} of 4 (s")
    assert said.endswith(f": {kept} shards are kept in {tmp_path} ({of} rows). The same call goes on from there.")
    again = SageSelector(vit(), config=config, progress=False, resume_dir=tmp_path).select(rows)
    whole = SageSelector(vit(), config=config, progress=False).select(rows)
    assert (again.scores == whole.scores).all() and (again.indices == whole.indices).all()


def test_an_interrupted_selection_without_a_folder_names_the_option_that_keeps(monkeypatch, caplog):
    interrupted(monkeypatch, SageSelector(vit(), config=SageConfig(**SMALL), progress=False), image_rows(60), 2)
    (said,) = [message for message in caplog.messages if "Interrupted" in message]
    assert said.endswith(
        "Nothing is kept. With resume_dir= (a folder), the same call would go on from the last finished shard."
    )


def test_an_interrupted_stream_says_what_is_kept(tmp_path, monkeypatch, caplog):
    config = SageConfig(**SMALL, strategy="agreement")
    selector = SageSelector(vit(), config=config, progress=False, resume_dir=tmp_path)
    interrupted(monkeypatch, selector, image_rows(60).to_iterable_dataset(), 2)
    (said,) = [message for message in caplog.messages if "Interrupted" in message]
    assert f"(sketching gradients): 2 shards are kept in {tmp_path} (32 rows)" in said
