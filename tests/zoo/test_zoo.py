"""Rows of popular model families are those of batch-of-1 autograd, or they are not given at all.

The whole cross of families, targets and settings runs in `make models`; here every family is tried once, and a third
of them in one other setting each.
"""

import dataclasses
from functools import lru_cache

import pytest
import torch

from .expected import UNDER_HALF, expected
from .families import FAMILIES, PLAIN, SETTINGS, TARGETS
from .family import make_batch
from .truth import truths_of
from .verdict import WRONG, judge

pytestmark = pytest.mark.slow


@lru_cache(maxsize=1)
def truth_in(name, setting):
    batch = make_batch(FAMILIES[name], setting)
    return batch, truths_of(FAMILIES[name], setting, batch)


def verdict_of(name, setting, target):
    batch, truths = truth_in(name, setting)
    return judge(FAMILIES[name], setting, batch, truths, target)


def others():
    """(family, setting, target) of a third of the families: all weights as they are, and one other setting."""
    for turn, name in enumerate(list(FAMILIES)[::3]):
        settings = [setting for setting in SETTINGS[1:] if FAMILIES[name].has(setting)]
        yield name, PLAIN, "all"
        yield name, settings[turn % len(settings)], TARGETS[turn // 6 % 2]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_comes_to_what_is_expected(name):
    verdict = verdict_of(name, PLAIN, "auto")
    assert verdict.word == expected(name, "auto"), verdict.reason
    assert verdict.share >= 0.5 or verdict.word == "refused" or name in UNDER_HALF


@pytest.mark.parametrize(("name", "setting", "target"), others(), ids=lambda part: getattr(part, "name", part))
def test_families_in_other_settings(name, setting, target):
    try:
        truth_in(name, setting)
    except RuntimeError as error:
        if setting.dtype is torch.float32:
            raise
        pytest.skip(f"the model itself does not compute in half precision: {error}")
    verdict = verdict_of(name, setting, target)
    allowed = {expected(name, target)}
    if "one at a time" in allowed:
        allowed.add("right")
    elif "right" in allowed and setting.dtype is torch.bfloat16:
        allowed.add("one at a time")
    assert verdict.word in allowed, verdict.reason


def test_a_small_block_that_is_wrong_is_seen():
    name = "BertForSequenceClassification"
    batch, (truth,) = truth_in(name, PLAIN)
    blocks = truth.gradients[1]
    least = 2e-3 * torch.stack([block.norm() for block in blocks.values()]).norm()
    smallest = min((key for key in blocks if blocks[key].norm() > least), key=lambda key: blocks[key].norm())
    wrong = [dict(row) for row in truth.gradients]
    wrong[1][smallest] = torch.zeros_like(blocks[smallest])
    other = dataclasses.replace(truth, gradients=wrong)
    assert judge(FAMILIES[name], PLAIN, batch, [other], "all").word == WRONG
    off = dataclasses.replace(truth, losses=truth.losses * 1.05)
    assert judge(FAMILIES[name], PLAIN, batch, [off], "all").word == WRONG


def test_every_kind_of_head_is_tried():
    heads = {family.head for family in FAMILIES.values()}
    assert heads >= {"causal", "masked", "seq2seq", "sequence", "token", "question", "choice", "image", "segmentation"}
    assert heads >= {"detection", "depth", "audio", "ctc", "speech", "vision-language", "experts", "state space"}
    assert heads >= {"series", "pretraining"}
    assert len({family.model for family in FAMILIES.values()}) >= 300
