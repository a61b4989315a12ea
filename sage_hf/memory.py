"""What the sketches of a pass take, before they take it."""

from __future__ import annotations

import logging

import psutil
import torch

from .config import SageConfig
from .errors import ConfigError

logger = logging.getLogger(__name__)

# Share of the free memory that the sketches may take.
_SHARE = 0.8


def check_memory(config: SageConfig, width: int, device: torch.device, shards: int, consensus: int) -> None:
    """Says what a pass needs, and refuses what cannot fit.

    Args:
        config: The settings.
        width: D, the width of a gradient row.
        device: Where the sketches are.
        shards: How many there are: log2 of them are alive at once.
        consensus: How many D-wide directions are summed in float64; 0 with the exact consensus.

    Raises:
        ConfigError: The sketches do not fit into the free memory.
    """
    alive = max(1, shards.bit_length())
    sketches = (2 + alive) * config.sketch_size * width * 4 + (1 + alive) * consensus * width * 8
    rows = config.batch_size * width * 4
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    logger.info("Sketches of %d rows x %d take %d MB.", config.sketch_size, width, sketches >> 20)
    if sketches + rows > _SHARE * free:
        raise ConfigError(
            f"Sketches of {config.sketch_size} rows x {width} and batches of {config.batch_size} take "
            f"{(sketches + rows) >> 20} MB, and {free >> 20} MB are free",
            where="projection, sketch_size, batch_size",
            fix='Use projection="auto" or a smaller side, fewer target modules, or a smaller sketch or batch.',
        )
