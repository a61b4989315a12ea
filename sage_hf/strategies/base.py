"""What every strategy is given, and how strategies are known by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..config import STRATEGY_LINES
from ..errors import ConfigError
from ..utils.columns import picked, places_by_code
from ..utils.shown import ShortRepr
from .jobs import JobRunner

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float32]

# What a strategy may need of each row besides its score, its loss and its group; each costs disk.
SIGNALS = ("norms", "sketched", "embeddings", "el2n")


class Vectors(Protocol):
    """A vector for each of M rows, in memory or on disk: an array [M, width] will do."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(M, width)."""

    def __getitem__(self, positions: Ints) -> Floats:
        """The vectors at some places, [len(positions), width]."""


class Derived:
    """Vectors that are made of others when they are asked for.

    Args:
        shape: (M, width).
        make: The vectors at some places.
    """

    def __init__(self, shape: tuple[int, ...], make: Callable[[Ints], Floats]) -> None:
        self.shape, self._make = shape, make

    def __getitem__(self, positions: Ints) -> Floats:
        return np.asarray(self._make(positions))


class PartOf(Derived):
    """Some of the rows of `Vectors`."""

    def __init__(self, whole: Vectors, positions: Ints) -> None:
        if isinstance(whole, PartOf):  # two arrays of places would take twice the memory
            positions, whole = picked(whole.positions, positions), whole.whole
        self.whole: Vectors = whole
        self.positions: Ints = positions
        super().__init__((len(positions), whole.shape[1]), lambda places: whole[positions[places]])


@dataclass(frozen=True, repr=False)
class Candidates(ShortRepr):
    """The rows that may be chosen: those that have a score and passed the gate.

    Attributes:
        rows: [M] int32 or int64, row numbers of the source dataset, ascending.
        scores: [M] float32 agreement in [-1, 1].
        losses: [M] float32, each row's own loss.
        groups: [M] integers of any size in [0, G), the groups that the quotas are for.
        norms: [M] float32, lengths of the gradients.
        sketched: [M, l], z = S g / |g|: column j is the coordinate of the gradient's direction along the sketch's
            direction j, times the singular value j to the power `spectrum_power` (1 where that is None).
        spectrum: [l] float32, the sketch's singular values, the largest 1.
        embeddings: [M, H], what the model's output layer is given of each row.
        el2n: [M] float32, |softmax(logits) - onehot(label)|, NaN where a row has no class.
        spectrum_power: What the user wants the singular values raised to; None leaves it to the strategy, which gets
            z as the paper has it.
        progress: Whether to show progress where it takes long.
        runner: What shares the work out over the processes. Every process calls the strategy with the same candidates,
            and the main one's rows count; a strategy may ignore the runner.

    What the strategy did not register for is None.
    """

    rows: Ints
    scores: Floats
    losses: Floats
    groups: Ints
    norms: Floats | None = None
    sketched: Vectors | None = None
    spectrum: Floats | None = None
    embeddings: Vectors | None = None
    el2n: Floats | None = None
    spectrum_power: float | None = None
    progress: bool = False
    runner: JobRunner = field(default_factory=JobRunner)

    def __len__(self) -> int:
        """M."""
        return len(self.rows)

    def where(self, positions: Ints) -> Candidates:
        """Those at some places, ascending."""
        vectors = {name: getattr(self, name) for name in ("sketched", "embeddings")}
        numbers = {name: getattr(self, name) for name in ("rows", "scores", "losses", "groups", "norms", "el2n")}
        parts: dict[str, Any] = {name: PartOf(each, positions) for name, each in vectors.items() if each is not None}
        parts |= {name: picked(each, positions) for name, each in numbers.items() if each is not None}
        return replace(self, **parts)


# Judges every row by itself: (scores [M] float32, generator) -> [M], higher is better, in [-1, 1]. Called for parts of
# the rows in their order, with one generator, it must give what it gives for all of them at once.
Merit = Callable[[Floats, np.random.Generator], npt.NDArray[np.floating]]

# (candidates, quotas [G], seed) -> exactly quotas.sum() distinct row numbers, ascending, quotas[g] of group g.
Choose = Callable[[Candidates, Ints, int], Ints]


@dataclass(frozen=True)
class Strategy:
    """A rule that turns what is known of the rows into the rows to keep; call it as `Choose`.

    Attributes:
        choose: The function.
        needs: Those of `SIGNALS` that it reads.
        gated: Whether `gate="auto"` takes likely wrong rows out before it.
        merit: What it goes by where rows pass by one at a time; None where it must see them side by side.
    """

    choose: Choose
    needs: frozenset[str] = frozenset()
    gated: bool = False
    merit: Merit | None = None

    def __call__(self, candidates: Candidates, quotas: Ints, seed: int) -> Ints:
        """The rows to keep."""
        return self.choose(candidates, quotas, seed)


STRATEGIES: dict[str, Strategy] = {}


def register_strategy(
    name: str, *, needs: Iterable[str] = (), gated: bool = False, merit: Merit | None = None
) -> Callable[[Choose], Choose]:
    """Registers a function as `SageConfig(strategy=name)`; all strategies of this package are registered like this.

    Args:
        name: Letters, digits and underscores. An existing strategy of this name is replaced.
        needs: What it reads of the `Candidates` besides scores, losses and groups: any of "norms", "sketched" (with
            the spectrum), "embeddings" and "el2n".
        gated: Whether `gate="auto"` applies to it.
        merit: For streams: the function judges each row by `merit(scores, generator)` alone.

    Raises:
        ConfigError: The name is not valid, or `needs` names an unknown signal.

    Example:
        >>> @register_strategy("short_gradients", needs=["norms"])
        ... def short_gradients(candidates, quotas, seed):
        ...     return take_highest(candidates, -candidates.norms, quotas)
    """
    if not name.isidentifier():
        raise ConfigError(
            f"{name!r} is not a valid name for a strategy", where="name", fix="Use letters, digits and _."
        )
    if unknown := sorted(set(needs) - set(SIGNALS)):
        raise ConfigError(f"There are no signals called {unknown}", where="needs", fix=f"Use any of {list(SIGNALS)}.")

    def register(choose: Choose) -> Choose:
        STRATEGIES[name] = Strategy(choose, frozenset(needs), gated, merit)
        STRATEGY_LINES.setdefault(name, (choose.__doc__ or "").strip().split("\n")[0])
        return choose

    return register


def take_highest(candidates: Candidates, merit: npt.NDArray[np.floating], quotas: Ints) -> Ints:
    """Of every group the `quotas[g]` rows of highest merit, ascending; equal merit goes to the lower row."""
    return np.asarray(candidates.rows[highest(candidates.groups, merit, quotas)])


def highest(groups: Ints, merit: npt.NDArray[np.floating], quotas: Ints) -> npt.NDArray[np.bool_]:
    """[M] whether a row is among the `quotas[g]` of highest merit of its group, or the group has no more.

    Equal merit goes to the lower place; NaN is lower than any number.

    Args:
        groups: [M] in [0, G).
        merit: [M].
        quotas: [G].
    """
    if len(quotas) == 1:
        return _highest(merit, int(quotas[0]))
    taken = np.zeros(len(merit), dtype=bool)
    for members, quota in zip(places_by_code(groups, len(quotas)), quotas, strict=True):
        if quota and len(members):
            taken[members] = _highest(merit[members], int(quota))
    return taken


def _highest(merit: npt.NDArray[np.floating], count: int) -> npt.NDArray[np.bool_]:
    if count <= 0 or count >= len(merit):
        return np.full(len(merit), count > 0)
    lowest = -merit
    lowest.partition(count - 1)  # NaN comes last
    last = -lowest[count - 1]
    taken, is_equal = (~np.isnan(merit), np.isnan(merit)) if np.isnan(last) else (merit > last, merit == last)
    taken[np.flatnonzero(is_equal)[: count - int(np.count_nonzero(taken))]] = True
    return np.asarray(taken)
