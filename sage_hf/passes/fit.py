"""What the first pass finds: the sketch of all gradients, and the consensus of each group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..data.groups import Groups
from ..scoring.sketch import FrequentDirections
from ..strategies.coverage import spectrum_weights
from .consensus import GroupConsensus
from .run_key import RunKey


@dataclass(frozen=True)
class Fit:
    """The result of the first pass, from which any row can be scored.

    Attributes:
        sketch: Of all gradients.
        matrix: S [l, D], as rows are projected: its largest singular value is 1.
        spectrum: [l] float32, singular values of the sketch, the largest 1.
        consensus: Groups, and the direction that each agrees on.
        is_streaming: Whether the consensus was summed in the first pass.
        status: [N] uint8, whether each row is scored or why it is set aside; empty of a stream.
        rows: N.
        digests: Of the shards of a stream.
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
    run_key: RunKey
    seconds: float

    @property
    def groups(self) -> Groups:
        """The groups of the rows."""
        return self.consensus.groups

    @property
    def directions(self) -> Tensor:
        """[G, l] unit consensus directions."""
        return self.consensus.directions


def sketch_matrix(sketch: FrequentDirections, spectrum_power: float | None) -> tuple[Tensor, npt.NDArray[np.float32]]:
    """`Fit.matrix` and `Fit.spectrum` of a sketch.

    Only directions of z count after the first pass: a sketch of length 1 keeps huge gradients from overflowing.

    Args:
        sketch: Of all gradients.
        spectrum_power: What its singular values are raised to; None for 1.
    """
    largest = sketch.singular_values[0]
    matrix = sketch.sketch / largest.to(sketch.dtype)
    spectrum = (sketch.singular_values / largest).float().cpu().numpy()
    if spectrum_power is not None:
        weights = spectrum_weights(spectrum, spectrum_power - 1.0)
        matrix = matrix * torch.from_numpy(weights).to(matrix)[:, None]
    return matrix, spectrum
