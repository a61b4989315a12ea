"""The fake Hub, and small things to push to it."""

import pytest

from sage_hf import SageConfig, SageSelector
from tests.conftest import HAS_FAKE_HUB

from ...cases import image_rows, vit

collect_ignore_glob = [] if HAS_FAKE_HUB else ["test_*.py"]
SMALL = {"strategy": "agreement", "fraction": 0.3, "sketch_size": 8, "batch_size": 5, "shard_size": 8}


@pytest.fixture
def hub(monkeypatch):
    from .plugin import HUB

    HUB.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    return HUB


def choose(rows, **settings):
    return SageSelector(vit(), config=SageConfig(**{**SMALL, **settings}), progress=False).select(rows)


@pytest.fixture(scope="session")
def selection():
    """Of rows in memory, which no Hub knows."""
    return choose(image_rows(40))
