"""What the first pass finds, the sketch of all gradients and the consensus of each group; and what it depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from datasets import Dataset
from datasets.fingerprint import Hasher
from torch import Tensor, nn

from ..data.encoding import Row
from ..data.groups import Groups
from ..data.longest import LongestRow
from ..scoring.sketch import FrequentDirections
from ..strategies.coverage import spectrum_weights
from ..utils.fingerprint import content_digest, dataset_digest, model_fingerprint, settled
from ..utils.shown import ShortRepr
from .consensus import GroupConsensus


@dataclass(frozen=True)
class RunKey:
    """What determines the files of a run; computed once, because hashing weights and rows takes a while.

    Attributes:
        model: Fingerprint of the weights.
        digest: Digest of a dataset's rows; None of a stream.
        rest: Hash of everything else.
    """

    model: str
    digest: str | None
    rest: str

    @classmethod
    def of(
        cls,
        model: nn.Module,
        rows: Dataset | Row | None,
        settings: Mapping[str, Any],
        outside: Sequence[Any],
        is_kept: bool = True,
    ) -> RunKey:
        """The key of a run.

        Args:
            model: Its weights count, and its kind of device, because kinds round differently.
            rows: A dataset, by its fingerprint and some of its rows; or the first row of a stream, whose others are
                compared when they are read.
            settings: Those that change what is made.
            outside: What else the user gave: processor, collator, loss function.
            is_kept: Whether there are files of the run, for which all rows of a dataset are read: its fingerprint
                tells how it was made, not what it holds now.
        """
        versions = (torch.__version__, transformers.__version__, next(model.parameters()).device.type)
        identity: Any = rows
        if isinstance(rows, Dataset):
            identity = (rows._fingerprint, content_digest(rows) if is_kept else None)
        return cls(
            model_fingerprint(model),
            dataset_digest(rows) if isinstance(rows, Dataset) else None,
            Hasher.hash((versions, dict(settings), identity, [settled(thing) for thing in outside])),
        )

    def folder(self, **more: Any) -> str:
        """The name of a folder for what depends on this, and on more: 16 hexadecimal digits."""
        return Hasher.hash((self.model, self.digest, self.rest, more))


@dataclass(frozen=True, repr=False)
class Fit(ShortRepr):
    """The result of the first pass, from which any row can be scored.

    Attributes:
        sketch: Sketch of all gradients.
        matrix: S [l, D], as rows are projected: its largest singular value is 1.
        spectrum: [l] float32, singular values of the sketch, the largest 1.
        consensus: Groups, and the direction that each agrees on.
        is_streaming: Whether the consensus was summed in the first pass.
        status: [N] uint8, whether each row is scored or why it is set aside; empty of a stream.
        rows: N.
        digests: Digests of the shards of a stream.
        group_rows: [G] int64, rows of each group that are scored; of a stream, too, whose rows nobody holds.
        longest: The longest row that was sketched; None where nobody knows, as of a run that an older version began.
        run_key: What all of this depends on.
        seconds: Time of the pass.
    """

    sketch: FrequentDirections
    matrix: Tensor
    spectrum: npt.NDArray[np.float32]
    consensus: GroupConsensus
    is_streaming: bool
    status: npt.NDArray[np.uint8]
    rows: int
    digests: list[int]
    group_rows: npt.NDArray[np.int64]
    longest: LongestRow | None
    run_key: RunKey
    seconds: float

    @property
    def groups(self) -> Groups:
        """The groups of the rows."""
        return self.consensus.groups

    @property
    def directions(self) -> Tensor:
        """[G, l] or [K, G, l] consensus directions, as of `GroupConsensus`."""
        return self.consensus.directions


def sketch_matrix(sketch: FrequentDirections, spectrum_power: float | None) -> tuple[Tensor, npt.NDArray[np.float32]]:
    """`Fit.matrix` and `Fit.spectrum` of a sketch, its singular values raised to a power (None for 1).

    Only directions of z count after the first pass: a sketch of length 1 keeps huge gradients from overflowing.
    """
    largest = sketch.singular_values[0]
    matrix = sketch.sketch / largest.to(sketch.dtype)
    spectrum = (sketch.singular_values / largest).float().cpu().numpy()
    if spectrum_power is not None:
        weights = spectrum_weights(spectrum, spectrum_power - 1.0)
        matrix = matrix * torch.from_numpy(weights).to(matrix)[:, None]
    return matrix, spectrum
