"""The memory and the disk that a selection takes, against what is free."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from datasets.config import HF_DATASETS_CACHE

from ..config import CACHE_DTYPES, SageConfig
from ..gradients import GradientCollector
from ..passes.gradient_cache import DISK_SHARE, cache_bytes
from ..passes.kept_rows import Widths
from ..passes.memory import Memory, free_bytes, is_streaming
from ..selection.choice import needed
from ..utils.files import free_disk
from .findings import Problem, Space
from .text import size

_NARROWER = 'Use projection="auto" or a smaller side, fewer target modules, or a smaller sketch or batch.'
_ELSEWHERE = 'Set TMPDIR to a larger disk, or use strategy="agreement", which needs no file.'
_LESS = 'Use cache_gradients="auto", a narrower projection, or another cache_dir.'


def find_spaces(
    config: SageConfig, collector: GradientCollector, rows: int | None, groups: int, embedding: int
) -> tuple[Space, ...]:
    """What a selection takes beside the model and its activations.

    Args:
        config: The settings.
        collector: Tells the width of rows, and the device.
        rows: N, the number of rows; None without a dataset, where nothing is known of files.
        groups: G, the number of groups.
        embedding: H, numbers of an embedding; 0 where none is kept, or its width is not known.
    """
    shards = 1 if rows is None else -(-rows // config.shard_size)
    streaming = is_streaming(config, groups, collector.width)
    memory = Memory.of(config, collector.width, shards, groups if streaming else 0)
    free = free_bytes(collector.device)
    what = "Sketches, consensus and the rows of a batch"
    spaces = [Space(what, memory.needed, free, "memory", True, memory.fits(free), _NARROWER)]
    if rows is None:
        return tuple(spaces)
    place = Path(tempfile.gettempdir())
    if needed(config) or not streaming:
        what = f"Temporary file of the strategy {config.strategy}"
        taken = rows * Widths(int(config.sketch_size), embedding).record.itemsize
        spaces.append(_on_disk(what, taken, place, True, _ELSEWHERE))
    if config.cache_gradients in CACHE_DTYPES:
        what, place = f"Gradient rows, cache_gradients {config.cache_gradients}", Path(HF_DATASETS_CACHE) / "sage_hf"
        taken = cache_bytes(rows, collector.width, config.cache_gradients, embedding)
        spaces.append(_on_disk(what, taken, place, True, _LESS))
    elif config.cache_gradients == "auto":
        used = rows_fit(config, rows, collector.width, embedding)
        taken = cache_bytes(rows, collector.width, "float16", embedding)
        spaces.append(_on_disk("Temporary file of gradient rows", taken, place, used, _LESS))
    return tuple(spaces)


def rows_fit(config: SageConfig, rows: int, width: int, embedding: int) -> bool:
    """Whether all gradient rows go into a file, so that one pass over the model is enough.

    Args:
        config: The settings.
        rows: N.
        width: D.
        embedding: As of `find_spaces`.
    """
    if config.cache_gradients != "auto":
        return config.cache_gradients is not None
    room = DISK_SHARE * free_disk(Path(tempfile.gettempdir()))
    return cache_bytes(rows, width, "float16", embedding) <= room


def space_problems(spaces: tuple[Space, ...]) -> Iterator[Problem]:
    """What has no room, of what a selection would take."""
    for each in spaces:
        if each.used and not each.fits:
            what = f"{each.what} take {size(each.needed)}, and {size(each.free)} are free"
            yield Problem("error", what, each.place, each.fix)


def _on_disk(what: str, taken: int, place: Path, used: bool, fix: str) -> Space:
    free = free_disk(place)
    return Space(what, taken, free, str(place), used, taken <= free, fix)
