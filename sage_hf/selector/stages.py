"""The stages of a selection, so that each says which it is of how many; and what is told of an interrupted one.

a dataset    preparing, one pass through the model, one over what it has kept, choosing
a stream     preparing, and two passes; rows are chosen while the second goes on, or after it
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config import CLUSTERS, SageConfig
from ..passes.run import Passes
from ..passes.target import Target
from ..selection.resolve import compares_rows
from ..utils.interruption import told_if_interrupted

PREPARING, SKETCHING, PROJECTING = "preparing", "sketching gradients", "projecting gradients"
FINDING, CLUSTERING = "finding clusters", "clustering rows"
READING_TARGET, SCORING_TARGETS = "reading the target", "scoring for targets"
KEEPING, SCORING = "scoring and keeping", "scoring agreement"
CHOOSING, WRITING, PUSHING = "choosing rows", "writing", "pushing to the Hub"


def num_targets(target: Target | None) -> int:
    """How many targets there are."""
    return len(target) if isinstance(target, Mapping) else int(target is not None)


def fit_stages(config: SageConfig, needs: Collection[str] | None, targets: int = 0) -> list[str]:
    """The stages of reading a dataset, up to the choice.

    Args:
        config: The settings; where "streaming" is not possible, this is known only when the groups are.
        needs: What is gathered besides scores; None of a first pass alone.
        targets: Number of targets.
    """
    stages = [PREPARING, SKETCHING]
    is_kept = config.group_by == CLUSTERS or config.consensus == "exact"
    if config.group_by == CLUSTERS:
        stages += [FINDING, CLUSTERING]
    elif config.consensus == "exact":
        stages.append(PROJECTING)
    if needs is None:
        return stages
    stages += [READING_TARGET] * targets
    if targets > 1 and (config.target_reduction == "nearest" or (config.target_reduction == "max" and not is_kept)):
        return [*stages, SCORING_TARGETS]
    return stages if is_kept else [*stages, KEEPING if needs else SCORING]


def stream_stages(config: SageConfig) -> list[str]:
    """The stages of a selection from a stream."""
    return [PREPARING, SKETCHING, KEEPING if compares_rows(config) else SCORING]


@contextmanager
def rows_of_run(selector: Any) -> Iterator[None]:
    """Inside, the gradient rows and the lock of a run; a killed or failed one leaves its rows in `resume_dir`.

    Args:
        selector: The selector, whose passes may be others at the end.
    """
    is_done = False
    try:
        with told_if_interrupted(selector._about_interruption):
            yield
        is_done = True
    finally:
        passes: Passes = selector._passes
        cache, passes.cache = passes.cache, None
        with selector._held:
            if cache is not None and selector.config.cache_gradients == "auto":
                if selector._resume_dir is None:
                    cache.remove()
                elif is_done:
                    passes.processes.wait()  # another process may read them still
                    if passes.processes.rank == 0:
                        cache.remove()


def about_kept(passes: Passes, resume_dir: Path | None) -> str:
    """What an interrupted selection leaves, and how it goes on."""
    if resume_dir is None:
        return "Nothing is kept. With resume_dir= (a folder), the same call would go on from the last finished shard."
    if not passes.kept:
        return f"No shard was finished; what {resume_dir} holds already is kept, and the same call goes on from there."
    return f"{passes.kept}. The same call goes on from there."
