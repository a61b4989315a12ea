"""Two lines before a pass: what the gradients are of, and what the check of them came to.

They are logged with the level INFO; the shell prints them.
"""

from __future__ import annotations

import logging

from ..config import SageConfig
from ..gradients import GradientCollector
from ..gradients.layers.targets import trainable_weights
from ..passes.gradient_cache import GradientCache, cache_bytes

logger = logging.getLogger(__name__)


def say_targets(collector: GradientCollector, config: SageConfig) -> None:
    """Logs what rows are gradients of, how wide they are, and what a sketch of them takes."""
    taken = len(collector.blocks) - len(collector.left_out)
    trained = len(trainable_weights(collector.model))
    logger.info(
        "Gradients of %d of %d tensors (%s of the trainable weights), rows %s wide, a sketch of %s MB.",
        taken,
        trained,
        f"{collector.layout.share:.0%}".replace("%", " %"),
        f"{collector.width:,}",
        f"{2 * config.sketch_size * collector.width * 4 / 2**20:,.0f}",
    )


def say_check(collector: GradientCollector, config: SageConfig, is_cached: bool) -> None:
    """Logs what came of the check; that there was none, where all rows are cached or it is off."""
    if is_cached:
        logger.info("All gradient rows are in the cache: no check, and no forward pass for them.")
    elif not config.check_gradients:
        logger.info("Not checked: check_gradients is off.")
    elif collector.one_at_a_time:
        logger.info(
            "Checked in %.1f s: rows are taken one at a time, which is slow: %s.",
            collector.check_seconds,
            collector.why_one_at_a_time,
        )
    else:
        logger.info("Check passed in %.1f s: whole batches of %d rows.", collector.check_seconds, config.batch_size)


def say_rows(cache: GradientCache | None, rows: int | None, width: int, embedding_width: int) -> None:
    """Logs where gradient rows are kept and what they take; nothing where none are.

    Args:
        cache: Where; None for nowhere.
        rows: N; None of a stream.
        width: D.
        embedding_width: E; 0 for none.
    """
    if cache is None:
        return
    where = f"{cache.folder} ({'half' if cache.dtype.itemsize == 2 else 'full'} precision)"
    if rows is None:
        logger.info("Gradient rows go to %s, at most %s MB of them.", where, f"{(cache.room or 0) >> 20:,}")
        return
    needed = cache_bytes(rows, width, str(cache.dtype), embedding_width)
    room = cache.room if cache.room is not None else needed
    share = min(1.0, room / needed)
    rest = "one pass over the model" if share == 1 else f"{share:.0%} of them, so the others are computed twice"
    logger.info("Gradient rows take %s MB in %s: %s.", f"{needed >> 20:,}", where, rest)
