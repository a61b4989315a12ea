"""A pass takes smaller batches where the device has no memory for larger ones, and the result is the same."""

import numpy as np
import pytest
import torch

from sage_hf import GradientCollector, SageConfig, SageError, SageSelector

from .cases import image_rows, vit


def limit(monkeypatch, rows):
    """A device on which more rows than this do not fit; returns the sizes that were tried."""
    collect, tried = GradientCollector.collect, []

    def limited(self, batch):
        tried.append(len(batch["pixel_values"]))
        if tried[-1] > rows:
            raise torch.OutOfMemoryError("full")
        return collect(self, batch)

    monkeypatch.setattr(GradientCollector, "collect", limited)
    return tried


def select(**changes):
    settings = {"fraction": 0.3, "sketch_size": 8, "batch_size": 16, "shard_size": 64, "check_gradients": False}
    return SageSelector(vit(), config=SageConfig(**{**settings, **changes})).select(image_rows(40))


@pytest.mark.parametrize("rows", [8, 5, 1])
def test_batches_are_halved_until_they_fit_and_stay_so(monkeypatch, caplog, rows):
    whole = select()
    tried = limit(monkeypatch, rows)
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
