"""From a comparison to sentences: what to use, what it gains, and how few rows suffice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .intervals import LEAST_COUNT, digits
from .runs import RANDOM, RunGroup

if TYPE_CHECKING:
    from .result import Comparison


def advise(comparison: Comparison) -> str:
    """The recommendation; of strategies that are equally good, the one named first is best."""
    groups, reference = comparison.groups, comparison.reference
    if not comparison.learns:
        return _nothing_learned(comparison)

    def merit(strategy: str) -> float:
        return math.fsum(group.merit for group in groups if group.strategy == strategy)

    best = max(comparison.strategies, key=merit)  # max keeps the first of equals
    sentences = [
        _on_average(groups, best, comparison.metric),
        _against_random([group for group in groups if group.strategy == best], groups),
        _enough(groups, reference, comparison.metric, comparison.tolerance),
    ]
    if reference.value.count == 1:
        sentences.append("One seed gives no interval: any difference may be chance; train with several.")
    elif reference.value.count < LEAST_COUNT:
        sentences.append(
            f"{reference.value.count} seeds are too few to call anything better: train with {LEAST_COUNT} or more."
        )
    return " ".join(sentence for sentence in sentences if sentence)


def _nothing_learned(comparison: Comparison) -> str:
    """What is said where all rows teach a model no more than guessing."""
    metric, guess = comparison.metric, comparison.guessing[comparison.metric]
    reached, chance = comparison.reference.value, comparison.chance
    gain = reached.mean - guess if comparison.greater_is_better else guess - reached.mean
    if gain > 0:
        over_seeds = ""
        if reached.half is not None:
            over_seeds = f" ± {digits(reached.half)} over {reached.count} seeds"
        return (
            f"No conclusion: training on all rows reaches {metric} {digits(reached.mean)}{over_seeds}, and always "
            f"guessing the commonest class of the test rows gets {digits(guess)}: a lead that is within the chance of "
            f"{comparison.eval_rows:,} test rows, ± {digits(chance)}. Judge by more test rows, or train longer or "
            "with a larger learning rate (max_steps and learning_rate, --max-steps and --learning-rate), until all "
            "rows clearly beat guessing."
        )
    return (
        f"No conclusion: training on all rows reaches {metric} {digits(comparison.reference.value.mean)}, and "
        f"always guessing the commonest class of the test rows gets {digits(guess)}. Train until all rows beat "
        "guessing: with more steps or a larger learning rate (max_steps and learning_rate, --max-steps and "
        "--learning-rate), or from a better checkpoint."
    )


def _on_average(groups: Sequence[RunGroup], best: str, metric: str) -> str:
    means = {}
    for strategy in (best, RANDOM):
        values = [group.value.mean for group in groups if group.strategy == strategy]
        means[strategy] = math.fsum(values) / len(values) if values else math.nan
    shares = _listed([group.fraction for group in groups if group.strategy == best])
    others = len({group.strategy for group in groups}) > 1
    is_sure = all(group.value.count >= LEAST_COUNT for group in groups)
    word = f"{'is' if is_sure else 'did'} best on average over" if others else "was trained at"
    text = f"{best} {word} {shares} of the rows: {metric} {digits(means[best])}"
    if best != RANDOM and not math.isnan(means[RANDOM]):
        text += f", of random rows {digits(means[RANDOM])}"
    return text + "."


def _against_random(own: Sequence[RunGroup], groups: Sequence[RunGroup]) -> str:
    if own[0].strategy == RANDOM:
        worse = sorted({group.strategy for group in groups if group.gain > 0})
        if len({group.strategy for group in groups}) == 1:
            return ""
        text = "On average, no other strategy is worth its cost here"
        return f"{text}, though {', '.join(worse)} was better at some shares." if worse else f"{text}."
    if all(group.difference is None for group in own):
        return "Random rows were not trained on, so it is not known what the choice gains."
    if all(group.value.count < LEAST_COUNT for group in own):
        return ""
    texts = {
        1: "it beats random rows by more than the 95 % interval at {}",
        -1: "it is worse than random rows by more than the interval at {}",
        0: "at {} no difference from random rows can be shown",
    }
    shares = {gain: [group.fraction for group in own if group.gain == gain] for gain in texts}
    text = "; ".join(words.format(_listed(shares[gain])) for gain, words in texts.items() if shares[gain])
    return text[0].upper() + text[1:] + "."


def _enough(groups: Sequence[RunGroup], reference: RunGroup, metric: str, tolerance: float) -> str:
    goal = reference.value.mean
    whole = f"training on all rows ({digits(goal)})"
    room = tolerance * abs(goal)
    reaching = [group for group in groups if group.merit >= reference.merit - room]
    within = f"to within {100 * tolerance:g} %"
    if math.isnan(goal):
        return f"Training on all rows gave no finite {metric}, so nothing can be compared with it."
    if not reaching:
        nearest = max(groups, key=lambda group: group.merit)
        return (
            f"None reaches {whole} {within}; nearest is {nearest.strategy} at {_share(nearest.fraction)}: "
            f"{digits(nearest.value.mean)}{_of_all(nearest, goal)}."
        )
    least = min(group.fraction for group in reaching)
    first = max((group for group in reaching if group.fraction == least), key=lambda group: group.merit)
    return (
        f"{first.strategy} at {_share(first.fraction)} ({first.rows:,} rows) is the least that reaches {whole} "
        f"{within}: {digits(first.value.mean)}{_of_all(first, goal)}."
    )


def _of_all(group: RunGroup, goal: float) -> str:
    """The mean as a share of what all rows reach, where that says something."""
    return f", {100 * group.value.mean / goal:.1f} % of it" if goal > 0 else ""


def _share(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def _listed(fractions: Sequence[float]) -> str:
    shares = [_share(fraction) for fraction in fractions]
    return shares[0] if len(shares) == 1 else f"{', '.join(shares[:-1])} and {shares[-1]}"
