"""Nothing in the tests may reach the network, and nothing may be random without a seed."""

import os

# test_hub.py runs the tests of on_hub in a process whose Hub is on loopback.
os.environ["HF_HUB_OFFLINE"] = "0" if os.environ.get("HF_ENDPOINT", "").startswith("http://127.0.0.1:") else "1"
os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_HUB_OFFLINE"]
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from hypothesis import HealthCheck, settings
from transformers.utils import logging

HAS_FAKE_HUB = os.environ["HF_HUB_OFFLINE"] == "0"
settings.register_profile("sage", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sage")
logging.set_verbosity_error()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_warm_ups(monkeypatch, tmp_path):
    """Warm-ups of a test are not those of another, nor the user's."""
    monkeypatch.setattr("sage_hf.training.warmup.WARM_UPS", tmp_path / "warm-ups")
