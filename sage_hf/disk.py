"""A stream as a dataset on the disk."""

from __future__ import annotations

import uuid
from pathlib import Path

from datasets import Dataset, IterableDataset


def to_disk(stream: IterableDataset, folder: Path) -> Dataset:
    """Reads a stream to its end, in constant memory.

    Args:
        stream: The rows.
        folder: Where they are written to; the dataset reads from there.
    """
    rows = stream.with_format(None)
    # The fingerprint is given, because the hash of a stream would be a pickle of it.
    return Dataset.from_generator(
        rows.__iter__, features=rows.features, cache_dir=str(folder), fingerprint=uuid.uuid4().hex[:16]
    )
