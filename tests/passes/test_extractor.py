import itertools

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import nn

from sage_hf import SageConfig, SageSelector
from sage_hf.errors import GradientError

from ..cases import image_rows, llama, vit

SETTINGS = {"fraction": 0.5, "sketch_size": 8, "batch_size": 5, "shard_size": 16, "strategy": "agreement"}


class LateMixer(nn.Module):
    """A classifier whose rows see each other from some call with several rows on."""

    def __init__(self, from_call):
        super().__init__()
        self.model, self.calls, self.from_call = vit(), itertools.count(), from_call

    def forward(self, pixel_values, labels=None):
        if len(pixel_values) > 1 and torch.is_grad_enabled():
            self.late = next(self.calls) >= self.from_call
        mixed = pixel_values - pixel_values.mean(0, keepdim=True) if getattr(self, "late", False) else pixel_values
        return self.model(pixel_values=mixed, labels=labels)


def select(model, rows, **changes):
    selector = SageSelector(model, config=SageConfig(**{**SETTINGS, **changes}), progress=False)
    return selector, selector.select(rows)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_model_that_goes_wrong_late_stops_the_run_with_the_row_named(streaming):
    model, rows = LateMixer(from_call=6), image_rows(60)
    rows = rows.to_iterable_dataset() if streaming else rows
    with pytest.raises(
        GradientError, match=r"Row 39 gives another result in its batch than alone.*model\.vit"
    ) as error:
        select(model, rows, recheck_every=40)
    assert error.value.where == "row 39"


def test_without_a_recheck_such_a_model_goes_unseen():
    for off in ({"recheck_every": 0}, {"check_gradients": False, "recheck_every": 40}):
        select(LateMixer(from_call=6), image_rows(60), **off)


@pytest.mark.parametrize(("cache", "passes"), [("auto", 1), (None, 2)])
def test_one_row_of_every_stretch_is_compared_where_the_model_runs_and_nothing_changes(cache, passes):
    selector, with_checks = select(vit(), image_rows(60), recheck_every=20, cache_gradients=cache)
    assert selector._passes.extractor.rechecked.rows == passes * 3
    assert selector._passes.extractor.rechecked.seconds > 0
    _, without = select(vit(), image_rows(60), recheck_every=0, cache_gradients=cache)
    assert (with_checks.scores == without.scores).all()
    assert (with_checks.indices == without.indices).all()


@pytest.mark.parametrize("short", [0, 7])
def test_a_gradient_that_cancels_out_but_for_rounding_is_no_error(short):
    """A token that sees itself alone has no gradient at the queries: of two tokens, what is left is rounding."""
    torch.manual_seed(0)
    model = get_peft_model(llama(initializer_range=0.3), LoraConfig(r=2, target_modules=["q_proj"]))
    ids = [torch.randint(3, 64, (3 + number % 7,)).tolist() for number in range(16)]
    ids[short] = ids[short][:2]
    rows = Dataset.from_dict({"input_ids": ids})
    selector, _ = select(model, rows, recheck_every=8, fraction=1.0, target_modules="auto")
    assert selector.collector.left_out == frozenset() and not selector.collector.one_at_a_time
    assert selector._passes.extractor.rechecked.rows == 2
    row = {"input_ids": torch.tensor([ids[short]]), "labels": torch.tensor([ids[short]])}
    assert selector.collector.truth(row)[0].norm() < 1e-5 * selector.sketch.singular_values[0]
