"""From what is known of the rows to those that are kept: the budget, a quota for every group, gate and strategy."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import numpy.typing as npt

from ..config import SageConfig
from ..data.stats import GateStats, GroupStats
from ..data.status import DOUBTED, HARD, NEAR_DUPLICATE, NOT_CHOSEN
from ..strategies import STRATEGIES, Candidates, Vectors
from ..strategies.base import PartOf
from ..strategies.coverage import SideBySide, centred_embeddings, gradient_directions
from ..strategies.duplicates import near_duplicates
from ..strategies.jobs import JobRunner
from ..strategies.quotas import allocate_quotas, allocate_shares
from .doubts import Scaled
from .gate import Verdict, judge
from .outcomes import Choice, RowVerdicts
from .probe import probe
from .recipes import DEFAULT, RECIPES, Question, Recipe
from .resolve import is_gated, needed
from .signals import RowSignals

logger = logging.getLogger(__name__)

# Groups that a warning names.
_NAMED_GROUPS = 5


def choose_rows(config: SageConfig, signals: RowSignals, budget: int, runner: JobRunner | None = None) -> Choice:
    """The rows to keep, and what the gate found, where there is one.

    Args:
        config: The strategy, the gate, the balance and the seed.
        signals: What is known of the rows.
        budget: Number of rows to keep; where fewer have a score, all of these are kept, and it is said.
        runner: Shares the work out over processes, which then all call this alike; this one alone by default.

    Raises:
        ConfigError: The strategy or the gate needs what the signals lack.
        SageError: A part of the work failed in another process.
    """
    runner = runner or JobRunner()
    balanced = config.balance != "none"
    sizes = signals.sizes(balanced)
    quotas = quotas_for(config, sizes, budget, signals.shares if balanced else None, say=runner.is_main)
    return choose_within(config, signals, quotas, runner)


@dataclass(frozen=True)
class Settled:
    """What is settled for all rows, where a choice is from a window of them.

    Attributes:
        quotas: [G] of all rows.
        recipe: The recipe that earlier windows were chosen from by; None in the first.
    """

    quotas: npt.NDArray[np.int64]
    recipe: str | None = None


def choose_within(
    config: SageConfig,
    signals: RowSignals,
    quotas: npt.NDArray[np.int64],
    runner: JobRunner,
    settled: Settled | None = None,
) -> Choice:
    """As `choose_rows`, with the quotas given.

    Args:
        config: The strategy, the gate, the balance and the seed.
        signals: What is known of the rows.
        quotas: [G], the rows of each group to keep; one group where the balance is "none".
        runner: Shares the work out over processes.
        settled: Where the signals are of a window of all rows.

    Raises:
        ConfigError: The strategy or the gate needs what the signals lack.
        SageError: A part of the work failed in another process.
    """
    signals.check(config.strategy, needed(config))
    strategy = STRATEGIES[config.strategy]
    candidates = signals.candidates(config.balance != "none", config.spectrum_power, strategy.needs)
    if not len(candidates):  # no row has a score; of a stream, none of this window
        return Choice(np.zeros(0, dtype=np.int64))
    candidates = replace(candidates, runner=runner)
    if not is_gated(config):
        return Choice(np.asarray(strategy(candidates, quotas, config.seed), dtype=np.int64))
    verdict = judge(config, signals, candidates)
    gate = GateStats(verdict.method, int(verdict.doubted.sum()), len(verdict.doubts), wrong_share=verdict.share)
    recipe = Recipe(config.strategy, 0.0, config.strategy)
    copies = np.zeros(len(candidates), dtype=np.bool_)
    if config.gate == "auto":
        views = _compared(candidates, signals)
        copies = near_duplicates(views, candidates.groups, verdict.doubts, config.seed, runner)
    gate.copies = int((copies & ~verdict.doubted).sum())
    question = Question(candidates, quotas, settled.quotas if settled else quotas, verdict, copies, config.seed)
    if config.gate == "auto" and verdict.method == "cross-fold":
        recipe = replace(DEFAULT, strategy=config.strategy)
        if config.strategy == DEFAULT.strategy:
            recipe = _recipe(question, signals, settled, gate)
    out = question.verdict_for(recipe).doubted
    gate.hard = int((out & ~verdict.doubted & ~copies).sum())
    verdicts = _verdicts(len(signals.status), candidates, verdict, copies, out)
    return Choice(question.answer(recipe), gate, verdicts)


def _verdicts(
    count: int,
    candidates: Candidates,
    verdict: Verdict,
    copies: npt.NDArray[np.bool_],
    out: npt.NDArray[np.bool_],
) -> RowVerdicts:
    """What the gate found, by the row numbers of all `count` rows.

    Args:
        count: N.
        candidates: The rows that were judged.
        verdict: Verdict on them.
        copies: [M], near-duplicates.
        out: [M], all that are to stay out.
    """
    rows, found = candidates.rows, np.full(len(candidates), NOT_CHOSEN, dtype=np.uint8)
    found[out] = HARD
    found[out & copies] = NEAR_DUPLICATE
    found[out & verdict.doubted] = DOUBTED
    doubts, suggested = np.full(count, np.nan, dtype=np.float32), np.full(count, -1, dtype=np.int32)
    outcomes = np.full(count, NOT_CHOSEN, dtype=np.uint8)
    doubts[rows], outcomes[rows] = verdict.doubts, found
    if verdict.others is not None:
        suggested[rows] = verdict.others
    return RowVerdicts(doubts, suggested, outcomes)


def _recipe(question: Question, signals: RowSignals, settled: Settled | None, gate: GateStats) -> Recipe:
    """That of earlier windows, or the one that a probe finds; writes down which, and what was tried."""
    if settled is not None and settled.recipe is not None:  # an earlier window had a probe
        (recipe,) = (each for each in RECIPES if each.name == settled.recipe)
    else:
        recipe, gate.tried = probe(question, signals)
    gate.recipe = recipe.name
    return recipe


def _compared(candidates: Candidates, signals: RowSignals) -> Vectors:
    """What near-duplicates are alike in: all that is known of the rows, side by side."""
    views: list[Vectors] = [] if candidates.embeddings is None else [centred_embeddings(candidates)]
    views += [] if candidates.sketched is None else [gradient_directions(candidates)]
    views += [] if signals.inputs is None else [Scaled(PartOf(signals.inputs, candidates.rows))]
    return reduce(SideBySide, views[1:], views[0])


def quotas_for(
    config: SageConfig,
    sizes: npt.NDArray[np.int64],
    budget: int,
    shares: npt.NDArray[np.float64] | None = None,
    say: bool = True,
) -> npt.NDArray[np.int64]:
    """[G] quotas that sum to the budget, or to all rows that have a score, which is said then.

    Args:
        config: The balance, and what each group gets at least.
        sizes: [G], the rows of each group that have a score; one group where the balance is "none".
        budget: Number of rows to keep.
        shares: [G] wanted shares of the budget; None leaves it to the balance.
        say: Whether to log a warning where the budget does not fit: one process does.
    """
    scored = int(sizes.sum())
    if say and budget > scored:
        logger.warning(
            "%d rows were asked for and %d could be scored: all of these are kept; see Selection.set_aside.",
            budget,
            scored,
        )
    budget, least = min(budget, scored), config.min_per_group
    # Where one row each is too much, the groups that lose all are named when rows are chosen.
    if say and least > 1 and config.balance != "none" and (wanted := int(np.minimum(sizes, least).sum())) > budget:
        logger.warning(
            "min_per_group=%d needs %d rows for %d groups, but the budget is %d: groups get as many as it allows.",
            least,
            wanted,
            np.count_nonzero(sizes),
            budget,
        )
    if shares is not None:
        return allocate_shares(sizes, shares, budget, least)
    if config.balance == "none":
        return allocate_quotas(sizes, budget, "proportional")
    return allocate_quotas(sizes, budget, config.balance, least)


def lost_groups(table: Sequence[GroupStats], config: SageConfig, say: bool = True) -> list[str]:
    """The names of groups of which no row is kept.

    Args:
        table: All groups.
        config: Settings of the choice.
        say: Whether to log a warning of them: one process does.
    """
    if say and (text := about_lost(table, config)):
        logger.warning("%s", text)
    return [group.name for group in table if group.rows and not group.kept]


def about_lost(table: Sequence[GroupStats], config: SageConfig) -> str:
    """What a person is told of groups that vanish: how many, the first five with their rows, and what keeps them."""
    lost = [group for group in table if group.rows and not group.kept]
    if not lost:
        return ""
    named = ", ".join(
        f"{group.name!r} ({group.rows:,} row{'s' if group.rows > 1 else ''})" for group in lost[:_NAMED_GROUPS]
    )
    more = f" and {len(lost) - _NAMED_GROUPS:,} more" if len(lost) > _NAMED_GROUPS else ""
    text = f"No row is kept of {len(lost):,} group{'s' if len(lost) > 1 else ''}: {named}{more}."
    if all(group.set_aside == group.rows for group in lost):
        return f"{text} None of their rows could be scored; see Selection.set_aside."
    if config.balance == "none":
        return f"{text} balance='proportional' (--balance proportional) keeps one of each where the budget allows it."
    if config.min_per_group:
        return f"{text} A larger budget keeps some of each."
    return f"{text} min_per_group=1 (--min-per-group 1) keeps one of each, where the budget has as many rows."
