"""Partial results of logical shards, and the fixed tree along which they merge.

The cut into shards depends on the dataset and the configuration alone, and so does the tree; therefore the result is
the same to the bit whoever computes which shard. At most log2(shards) partial results are alive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..errors import SketchError
from ..scoring.agreement import Consensus
from ..scoring.sketch import FrequentDirections


@dataclass
class Partial:
    """What a pass has gathered from some shards.

    Attributes:
        sketch: Sketch of their gradients; None in a pass that only sums directions.
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

    def state_dict(self) -> dict[str, Tensor]:
        """The whole state as tensors; a result restored from it merges bit for bit as this one."""
        parts = {"sketch": self.sketch, "consensus": self.consensus}
        return {
            f"{name}.{key}": value
            for name, part in parts.items()
            if part is not None
            for key, value in part.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replaces the state by one from `state_dict`; both must hold the same parts."""
        for name, part in (("sketch", self.sketch), ("consensus", self.consensus)):
            if part is not None:
                mine = {key.partition(".")[2]: value for key, value in state.items() if key.startswith(f"{name}.")}
                part.load_state_dict(mine)

    def compact(self) -> None:
        """Gives back the memory that only a growing result needs."""
        if self.sketch is not None:
            self.sketch.compact()


class MergeTree:
    """A binary counter of partial results: two neighbours of one size merge into one of the next, in shard order.

    Which shards a node may hold is fixed: runs of 2^k shards that begin at a multiple of 2^k. A tree over some of the
    shards holds the largest such runs in them, and becomes part of a tree over more of them node by node.

    Attributes:
        nodes: (first shard, shards, result) of every node, in shard order.
    """

    def __init__(self) -> None:
        self.nodes: list[tuple[int, int, Partial]] = []

    def push(self, node: Partial, start: int, size: int = 1) -> None:
        """Adds the result of the shards `start` to `start + size`, which follow those that are there."""
        node.compact()
        while self.nodes:
            left_start, left_size, left = self.nodes[-1]
            if left_size != size or left_start % (2 * size):
                break
            self.nodes.pop()
            left.merge(node)
            node, start, size = left, left_start, 2 * size
        self.nodes.append((start, size, node))

    def result(self) -> Partial:
        """All shards in one; smaller nodes, which are the later ones, first.

        Raises:
            SketchError: Nothing was pushed.
        """
        if not self.nodes:
            raise SketchError("No shard was finished", where="MergeTree", fix="Push at least one shard's result.")
        while len(self.nodes) > 1:
            _, size, right = self.nodes.pop()
            start, left_size, left = self.nodes.pop()
            left.merge(right)
            self.nodes.append((start, left_size + size, left))
        return self.nodes[0][2]
