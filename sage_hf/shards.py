"""Partial results of logical shards, and the fixed tree along which they merge.

The cut into shards depends on the dataset and the configuration alone, and so does the tree; therefore the result is
the same to the bit whoever computes which shard. At most log2(shards) partial results are alive.
"""

from __future__ import annotations

from dataclasses import dataclass

from .agreement import Consensus
from .errors import SketchError
from .sketch import FrequentDirections


@dataclass
class Partial:
    """What a pass has gathered from some shards.

    Attributes:
        sketch: Of their gradients; None in a pass that only sums directions.
        consensus: Sums of their directions; None where these are not summed.
    """

    sketch: FrequentDirections | None = None
    consensus: Consensus | None = None

    def merge(self, other: Partial) -> None:
        """Adds the result of the shards that follow."""
        if self.sketch is not None and other.sketch is not None:
            self.sketch.merge(other.sketch)
        if self.consensus is not None and other.consensus is not None:
            self.consensus.merge(other.consensus)
        self.compact()

    def compact(self) -> None:
        """Gives back the memory that only a growing result needs."""
        if self.sketch is not None:
            self.sketch.compact()


class MergeTree:
    """A binary counter of partial results: two of one size merge into one of the next, in shard order."""

    def __init__(self) -> None:
        self._nodes: list[tuple[int, Partial]] = []

    def push(self, leaf: Partial) -> None:
        """Adds the next shard's result."""
        leaf.compact()
        size = 1
        while self._nodes and self._nodes[-1][0] == size:
            _, left = self._nodes.pop()
            left.merge(leaf)
            leaf, size = left, 2 * size
        self._nodes.append((size, leaf))

    def result(self) -> Partial:
        """All shards in one; smaller nodes, which are the later ones, first.

        Raises:
            SketchError: Nothing was pushed.
        """
        if not self._nodes:
            raise SketchError("No shard was finished", where="MergeTree", fix="Push at least one shard's result.")
        while len(self._nodes) > 1:
            size, right = self._nodes.pop()
            left_size, left = self._nodes.pop()
            left.merge(right)
            self._nodes.append((left_size + size, left))
        return self._nodes[0][1]
