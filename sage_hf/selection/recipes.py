"""Ways to choose from rows of which some are doubted: how many more stay out, and which rule chooses from the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..strategies import STRATEGIES, Candidates
from ..strategies.quotas import allocate_quotas
from ..utils.columns import counts_of, picked
from .gate import Verdict, let_through, set_hard_aside


@dataclass(frozen=True)
class Recipe:
    """A way to choose.

    Attributes:
        name: What it is called in statistics and cards.
        aside: Share of each group that stays out, the most doubted rows, those that are likely wrong among them; None
            leaves it to the quota.
        strategy: The rule that chooses among the others.
        keeps_wrong: Whether rows that are likely wrong may be kept.
    """

    name: str
    aside: float | None
    strategy: str
    keeps_wrong: bool = False


DEFAULT = Recipe("coverage", None, "auto")
# Those that a probe tries. Herding, k-means on embeddings alone and a gate by odds in the place of a share were tried
# beside them: what the probe gained with them was no more (docs/strategies.md).
RECIPES = (
    DEFAULT,
    Recipe("coverage of the plainer three quarters", 0.25, "auto"),
    Recipe("coverage of the plainer half", 0.5, "auto"),
    Recipe("coverage of all rows", 0.0, "auto", keeps_wrong=True),
)


@dataclass(frozen=True)
class Question:
    """What is asked of a recipe: rows to choose from, and how many of each group.

    Attributes:
        candidates: The rows.
        quotas: [G].
        whole: [G], the quotas of all rows, where the candidates are a part of them.
        verdict: Verdict on the candidates.
        copies: [M], near-duplicates, which stay out as well.
        seed: Seed of the strategy.
    """

    candidates: Candidates
    quotas: npt.NDArray[np.int64]
    whole: npt.NDArray[np.int64]
    verdict: Verdict
    copies: npt.NDArray[np.bool_]
    seed: int

    def verdict_for(self, recipe: Recipe) -> Verdict:
        """The verdict with those that the recipe leaves out."""
        doubted = self.copies if recipe.keeps_wrong else self.verdict.doubted | self.copies
        return set_hard_aside(self.candidates, self.whole, replace(self.verdict, doubted=doubted), recipe.aside)

    def answer(self, recipe: Recipe) -> npt.NDArray[np.int64]:
        """The rows that a recipe keeps, ascending."""
        through = let_through(self.candidates, self.quotas, self.verdict_for(recipe))
        return np.asarray(STRATEGIES[recipe.strategy](through, self.quotas, self.seed), dtype=np.int64)

    def part(self, places: npt.NDArray[np.integer], share: float) -> Question:
        """The same of some of the candidates, at ascending places, and of a share of the quotas."""
        candidates = self.candidates.where(places)
        sizes = counts_of(candidates.groups, len(self.quotas))
        most = np.minimum(sizes, np.ceil(self.quotas * share).astype(np.int64))
        budget = min(int(most.sum()), max(1, round(int(self.quotas.sum()) * share)))
        quotas = allocate_quotas(most, budget, "proportional", least=1)
        return Question(
            candidates, quotas, self.whole, self.verdict.at(places), picked(self.copies, places), self.seed
        )
