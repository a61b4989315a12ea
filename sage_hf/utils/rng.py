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
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            set_seed(seed % 2**32)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """As `isolated_rng`, on the CPU alone: for transforms and collators, without a look at the device's state."""
    python, numpy, state = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.random.set_rng_state(state)


@contextmanager
def default_seed(seed: int) -> Iterator[None]:
    """torch's CPU generator as if seeded with `seed`, and as before on exit: random samplers read the seed from it."""
    state = torch.random.get_rng_state()
    try:
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        torch.random.set_rng_state(state)
