"""From the arms of a comparison to sentences: what to use, what it gains, and how few rows suffice."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .runs import RANDOM, Arm, digits


def advise(
    arms: Sequence[Arm],
    reference: Arm,
    metric: str,
    lower_is_better: bool,
    strategies: Sequence[str],
    tolerance: float,
) -> str:
    """The recommendation.

    Args:
        arms: All strategies at all shares, by share.
        reference: All rows.
        metric: The number that counts.
        lower_is_better: Whether less of it is better.
        strategies: In the user's order; of equals the first is best.
        tolerance: How far from all rows still counts as reaching them, as a share of what they reach.
    """
    best = _best(arms, lower_is_better, strategies)
    own = [arm for arm in arms if arm.strategy == best]
    sentences = [_on_average(arms, best, metric), _against_random(own, arms, lower_is_better)]
    sentences.append(_enough(arms, reference, metric, lower_is_better, tolerance))
    if reference.value.count == 1:
        sentences.append("One seed gives no interval: any difference may be chance; train with several.")
    return " ".join(sentence for sentence in sentences if sentence)


def _best(arms: Sequence[Arm], lower_is_better: bool, strategies: Sequence[str]) -> str:
    def merit(strategy: str) -> float:
        return math.fsum(arm.merit(lower_is_better) for arm in arms if arm.strategy == strategy)

    return max(strategies, key=merit)  # max keeps the first of equals


def _on_average(arms: Sequence[Arm], best: str, metric: str) -> str:
    means = {}
    for strategy in (best, RANDOM):
        values = [arm.value.mean for arm in arms if arm.strategy == strategy]
        means[strategy] = math.fsum(values) / len(values) if values else math.nan
    shares = _listed([arm.fraction for arm in arms if arm.strategy == best])
    others = len({arm.strategy for arm in arms}) > 1
    word = "is best on average over" if others else "was trained at"
    text = f"{best} {word} {shares} of the rows: {metric} {digits(means[best])}"
    if best != RANDOM and not math.isnan(means[RANDOM]):
        text += f", of random rows {digits(means[RANDOM])}"
    return text + "."


def _against_random(own: Sequence[Arm], arms: Sequence[Arm], lower_is_better: bool) -> str:
    if own[0].strategy == RANDOM:
        worse = sorted({arm.strategy for arm in arms if arm.gain(lower_is_better) > 0})
        if len({arm.strategy for arm in arms}) == 1:
            return ""
        text = "No other strategy is worth its passes on average here"
        return f"{text}, though {', '.join(worse)} won at single shares." if worse else f"{text}."
    if all(arm.difference is None for arm in own):
        return "Random rows were not trained on, so it is open what the choice gains."
    if all(arm.value.count == 1 for arm in own):
        return ""
    ahead = [arm.fraction for arm in own if arm.gain(lower_is_better) > 0]
    behind = [arm.fraction for arm in own if arm.gain(lower_is_better) < 0]
    open_ = [arm.fraction for arm in own if arm.gain(lower_is_better) == 0]
    parts = []
    if ahead:
        parts.append(f"it beats random rows by more than the 95 % interval at {_listed(ahead)}")
    if behind:
        parts.append(f"it is worse than random rows by more than the interval at {_listed(behind)}")
    if open_:
        parts.append(f"at {_listed(open_)} the interval of its difference to random rows holds 0")
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def _enough(arms: Sequence[Arm], reference: Arm, metric: str, lower_is_better: bool, tolerance: float) -> str:
    goal = reference.value.mean
    whole = f"training on all rows ({digits(goal)})"
    room = tolerance * abs(goal)
    reaching = [arm for arm in arms if arm.merit(lower_is_better) >= reference.merit(lower_is_better) - room]
    within = f"to within {100 * tolerance:g} %"
    if math.isnan(goal):
        return f"Training on all rows gave no finite {metric}, so nothing can be held against it."
    if not reaching:
        nearest = max(arms, key=lambda arm: arm.merit(lower_is_better))
        return (
            f"None reaches {whole} {within}; nearest is {nearest.strategy} at {_share(nearest.fraction)}: "
            f"{digits(nearest.value.mean)}{_of_all(nearest, goal)}."
        )
    least = min(arm.fraction for arm in reaching)
    first = max((arm for arm in reaching if arm.fraction == least), key=lambda arm: arm.merit(lower_is_better))
    return (
        f"{first.strategy} at {_share(first.fraction)} ({first.rows:,} rows) is the least that reaches {whole} "
        f"{within}: {digits(first.value.mean)}{_of_all(first, goal)}."
    )


def _of_all(arm: Arm, goal: float) -> str:
    """The mean as a share of what all rows reach, where that says something."""
    return f", {100 * arm.value.mean / goal:.1f} % of it" if goal > 0 else ""


def _share(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def _listed(fractions: Sequence[float]) -> str:
    shares = [_share(fraction) for fraction in fractions]
    return shares[0] if len(shares) == 1 else f"{', '.join(shares[:-1])} and {shares[-1]}"
