"""What determines the files of a run: computed once, because hashing weights and rows takes a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from datasets import Dataset
from datasets.fingerprint import Hasher

from ..config import GRADIENT_SETTINGS, SageConfig
from ..data.encoding import Row
from ..gradients import GradientCollector
from ..utils.fingerprint import dataset_digest, model_fingerprint, settled


@dataclass(frozen=True)
class RunKey:
    """A model, rows and the settings that gradients depend on.

    Attributes:
        model: Fingerprint of the weights.
        digest: Of a dataset's rows; None of a stream.
        rest: Hash of everything else.
    """

    model: str
    digest: str | None
    rest: str

    @classmethod
    def of(
        cls,
        collector: GradientCollector,
        config: SageConfig,
        rows: Dataset | Row | None,
        outside: Sequence[Any],
    ) -> RunKey:
        """The key of a run.

        Args:
            collector: Its model's weights count, and its kind of device, because kinds round differently.
            config: The settings; budget, strategy and balance are free.
            rows: A dataset, by its fingerprint and some of its rows; or the first row of a stream, whose others are
                compared when they are read.
            outside: What else the user gave: processor, collator, loss function.
        """
        versions = (torch.__version__, transformers.__version__, collector.device.type)
        settings = {name: getattr(config, name) for name in GRADIENT_SETTINGS}
        identity = rows._fingerprint if isinstance(rows, Dataset) else rows
        return cls(
            model_fingerprint(collector.model),
            dataset_digest(rows) if isinstance(rows, Dataset) else None,
            Hasher.hash((versions, settings, identity, [settled(thing) for thing in outside])),
        )

    def folder(self, **more: Any) -> str:
        """The name of a folder for what depends on this, and on more: 16 hexadecimal digits."""
        return Hasher.hash((self.model, self.digest, self.rest, more))
