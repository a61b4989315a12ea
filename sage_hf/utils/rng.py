"""Random state: seeded while sage_hf works, and as it was afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate.utils import set_seed


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seeds Python, NumPy and torch on entry and puts their states back on exit, also after an exception."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices), _restored():
        set_seed(seed % 2**32)
        yield


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """As `isolated_rng`, on the CPU alone: for transforms and collators, without a look at the device's state."""
    with default_seed(seed), _restored():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield


@contextmanager
def default_seed(seed: int) -> Iterator[None]:
    """torch's CPU generator as if seeded with `seed`, and as before on exit: random samplers read the seed from it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def _restored() -> Iterator[None]:
    """The states of Python and NumPy are put back on exit."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
