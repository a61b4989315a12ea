"""Rows are scored as a training reads them: those that are asked for, through its columns and its collator."""

import numpy as np
import pytest
from torch.utils.data import DataLoader

from sage_hf import SageConfig, SageSelector
from sage_hf.errors import DatasetError
from sage_hf.training.selector import TrainingSelector

from ..cases import image_rows, vit

SMALL = {"sketch_size": 16, "batch_size": 8, "shard_size": 16, "fraction": 0.3, "strategy": "agreement"}


def collate(rows):
    import torch

    return {
        "pixel_values": torch.tensor(np.array([row["pixel_values"] for row in rows], dtype=np.float32)),
        "labels": torch.tensor([row["label"] for row in rows]),
    }


def training_selector(rows, read=None, **changes):
    loader = DataLoader(read or rows, collate_fn=collate)
    config = SageConfig(**{**SMALL, **changes})
    return TrainingSelector(vit(), loader, rows, loss_function=None, config=config, progress=False)


def test_a_target_is_scored_by_its_own_rows_and_not_by_those_of_the_training():
    rows, target = image_rows(40), image_rows(12, seed=7)
    wanted = SageSelector(vit(), config=SageConfig(**SMALL), progress=False).select(rows, target=target)
    found = training_selector(rows).select(rows, target=target)
    assert np.allclose(found.scores, wanted.scores, atol=1e-5)
    assert np.array_equal(found.indices, wanted.indices)


def test_a_target_is_read_with_the_columns_that_the_training_reads():
    rows, target = image_rows(40), image_rows(12, seed=7).add_column("note", ["x"] * 12)
    wide = rows.add_column("note", ["y"] * 40)
    found = training_selector(wide, wide.remove_columns("note")).select(wide, target=target)
    assert np.array_equal(found.scores, training_selector(rows).select(rows, target=target).scores)
    with pytest.raises(DatasetError, match=r"no columns \['pixel_values'\]"):
        training_selector(rows).select(rows, target=target.remove_columns("pixel_values"))
