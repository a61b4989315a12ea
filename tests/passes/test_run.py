"""A pass takes smaller batches where the device has no memory for larger ones, and waits for it once a shard."""

import traceback

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sage_hf import Consensus, FrequentDirections, GradientCollector, SageConfig, SageError, SageSelector
from sage_hf.passes.extractor import GradientExtractor
from sage_hf.passes.job import PassSettings
from sage_hf.passes.run import Passes

from ..cases import bert, image_rows, llama, lm_batch, token_batch, vit

FULL = (torch.OutOfMemoryError("full"), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"))


def limit(monkeypatch, rows, full=FULL[0]):
    """A device on which more rows than this do not fit; returns the sizes that were tried."""
    collect, tried = GradientCollector.collect, []

    def limited(self, batch):
        tried.append(len(batch["pixel_values"]))
        if tried[-1] > rows:
            raise full
        return collect(self, batch)

    monkeypatch.setattr(GradientCollector, "collect", limited)
    return tried


def select(**changes):
    settings = {
        "strategy": "agreement",
        "fraction": 0.3,
        "sketch_size": 8,
        "batch_size": 16,
        "shard_size": 64,
        "check_gradients": False,
    }
    return SageSelector(vit(), config=SageConfig(**{**settings, **changes})).select(image_rows(40))


@pytest.mark.parametrize(("rows", "full"), [(8, FULL[0]), (5, FULL[0]), (1, FULL[0]), (5, FULL[1])])
def test_batches_are_halved_until_they_fit_and_stay_so(monkeypatch, caplog, rows, full):
    whole = select()
    tried = limit(monkeypatch, rows, full)
    fitted = select()
    assert np.allclose(fitted.scores, whole.scores, atol=1e-5)
    assert np.allclose(fitted.losses, whole.losses, atol=1e-6)
    assert fitted.indices.tolist() == whole.indices.tolist()
    failed = [size for size in tried if size > rows]
    # 16, 8, 4, ... once each.
    assert failed == [16 // 2**power for power in range(len(failed))]
    assert caplog.text.count("with the same result") == len(failed)


def test_a_row_that_does_not_fit_alone_is_an_error(monkeypatch):
    limit(monkeypatch, 0)
    with pytest.raises(SageError, match="not enough for the gradients of one row") as caught:
        select()
    assert "batch_size" in caught.value.where


class NoWaits(TorchDispatchMode):
    """Fails where our code makes a GPU tell the host a value; transformers asks its masks, which is its own affair."""

    # They look at entries of the batch, which are still on the host.
    ON_HOST = ("_causal_lm_loss", "unpadded_lengths")
    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal.default", "unique")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(f"aten.{wait}" in str(function) for wait in self.WAITS):
            frames = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename]
            asked = [frame for frame in frames[:-1] if frame.name != "__torch_function__"][-1]
            assert "/sage_hf/" not in asked.filename or asked.name in self.ON_HOST, (function, asked)
        return function(*args, **(kwargs or {}))


def image_batch():
    rows = image_rows(6)
    return {"pixel_values": torch.tensor(rows["pixel_values"]), "labels": torch.tensor(rows["label"])}


@pytest.mark.parametrize(
    ("model", "batch"),
    [
        (vit, image_batch),
        (bert, lambda: {**token_batch(6), "labels": torch.arange(6) % 3}),
        (llama, lambda: lm_batch(6)),
    ],
)
def test_no_batch_waits_for_the_device(model, batch):
    collector = GradientCollector(model())
    passes = Passes(GradientExtractor(collector), PassSettings())
    sketch, sums = FrequentDirections(32, collector.width), Consensus(3, collector.width)
    given, codes = batch(), torch.arange(6) % 3
    passes.extract(given)  # the first batch looks at the model once
    sketch.update(torch.zeros(0, collector.width))
    with NoWaits():
        extracted = passes.extract(given)
        sketch.update(extracted.vectors)
        sums.update(extracted.vectors, codes)
    assert len(extracted.numbers) == len(extracted.status) == 6
