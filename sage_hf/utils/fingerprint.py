"""Short hashes of what a model and a dataset hold.

A model's pickle is not what a model is to a cache: it changes with a hook. A dataset's own fingerprint tells how it
was made, and differs for the same rows after another way to them; its digest tells what the rows are.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import xxhash
from datasets import Dataset
from torch import nn
from torch.distributed.tensor import DTensor

from .bars import advance, at


def model_fingerprint(model: nn.Module, *, buffers: bool = True) -> str:
    """16 hexadecimal digits from the names, types, shapes and bytes of all parameters, and buffers if wanted."""
    digest, state = xxhash.xxh64(), model.state_dict() if buffers else dict(model.named_parameters())
    at("hashing weights", len(state), "tensors")
    for name, tensor in sorted(state.items()):
        advance()
        if not isinstance(tensor, torch.Tensor):  # a module's extra state
            digest.update(f"{name} {tensor!r}".encode())
            continue
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()  # every process gathers it
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# Rows whose content a digest reads.
_DIGEST_ROWS = 256


def dataset_digest(dataset: Dataset) -> str:
    """16 hexadecimal digits from the number of rows, the column names and the content of 256 rows evenly spread.

    The same wherever and however the dataset was made. Reads rows as they are stored: images stay encoded, no
    transform runs.
    """
    at("hashing rows")
    digest = xxhash.xxh64(f"{len(dataset)} {sorted(dataset.column_names)}".encode())
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), _DIGEST_ROWS)).round().astype(np.int64))
    stored = dataset.with_format("arrow")[rows.tolist()].combine_chunks()  # lists come quickly out of one chunk
    for name in sorted(stored.column_names):
        digest.update(repr(stored.column(name).to_pylist()).encode())
    return digest.hexdigest()


# Rows that are hashed at once.
_HASHED_ROWS = 256


def content_digest(dataset: Dataset) -> str:
    """32 hexadecimal digits from all rows, in their order, as they are stored: gigabytes a second.

    Of images that are stored as paths, the paths count. Two datasets of the same rows may differ in it where their
    columns are stored in other types; the same dataset does not.
    """
    digest = xxhash.xxh3_128(repr(sorted(dataset.column_names)).encode())
    stored = dataset.with_format("arrow").select_columns(sorted(dataset.column_names))
    for rows in stored.iter(_HASHED_ROWS):
        sink = pa.BufferOutputStream()
        rows = rows.combine_chunks().replace_schema_metadata(None)
        with pa.ipc.new_stream(sink, rows.schema) as writer:  # without what a slice's buffers hold beside it
            writer.write_table(rows)
        digest.update(memoryview(sink.getvalue()))
    return digest.hexdigest()


def settled(thing: Any) -> Any:
    """A tokenizer, or a processor that has one, without what it was called with last, which stays in it."""
    tokenizer = getattr(thing, "tokenizer", thing)
    if not hasattr(tokenizer, "backend_tokenizer"):
        return thing
    thing = copy.deepcopy(thing)
    backend = getattr(thing, "tokenizer", thing).backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return thing
