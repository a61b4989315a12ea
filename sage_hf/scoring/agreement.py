"""Consensus directions and agreement scores (SAGE, arXiv 2510.02470, phase II).

Axes: B rows of a batch, D row width, l sketch size, G groups.

With z = S g the sketched gradient of an example and z^ = z / |z|, the paper's consensus of a set of examples is the
direction of the mean of their z^, and the agreement of an example is its cosine with that direction. CB-SAGE, the
class-balanced form, takes one consensus per class; `Consensus` takes one per group.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import SketchError


class Consensus:
    """A running sum of unit vectors per group, whose direction is the group's consensus.

    Fed with gradients g [B, D] it is the *streaming* consensus, u = unit(S sum_i g_i / |g_i|), known as soon as the
    first pass ends. Fed with sketched gradients z [B, l] it is the *exact* one of the paper,
    u = unit(sum_i z_i / |z_i|), which needs all z first. The streaming form weights each unit z_i by the share of g_i
    that the sketch holds.

    Memory is G x width float64 numbers. Sums of parts of a stream merge by addition.

    Args:
        num_groups: G, at least 1.
        width: D for the streaming form, l for the exact one.
        device: Where the sums live.
    """

    def __init__(self, num_groups: int, width: int, *, device: torch.device | str = "cpu") -> None:
        if num_groups < 1 or width < 1:
            raise SketchError(
                f"A consensus over {num_groups} groups of {width}-wide vectors does not exist",
                where="num_groups, width",
                fix="Give at least one group and one column.",
            )
        self.sums = torch.zeros(num_groups, width, dtype=torch.float64, device=device)

    def update(self, vectors: Tensor, groups: Tensor) -> None:
        """Adds each vector's direction to the sum of its group; zero and non-finite vectors add nothing.

        Args:
            vectors: [B, width].
            groups: [B] int64 in [0, G).
        """
        units = unit(vectors.detach().to(self.sums.device, torch.float64))
        units = torch.where(units.isfinite().all(1, keepdim=True), units, 0.0)
        groups = groups.to(self.sums.device)
        if self.sums.device.type == "cpu":  # one row after the other, whatever the batch or the number of groups
            self.sums.index_add_(0, groups, units)
            return
        # A product with the one-hot matrix, not index_add_: that one adds in a random order on CUDA.
        membership = groups[:, None] == torch.arange(self.sums.shape[0], device=self.sums.device)
        self.sums += membership.to(torch.float64).T @ units

    def merge(self, other: Consensus) -> None:
        """Adds the sums of another part of the stream; it may have met more groups, or fewer."""
        self.grow(len(other.sums))
        self.sums[: len(other.sums)] += other.sums.to(self.sums.device)

    def grow(self, num_groups: int) -> None:
        """Makes room for groups that a stream brings later; fewer than there are change nothing."""
        if num_groups > len(self.sums):
            more = self.sums.new_zeros(num_groups - len(self.sums), self.sums.shape[1])
            self.sums = torch.cat([self.sums, more])

    def directions(self, sketch: Tensor | None = None) -> Tensor:
        """The consensus directions u, [G, l], unit rows; a row of zeros for a group without examples.

        Args:
            sketch: S [l, D], to carry sums of gradients into the sketch (the streaming form); None when the sums are
                of sketched gradients already (the exact form).
        """
        sums = self.sums if sketch is None else self.sums @ sketch.to(self.sums).T
        return unit(sums)

    def state_dict(self) -> dict[str, Tensor]:
        """The sums, as a tensor [G, width] under `sums`."""
        return {"sums": self.sums.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replaces the sums by those of `state_dict`."""
        self.sums = state["sums"].to(self.sums).clone()


def agreement(z: Tensor, directions: Tensor, groups: Tensor) -> Tensor:
    """Agreement alpha_i = <z_i / |z_i|, u_g(i)> of sketched gradients with their group's consensus.

    Of several targets, it is the largest.

    1: the example pulls the weights exactly the way its group does on average. 0: unrelated, or nothing of its
    gradient is in the sketch. Negative: it pulls against its group, as wrong labels tend to.

    Args:
        z: [B, l] sketched gradients, g S^T.
        directions: [G, l] unit consensus directions, or their means over targets; or [K, G, l] of K targets.
        groups: [B] int64 in [0, G).

    Returns:
        [B] float32 in [-1, 1]; NaN where z is not finite.
    """
    scores = agreement_by_target(z, directions, groups)
    return scores.amax(0) if directions.ndim == 3 else scores


def agreement_by_target(z: Tensor, directions: Tensor, groups: Tensor) -> Tensor:
    """The same with every target, [K, B] for directions [K, G, l]; without targets, as `agreement`."""
    chosen = directions.to(z.device, torch.float64)[..., groups.to(z.device), :]
    scores = (unit(z.to(torch.float64)) * chosen).sum(-1)
    return scores.clamp(-1.0, 1.0).to(torch.float32)


def sketched(gradients: Tensor, matrix: Tensor) -> Tensor:
    """Z = S g / |g| of gradients [B, D] in a sketch [l, D]: [B, l], in the sketch's type."""
    return unit(gradients).to(matrix) @ matrix.T


def cut(vectors: Tensor, most: float | None) -> Tensor:
    """Rows [B, width], those longer than `most` scaled to that length; None leaves all as they are, to the bit."""
    if most is None:
        return vectors
    is_long = torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64) > most
    return torch.where(is_long[:, None], most * unit(vectors), vectors)


def unit(vectors: Tensor) -> Tensor:
    """Rows scaled to length 1, [B, width]; rows of zeros stay zeros, rows with NaN become NaN.

    Divides by the largest entry first, so that no finite row overflows or vanishes when it is squared.
    """
    largest = vectors.abs().amax(1, keepdim=True) if vectors.shape[1] else vectors.new_zeros(vectors.shape[0], 1)
    scaled = vectors / torch.where(largest > 0, largest, 1.0)
    length = scaled.norm(dim=1, keepdim=True)
    return scaled / torch.where(length > 0, length, 1.0)
