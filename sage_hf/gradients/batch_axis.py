"""The row axis of a batch: how many rows there are, and some of them as a batch of their own.

Tensors have the row first, lists and tuples one entry a row (boxes, masks). Images of a vision-language processor may
lie in one long run of patches without a row axis; how many belong to which row is told by their sizes and by the image
tokens in the row's text.

Axes: B rows of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import BatchAxisError

Batch = Mapping[str, Any]

# Batch keys that only collators which glue rows together write, and the options that ask for them.
_PACKING_KEYS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "seq_idx", "cu_seqlens")
# A run of patches, and the (time, height, width) in patches of each image or video in it.
_PATCHES = {"pixel_values": "image_grid_thw", "pixel_values_videos": "video_grid_thw"}
# What losses leave out of labels.
_IGNORED = -100
# Patches that become one token, along an edge: what the processors of transformers merge.
_MERGES = (1, 2, 3, 4)


def batch_rows(batch: Batch) -> int:
    """B, the first dimension that the batch's tensors and lists share.

    Raises:
        BatchAxisError: They share none, or the batch was packed into one long row, or an entry is a container that
            cannot be cut into rows.
    """
    packed = [key for key in _PACKING_KEYS if key in batch]
    if packed:
        raise BatchAxisError(
            f"The collator packed the rows into one sequence (it wrote {packed}), so a row has no gradient of its own",
            where="data_collator",
            fix="Score unpacked rows: set padding_free=False and packing=False, or use a padding collator.",
        )
    without_rows = _run_keys(batch)
    sizes = {key: size for key, value in batch.items() if key not in without_rows and (size := _length(key, value))}
    if len(set(sizes.values())) != 1:
        raise BatchAxisError(
            f"The batch's tensors do not share a first axis: {sizes}" if sizes else "The batch holds no tensor",
            where="data_collator",
            fix="Return tensors whose first axis is the row (no packing, no padding_free).",
        )
    return next(iter(sizes.values()))


def rows_of(batch: Batch, part: slice | Sequence[int]) -> dict[str, Any]:
    """Some rows of a batch as a batch of their own; what has no row axis stays as it is.

    Raises:
        BatchAxisError: As for `batch_rows`, or the patches of images cannot be told apart into rows.
    """
    size = batch_rows(batch)
    chosen = list(range(size)[part]) if isinstance(part, slice) else list(part)
    runs = _run_keys(batch)
    cut = {key: _cut(value, size, part, chosen) for key, value in batch.items() if key not in runs}
    for patches, grid in _PATCHES.items():
        if grid in batch and patches in batch:
            cut |= _cut_run(batch, patches, grid, size, chosen)
    return {key: cut[key] for key in batch}


def is_uneven_run(batch: Batch) -> bool:
    """Whether images lie in a run in which rows have unequal numbers of patches, so that no axis separates them."""
    size = batch_rows(batch)
    for patches, grid in _PATCHES.items():
        if grid in batch and patches in batch:
            counts = batch[grid].prod(1).tolist()
            images = _images_of_rows(batch, grid, size)
            if len({tuple(counts[number] for number in row) for row in images}) > 1:
                return True
    return False


def unpadded_lengths(batch: Batch) -> frozenset[int]:
    """How many entries a batch's [B, T] masks, labels and ids leave, where they leave out any.

    A tensor with as many entries on its first axis is a run of all rows' tokens, of whatever length each row is.
    """
    lengths = set()
    for value in batch.values():
        if isinstance(value, Tensor) and value.ndim == 2 and not value.is_floating_point():
            for left_out in (0, _IGNORED):
                left = int((value != left_out).sum())
                if value.shape[0] < left < value.numel():
                    lengths.add(left)
    return frozenset(lengths)


def _length(key: str, value: Any) -> int:
    """Rows of a batch's entry; 0 of one that has no row axis."""
    if isinstance(value, (Tensor, np.ndarray)):
        return int(value.shape[0]) if value.ndim else 0
    if isinstance(value, (list, tuple)):
        return len(value)
    if value is None or isinstance(value, (str, bytes, bool, int, float)):
        return 0
    raise BatchAxisError(
        f"The entry {key!r} of the batch is a {type(value).__name__}, which cannot be cut into rows",
        where="data_collator",
        fix="Return tensors whose first axis is the row, or lists with one entry a row.",
    )


def _cut(value: Any, size: int, part: slice | Sequence[int], chosen: list[int]) -> Any:
    if isinstance(value, (Tensor, np.ndarray)):
        if value.ndim == 0 or value.shape[0] != size:
            return value
        return value[part] if isinstance(part, slice) else value[chosen]
    if isinstance(value, (list, tuple)) and len(value) == size:
        return type(value)([value[index] for index in chosen])
    return value


# ------------------------------------------------------------------- runs of patches
def _run_keys(batch: Batch) -> set[str]:
    return {key for pair in _PATCHES.items() if pair[1] in batch for key in pair}


def _cut_run(batch: Batch, patches: str, grid: str, size: int, chosen: list[int]) -> dict[str, Any]:
    rows = _images_of_rows(batch, grid, size)
    lengths = batch[grid].prod(1).tolist()
    ends = np.cumsum(lengths).tolist()
    images = [number for index in chosen for number in rows[index]]
    if not images:
        return {patches: None, grid: None}
    parts = [batch[patches][ends[number] - lengths[number] : ends[number]] for number in images]
    return {patches: torch.cat(parts), grid: batch[grid][images]}


def _images_of_rows(batch: Batch, grid: str, size: int) -> list[list[int]]:
    """Numbers of the images in each row, in the order of the run."""
    counts: list[int] = batch[grid].prod(1).tolist()
    if size == 1:
        return [list(range(len(counts)))]
    ids = batch.get("input_ids")
    deals: list[list[list[int]]] = []
    if isinstance(ids, Tensor):
        words, totals = ids.unique(return_counts=True)
        runs = [
            [[run * merge**2 for run in _runs(row == word)] for row in ids]
            for merge in _MERGES
            for word in words[totals * merge**2 == sum(counts)].tolist()
        ]
        # An image has a run of tokens of its own, or several share one.
        for most in (1, len(counts)):
            deals = [dealt for own in runs if (dealt := _dealt(counts, own, most)) is not None]
            if deals:
                break
    if deals and all(dealt == deals[0] for dealt in deals):
        return deals[0]
    if not deals and len(counts) == size:
        return [[number] for number in range(size)]
    raise BatchAxisError(
        f"{len(counts)} images share one sequence of patches, and it is not told which of the {size} rows each is of",
        where=f"data_collator, {grid}",
        fix="Score with batch_size=1, or return one image a row.",
    )


def _runs(seen: Tensor) -> list[int]:
    """Lengths of the runs of true entries."""
    edges = torch.nn.functional.pad(seen.int(), (1, 1)).diff()
    starts, stops = ((edges == step).nonzero().flatten() for step in (1, -1))
    return (stops - starts).tolist()


def _dealt(counts: list[int], runs: list[list[int]], most: int) -> list[list[int]] | None:
    """Each row's images, where every run of its tokens stands for at most so many; None where they do not fit."""
    left = list(enumerate(counts))
    rows = []
    for own in runs:
        row = []
        for patches in own:
            taken = 0
            while patches > 0 and left and taken < most:
                number, count = left.pop(0)
                row.append(number)
                patches -= count
                taken += 1
            if patches:
                return None
        rows.append(row)
    return None if left else rows
