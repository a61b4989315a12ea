"""What the sketches of a pass take, before they take it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import psutil
import torch

from ..config import CACHE_DTYPES, CLUSTERS, SageConfig
from ..errors import ConfigError
from ..utils.bars import is_main

logger = logging.getLogger(__name__)

# Bytes of streaming consensus sums (groups x D float64) above which the exact form, groups x l, is used instead.
_CONSENSUS_BYTES = 2**28
# So many shards a stream is thought to have: each doubling takes the memory of one more sketch.
STREAM_SHARDS = 2**12
# Share of the free memory that the sketches may take.
_SHARE = 0.8


@dataclass(frozen=True)
class Memory:
    """Bytes that a pass takes beside the model and its activations.

    Attributes:
        sketches: All partial sketches that are alive at once.
        consensus: The same of the sums of directions.
        rows: The gradient rows of a batch.
    """

    sketches: int
    consensus: int
    rows: int

    @classmethod
    def of(cls, config: SageConfig, width: int, shards: int, consensus: int) -> Memory:
        """What so many shards take; arguments as of `check_memory`."""
        alive = max(1, shards.bit_length())
        return cls(
            (2 + alive) * int(config.sketch_size) * width * 4,
            (1 + alive) * consensus * width * 8,
            int(config.batch_size) * width * 4,
        )

    @property
    def needed(self) -> int:
        """All of it."""
        return self.sketches + self.consensus + self.rows

    def fits(self, free: int) -> bool:
        """Whether so many free bytes are enough, with some left for all else."""
        return self.needed <= _SHARE * free


def free_bytes(device: torch.device) -> int:
    """The free memory of a device; of the machine, where it is none of its own."""
    return int(torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available)


def check_stream(config: SageConfig) -> None:
    """Refuses what needs the number of the rows, or to know a dataset again, in which a stream is no help.

    Raises:
        ConfigError: The settings need a Dataset.
    """
    wrong = None
    if config.consensus == "exact":
        wrong = 'consensus="exact" keeps the projections of a known number of rows'
    if config.cache_gradients in CACHE_DTYPES:
        wrong = "cache_gradients keeps rows under a dataset's fingerprint, and a stream has none"
    if config.group_by == CLUSTERS:
        wrong = "group_by finds clusters among rows side by side"
    if config.num_workers:
        wrong = "num_workers encode rows that are known by their numbers, and a stream's come one by one"
    if wrong:
        raise ConfigError(
            wrong,
            where=wrong.split()[0].partition("=")[0],
            fix="Leave it out, or make the stream a Dataset (Dataset.from_generator).",
        )


def is_streaming(config: SageConfig, groups: int, width: int) -> bool:
    """Whether the consensus is summed in the first pass; with many groups, sums of wide gradients are too large."""
    return config.consensus != "exact" and config.group_by != CLUSTERS and sums_fit(groups, width)


def plan_consensus(config: SageConfig, width: int, device: torch.device, shards: int, groups: int) -> None:
    """Checks that what the consensus of so many groups takes fits into the memory; arguments as of `check_memory`.

    Raises:
        ConfigError: It does not.
    """
    streaming = is_streaming(config, groups, width)
    if not streaming and is_streaming(config, 0, width) and is_main():
        size = groups * width * 8 >> 20
        logger.warning(
            "Directions of %d groups take %d MB: the exact consensus is used, in a third pass.", groups, size
        )
    check_memory(config, width, device, shards, groups if streaming else 0)


def sums_fit(groups: int, width: int) -> bool:
    """Whether so many sums of directions, so wide, may be held."""
    return groups * width * 8 <= _CONSENSUS_BYTES


def check_memory(config: SageConfig, width: int, device: torch.device, shards: int, consensus: int) -> None:
    """Says what a pass needs, and refuses what cannot fit.

    Args:
        config: The settings.
        width: D, the width of a gradient row.
        device: Where the sketches are.
        shards: Number of shards: log2 of them are alive at once.
        consensus: Number of D-wide directions that are summed in float64; 0 with the exact consensus.

    Raises:
        ConfigError: The sketches do not fit into the free memory.
    """
    needs = Memory.of(config, width, shards, consensus)
    sketches, rows, free = needs.sketches + needs.consensus, needs.rows, free_bytes(device)
    logger.info("Sketches of %d rows x %d take %d MB.", config.sketch_size, width, sketches >> 20)
    if not needs.fits(free):
        raise ConfigError(
            f"Sketches of {config.sketch_size} rows x {width} and batches of {config.batch_size} take "
            f"{(sketches + rows) >> 20} MB, and {free >> 20} MB are free",
            where="projection, sketch_size, batch_size",
            fix='Use projection="auto" or a smaller side, fewer target modules, or a smaller sketch or batch.',
        )
