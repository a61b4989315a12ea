"""What `dataset.map` needs of a function that scores rows: values that may be null, and a hash instead of a pickle."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import SageError


def cannot_travel(fingerprint: str) -> Any:
    """What a pickled selector is made of: its hash names a cache file, and nothing comes back of it.

    Raises:
        SageError: Always.
    """
    raise SageError(
        f"A selector cannot be sent to another process (it is {fingerprint})",
        where="dataset.map(num_proc=...)",
        fix="Call map without num_proc; a model scores its rows in batches, in this process.",
    )


def nullable(values: npt.NDArray[np.float32]) -> list[float | None]:
    """Numbers as `datasets` keeps them: None for NaN."""
    return [None if np.isnan(value) else float(value) for value in values]
