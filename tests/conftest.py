"""Nothing in the tests may reach the network, and nothing may be random without a seed."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from hypothesis import HealthCheck, settings
from transformers.utils import logging

settings.register_profile("sage", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sage")
logging.set_verbosity_error()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
