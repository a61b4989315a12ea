"""The check against rows alone, and a few batches by the clock, with rows that can be used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import SageConfig
from ..data.batches import RowSource
from ..data.status import NOT_FINITE, SCORED, ZERO_GRADIENT
from ..errors import SageError
from ..gradients import GradientCollector
from ..gradients.batch_axis import batch_rows
from ..passes.check import check_gradients
from ..passes.embeddings import EmbeddingReader
from ..passes.extractor import GradientExtractor
from ..passes.job import PassSettings
from ..passes.run import Passes
from ..scoring.agreement import Consensus
from ..scoring.sketch import FrequentDirections
from ..selection.choice import needed
from .findings import CheckFindings, Problem, TimeFindings
from .spaces import rows_fit

# Batches by the clock, after one to warm up.
_TIMED = 3


@contextmanager
def collected(problems: list[Problem], where: str) -> Iterator[None]:
    """Whatever ends in an error inside, as a problem: a diagnosis goes on."""
    try:
        yield
    except SageError as error:
        problems.append(Problem("error", error.what, error.where, error.fix))
    except Exception as error:  # of the user's model or collator
        line = (str(error).strip() or "no message").splitlines()[0]
        fix = "Run the model on one batch of these rows, and fix what fails."
        problems.append(Problem("error", f"{type(error).__name__}: {line}", where, fix))


def run_check(collector: GradientCollector, source: RowSource, problems: list[Problem]) -> CheckFindings:
    """Compares rows of a batch with the same rows alone, as a selection does before its first pass."""
    refused: list[Problem] = []
    with collected(refused, "the forward pass, or the collator"):
        check_gradients([collector], source)
    seconds = collector.check_seconds
    if refused:
        problems += refused
        return CheckFindings("refused", refused[0].what, seconds)
    if not collector.one_at_a_time:
        return CheckFindings("whole batches", "", seconds)
    reason = collector.why_one_at_a_time
    fix = (
        "Nothing, if the time below is fine. Else use a model, a head or target_modules in which the rows of a batch "
        "do not affect each other."
    )
    what = f"Rows are taken one at a time, which is right but slow: {reason}"
    problems.append(Problem("warning", what, "model.forward", fix))
    return CheckFindings("one at a time", reason, seconds)


@dataclass
class Clock:
    """Times what selections do with batches.

    Attributes:
        collector: The collector, after its check.
        config: The settings.
        source: Rows that can be used.
        groups: G, the number of groups.
        width: H, the numbers of an embedding; 0 until it is known, and where none is needed.
    """

    collector: GradientCollector
    config: SageConfig
    source: RowSource
    groups: int
    width: int = 0

    def measure(self, rows: int, problems: list[Problem]) -> TimeFindings:
        """What three batches take, and so `rows` rows; adds to the problems whether their gradients can be used."""
        started = time.perf_counter()
        batches, made = self._batches()
        encode = (time.perf_counter() - started) / max(1, made)
        reader = None
        if needed(self.config) & {"embeddings", "el2n"}:
            reader = EmbeddingReader(self.collector.model, self.collector.device, batches[0], self.config.seed)
            self.width = reader.width + reader.input_width
        passes = Passes(GradientExtractor(self.collector, 0, reader), PassSettings(self.config.seed, progress=False))
        consensus = Consensus(1, self.collector.width, device=self.collector.device)
        statuses = []

        def fit(batch: dict[str, Any]) -> None:
            extracted = passes.extract(batch)
            consensus.update(extracted.vectors, torch.zeros(len(extracted.vectors), dtype=torch.long))
            statuses.append(extracted.status)

        counted = sum(batch_rows(batch) for batch in batches)
        middle = batches[len(batches) // 2]
        fit(middle)  # to warm up
        gradient = self._seconds(fit, batches) / counted
        problems += _unusable(torch.cat(statuses[1:]))  # the first was to warm up
        sketch = self._sketch_seconds()
        turns = 1 if rows_fit(self.config, rows, self.collector.width, self.width) else 2
        total = rows * (turns * (encode + gradient) + sketch)
        return TimeFindings(
            batches=len(batches),
            rows=counted,
            encode_seconds=encode,
            gradient_seconds=gradient,
            sketch_seconds=sketch,
            gradient_passes=turns,
            seconds=total,
        )

    def _batches(self) -> tuple[list[dict[str, Any]], int]:
        """Batches from all over a shard, long ones and short ones; and how many rows were encoded for them."""
        units = self.source.units(range(min(len(self.source.dataset), self.source.shard_size)))
        units = [units[place] for place in _spread(len(units))]
        batches = [batch for unit in units for _, batch in self.source.make(unit) if batch is not None]
        return [batches[place] for place in _spread(len(batches))], sum(len(unit) for unit in units)

    def _sketch_seconds(self) -> float:
        """What a row costs in a sketch that is full, which shrinks once for as many rows as it has."""
        size, most = int(self.config.sketch_size), int(self.config.batch_size)
        sketch = FrequentDirections(size, self.collector.width, device=self.collector.device)
        rows = torch.randn(min(size, most), self.collector.width, device=self.collector.device)
        for _ in range(-(-2 * size // len(rows))):
            sketch.update(rows)
        turns = -(-size // len(rows))
        return self._seconds(sketch.update, [rows] * turns) / (turns * len(rows))

    def _seconds(self, take: Callable[[Any], Any], parts: Sequence[Any]) -> float:
        """Seconds that all parts take."""
        self._wait()
        started = time.perf_counter()
        for part in parts:
            take(part)
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.collector.device.type == "cuda":
            torch.cuda.synchronize(self.collector.device)


def _spread(count: int) -> list[int]:
    """Places of three of so many things, in the middles of thirds; of fewer, all."""
    return sorted({int(place) for place in (np.arange(_TIMED) + 0.5) / _TIMED * count})


def _unusable(statuses: Tensor) -> Iterator[Problem]:
    """Rows of the timed batches that a selection would set aside."""
    for status, what, fix in (
        (NOT_FINITE, "have a loss or gradient that is not finite", "Use float32, and look at the model's weights."),
        (ZERO_GRADIENT, "have a gradient of zero", "Look at the labels (all masked?) and at the targeted layers."),
    ):
        if count := int((statuses == status).sum()):
            what = f"{count:,} of {len(statuses):,} rows of the timed batches {what}: such rows are set aside"
            yield Problem("warning" if (statuses == SCORED).any() else "error", what, "model.forward", fix)
