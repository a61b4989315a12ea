"""Every knob of a selection, once, with its default and the evidence for it.

The CLI reads its options, their help and their defaults from the fields of `SageConfig`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from numbers import Real
from typing import Any, Literal

from .errors import BudgetError, ConfigError, SageError

BALANCES = ("proportional", "sqrt", "equal", "none")
CONSENSUSES = ("streaming", "exact")
PRESETS = ("default", "fast")
LOSS_REDUCTIONS = ("mean", "sum")
TARGET_REDUCTIONS = ("nearest", "max", "mean")
CACHE_DTYPES = ("float32", "float16")
CACHES = (None, "auto", *CACHE_DTYPES)
# Every strategy in a line; `strategies.register_strategy` adds to them.
STRATEGY_LINES = {
    "auto": "The default: coverage of embeddings and gradients, without likely wrong rows and near-duplicates.",
    "coverage": "As auto, by gradients only.",
    "agreement": "The paper's: the highest scores.",
    "random": "Random rows: the baseline.",
    "loss": "The highest losses.",
    "small_loss": "The lowest losses.",
    "gradient_norm": "The largest gradient norms.",
    "el2n": "The largest errors of the predicted classes (EL2N).",
    "k_center": "Rows far from each other, by embeddings.",
    "herding": "Rows whose mean is that of all rows, by embeddings.",
    "grad_match": "Rows whose gradients add up to those of all rows.",
    "craig": "Rows such that every other row is near one of them, by sketched gradients.",
    "embedding_kmeans": "The rows nearest to the centres of clusters of embeddings.",
}
# `group_by` of groups that are no column's, but found in the sketch.
CLUSTERS = "cluster"
TARGET_KEYWORDS = ("auto", "last", "all-linear", "head", "all")

# Settings that a gradient row or its place in a pass depends on.
_GRADIENT_SETTINGS = (
    *("target_modules", "projection", "row_width", "loss_reduction", "batch_size", "shard_size", "text_columns"),
    *("max_length", "seed", "cache_gradients"),
)

# Settings that are whole numbers, and the least that each can be.
_LEAST = dict.fromkeys(("sketch_size", "batch_size", "shard_size", "max_length", "num_clusters"), 1)
_LEAST |= dict.fromkeys(("num_examples", "projection", "row_width"), 1)
_LEAST |= dict.fromkeys(("seed", "num_workers", "recheck_every", "min_per_group"), 0)

# The shortest and the longest gradient whose square a sketch can hold in float32's numbers.
_LEAST_NORM, _MOST_NORM = 1e-30, 1e30

# Whole numbers that may be "auto".
AUTO = ("projection", "row_width", "sketch_size", "batch_size")

# Row width that projection="auto" aims at. A narrower row saves memory and disk and no time: at sketch size 256 a fit
# pass costs 0.76 of a training pass at 4,096 and 0.74 at 16,384 wide. What is learned on the rows kept differs by less
# than chance (accuracy +1.8 +- 2.5 points at 4,096), but the AUC of finding spoilt rows falls: by 0.055 on language at
# 4,096, by 0.129 on text at 1,024 (examples/benchmarks/results/width.json; 2 or 3 seeds).
ROW_WIDTH = 2**14
# Narrower rows of small models: one number for so many targeted weights, and no fewer than so many.
_WEIGHTS_A_NUMBER, _LEAST_WIDTH = 32, 2**12
# Weights below which a batch is larger.
_SMALL_MODEL = 1_000_000


def _knob(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class SageConfig:
    """Settings of a selection; the same object serves the selector, the CLI and the Trainer.

    Exactly one of `fraction` and `num_examples` must be set by the time rows are chosen.

    Args:
        fraction: Share of the rows to keep, in (0, 1].
        num_examples: Number of rows to keep.
        strategy: Rule that chooses rows. "auto" (the default) leaves out likely wrong rows and near-duplicates, and in
            hard data the hard rows, if a probe finds that this helps. It then forms as many clusters as there are rows
            to keep, by embeddings and sketched gradients side by side, and takes the row nearest to each centre; with
            a target it means "agreement". "agreement": the paper's. "coverage": as auto, by gradients only. "random",
            "loss", "small_loss", "gradient_norm", "el2n", "k_center", "grad_match", "craig", "herding" and
            "embedding_kmeans": baselines. Or one of your own (`register_strategy`).
        gate: Rows that are taken out before the strategy chooses. "auto", which works with the strategies auto and
            coverage: near-duplicates, and rows that may be wrong, up to twice as many as are estimated to be wrong; in
            a class that keeps fewer than 12 rows, up to half of its rows, the most doubted. A share in (0, 1): this
            share of each group, the most doubted, with any strategy. None: no rows.
        spectrum_power: Power to which the sketch's singular values are raised before rows are compared. None: 1 for
            the score, as in the paper, and 0.25 for coverage; with a target 0, which keeps more rows of the target's
            source than 1 does (54 % against 47 %, and 53 % against 49 % with LoRA:
            examples/benchmarks/results/targets.json; 3 seeds). 0 to 0.5 finds wrong labels better than 1.
        sketch_size: l, the rows of the Frequent Directions sketch. Memory is 2 l D numbers. "auto": 256, and fewer for
            narrow rows (D / 32, at least 64), for which the sketch would cost more than the model. On noisy text the
            AUC of finding wrong labels was 0.89 at l = 64 and 0.93 at l = 256, and the same unsketched (0.89).
        max_row_norm: Length at which a gradient row is cut off before it goes into the sketch: a longer one keeps its
            direction and gets this length. For data in which one row or a few have gradients that are many times as
            long as those of the others, which the sketch would then follow. Scores go by directions alone, so that
            nothing else of a row changes; a number below the length of every row lets all rows count alike. None: rows
            count by their squared length, as in the paper.
        projection: How a gradient row is made narrower. "auto": exact if there are no more targeted weights than
            `row_width`, else a random projection of both sides of every layer, such that the row is about that wide. A
            whole number k: every layer projected to k x k. None: exact gradients.
        row_width: D, the numbers of a gradient row under `projection="auto"`. "auto": 16,384; for a model with fewer
            than 500,000 targeted weights, a 32nd of their number, but at least 4,096.
        target_modules: Which weights the gradients are of. "auto": every trainable weight of linear layers,
            convolutions and fused experts, without a vocabulary-sized output layer (with PEFT: the adapters). "last":
            of these, the last sixth of the blocks, and all layers after the blocks; a fit pass over a model of six
            layers then costs 0.47 of a training pass instead of 0.74. On three tasks with classes the rows kept were
            as good (accuracy +0.1 +- 1.6 points) and low agreement found wrong labels much better (AUC 0.96 against
            0.55 on digits, 0.90 against 0.42 on text); a language model learned less (loss +0.038 +- 0.027).
            "all-linear" (without convolutions), "head" (the output layer), "all" (every parameter, as in the paper), a
            list of module-name endings, or a regular expression.
        preset: "fast": `target_modules="last"`, unless other modules are given; see there for what it costs.
        consensus: "streaming" needs one D-wide vector a group in the first pass; "exact" is the paper's formula, which
            keeps the sketched gradients in a temporary file (Spearman 0.99 with streaming at l = 256).
        group_by: Column whose values get a consensus and a quota of their own; "auto" takes the label column of a
            classification dataset; "cluster" finds groups of rows whose gradients point in similar directions, in the
            sketch, for data without classes; None puts all rows in one group. Without groups, agreement collapses onto
            one class (11 % accuracy at 2 % of digits).
        num_clusters: Number of groups that "cluster" finds.
        balance: How the budget is shared between groups: "proportional" to their rows, "sqrt" (proportional to the
            square roots of these, which favours small groups), "equal" or "none" (the highest scores overall).
        min_per_group: Fewest rows that a group keeps (a smaller group keeps all), at the expense of the other groups.
            With 0, a small group keeps what its share rounds to, which may be no row. If the budget is too small, all
            groups keep as many as it allows. Groups that lose every row are always named. With balance "none", no rows
            are reserved for a group.
        target_reduction: How a row's agreements with several targets become its score. "nearest": the largest of them;
            rows are grouped by their nearest target, and each target has a share of the budget. "max" (LESS's rule
            over subtasks): the largest, too, and "mean": the mean; with these two, all targets share one budget, and
            rows are grouped as without a target.
        loss_reduction: "mean" or "sum" of a row's token losses. It rescales a row's gradient: its score in a given
            sketch stays the same, but with "sum", long rows weigh more in the sketch.
        batch_size: Rows a forward pass. Scores do not depend on it beyond rounding. "auto": 32, and 128 for a model of
            fewer than a million weights, in which most of a pass is overhead.
        shard_size: Rows a logical shard: the unit of work and of determinism. Smaller shards give a slightly better
            sketch (energy 0.289 in one stream, 0.320 at 2,048, 0.330 at 512) but more merges.
        cache_gradients: Where the gradient rows of the first pass are kept, so that nothing after it costs a forward
            pass. "auto": D x 2 bytes a row in a temporary file that is deleted after the run. It takes at most a fifth
            of the free disk; rows that do not fit are computed again. None: in no file; all rows are computed twice.
            "float16": all rows in `cache_dir`, where other selections with the same model and dataset find them,
            whatever their budget, strategy, groups or sketch. With these three, rows are rounded to half precision as
            they are made, and the result is the same to the bit. "float32": as "float16", in full precision and with
            twice the disk; scores differ from the others in the fourth digit.
        num_workers: Worker processes that encode and collate batches ahead of the device, as torch's DataLoader runs
            them. The result is the same. A stream is read in the process itself.
        text_columns: Raw text columns to tokenize, one or a pair; None finds them.
        max_length: Longest tokenized row in tokens; the rest is cut off. Never above the model's own limit.
        check_gradients: Whether rows from all over the dataset, the longest and the shortest among them, are compared
            with one-row-at-a-time gradients before the first pass.
        recheck_every: During a pass, one row in so many is checked against its gradient alone, so that the run stops
            if the model or the data go wrong later; 0 turns this off. Costs under 1 % of a pass.
        seed: Seeds the projection, the random strategy, and whatever the model draws while it is scored.

    Raises:
        ConfigError: A value is out of range.
        BudgetError: The budget is out of range, or given twice.
    """

    fraction: float | None = _knob(None, "Share of the rows to keep, above 0 and at most 1.")
    num_examples: int | None = _knob(None, "Number of rows to keep, instead of a fraction.")
    strategy: str = _knob("auto", "Rule that chooses rows; agreement is the paper's, random the baseline.")
    gate: float | Literal["auto"] | None = _knob(
        "auto", "Rows taken out before the choice: auto (likely wrong, near-duplicates), a share of each group, none."
    )
    spectrum_power: float | None = _knob(
        None,
        "Power of the sketch's singular values; none: 1 for scores (the paper), 0.25 for coverage, 0 for a target.",
    )
    sketch_size: int | Literal["auto"] = _knob(
        "auto",
        "Rows of the gradient sketch: auto (256, fewer for a small model); memory is twice this times the width.",
    )
    max_row_norm: float | None = _knob(
        None,
        "Length at which a gradient row is cut off before it is sketched, for a few rows that outweigh all others; "
        "none: no limit.",
    )
    projection: int | Literal["auto"] | None = _knob(
        "auto", "Gradient rows: auto (projected to --row-width), none (exact), or k for k x k numbers a layer."
    )
    row_width: int | Literal["auto"] = _knob(
        "auto",
        "Numbers of a gradient row under --projection auto: auto (16,384, fewer for a small model) or a number.",
    )
    target_modules: str | list[str] = _knob(
        "auto", "Weights to differentiate: auto, last (blocks), all-linear, head, all, a regular expression, or names."
    )
    preset: str = _knob(
        "default", "default; or fast: gradients of the last blocks only, at half the cost of a training pass."
    )
    consensus: str = _knob(
        "streaming", "streaming (summed in the first pass) or exact (the paper's, of all sketched gradients)."
    )
    group_by: str | None = _knob(
        "auto", "Column to group rows by: auto (class label), a name, cluster (groups found in the sketch), or none."
    )
    num_clusters: int = _knob(16, "Groups that --group-by cluster finds.")
    balance: str = _knob(
        "proportional", "How the groups share the budget: proportional to their rows, sqrt, equal or none."
    )
    min_per_group: int = _knob(1, "Fewest rows that a group keeps; a smaller group keeps all.")
    target_reduction: str = _knob(
        "nearest", "Several targets: nearest (each gets a share of the budget), or the max or mean of the agreements."
    )
    loss_reduction: str = _knob("mean", "A row's loss is the mean or the sum of its token losses.")
    batch_size: int | Literal["auto"] = _knob(
        "auto", "Rows a forward pass: auto (32, 128 for a small model) or a number; changes scores by rounding alone."
    )
    shard_size: int = _knob(2048, "Rows a logical shard, the unit of work and determinism.")
    cache_gradients: str | None = _knob(
        "auto", "Gradient rows on disk: auto (for this run), float16 or float32 (for later runs, too), or none."
    )
    num_workers: int = _knob(0, "Worker processes that make batches ahead of the device; not used for streams.")
    text_columns: list[str] | None = _knob(
        None, "Text column to tokenize, or the two columns of a pair, separated by a comma."
    )
    max_length: int = _knob(1024, "Longest row in tokens; the rest is cut off.")
    check_gradients: bool = _knob(True, "Compare a few rows with one-at-a-time gradients before the first pass.")
    recheck_every: int = _knob(
        2048, "During a pass, check one row in so many against its gradient alone; 0 turns this off."
    )
    seed: int = _knob(0, "Seeds the projection, the random strategy, and weights that the checkpoint lacks.")

    def __post_init__(self) -> None:
        _check_kinds(self)
        for name, least in _LEAST.items():
            value = getattr(self, name)
            is_open = name in ("num_examples", "projection") if value is None else name in AUTO and _is_auto(value)
            if is_open:
                continue
            number = _whole(value)
            if number is None or not least <= number < 2**63:
                error = BudgetError if name == "num_examples" else ConfigError
                range_ = f"of at least {least}" if number is None or number < least else "below 2**63"
                raise error(f"{name} is {value!r}", where=name, fix=f"Give a whole number {range_}.")
            object.__setattr__(self, name, number)  # a NumPy number is no JSON
        if self.fraction is not None:
            object.__setattr__(self, "fraction", _number(self.fraction, "fraction", BudgetError, "a number"))
        words = {"preset": PRESETS, "balance": BALANCES, "consensus": CONSENSUSES, "loss_reduction": LOSS_REDUCTIONS}
        words |= {"target_reduction": TARGET_REDUCTIONS}
        for name, allowed in (words | {"cache_gradients": CACHES}).items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}", where=name, fix=_one_of(getattr(self, name), allowed)
                )
        for name, low, high, what in (  # both ends are in; those of gate are next to 0 and 1
            ("gate", 5e-324, 1.0 - 2**-53, "a share above 0 and below 1, auto or None"),
            ("spectrum_power", 0.0, 4.0, "a number from 0 to 4, or None"),
            ("max_row_norm", _LEAST_NORM, _MOST_NORM, f"a number from {_LEAST_NORM} to {_MOST_NORM:g}, or None"),
        ):
            value = getattr(self, name)
            if value is None or (name == "gate" and _is_auto(value)):
                continue
            real = _number(value, name, ConfigError, what)
            if not low <= real <= high:
                raise ConfigError(f"{name} is {value!r}", where=name, fix=f"Give {what}.")
            object.__setattr__(self, name, real)
        check_strategy(self.strategy)
        if self.balance == "none" and self.min_per_group > 1:
            raise ConfigError(
                f"min_per_group is {self.min_per_group}, but balance 'none' reserves no rows for a group",
                where="min_per_group, balance",
                fix="Use another balance.",
            )
        if not self.target_modules:
            raise ConfigError(
                "target_modules is empty", where="target_modules", fix='Use "auto" or name at least one module.'
            )
        if self.text_columns is not None and len(self.text_columns) not in (1, 2):
            raise ConfigError(
                f"text_columns names {len(self.text_columns)} columns", where="text_columns", fix="Name one or two."
            )
        check_budget(self.fraction, self.num_examples)
        if self.preset == "fast" and self.target_modules == "auto":
            object.__setattr__(self, "target_modules", "last")

    def settled(self, row_width: int, weights: int) -> SageConfig:
        """The settings with numbers in the place of "auto", for a model.

        Args:
            row_width: D of its gradient rows.
            weights: Number of its weights.
        """
        sketch_size = min(256, max(64, row_width // 32)) if self.sketch_size == "auto" else self.sketch_size
        return replace(self, sketch_size=sketch_size, batch_size=self.batch_size_for(weights))

    def batch_size_for(self, weights: int) -> int:
        """Rows a forward pass of a model with so many weights."""
        if self.batch_size == "auto":
            return 32 if weights >= _SMALL_MODEL else 128
        return int(self.batch_size)

    @property
    def gradient_settings(self) -> dict[str, Any]:
        """The settings that a gradient row and its place in a pass depend on."""
        return {name: getattr(self, name) for name in _GRADIENT_SETTINGS}

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SageConfig:
        """What `to_dict` gave, also with a strategy of a user's own that is not registered here.

        Raises:
            ConfigError: A value is out of range, or a field is not known.
        """
        if unknown := sorted(set(values) - {each.name for each in fields(cls)}):
            raise ConfigError(
                f"There are no settings called {unknown}",
                where=", ".join(map(str, unknown)),
                fix="Read it with the version of sage_hf that wrote it, or leave them out.",
            )
        strategy = values.get("strategy", "auto")
        if not isinstance(strategy, str):
            raise ConfigError(f"strategy is {strategy!r}", where="strategy", fix="Name one.")
        made = cls(**{**values, "strategy": "auto"})
        object.__setattr__(made, "strategy", strategy)
        return made


def width_for(weights: int) -> int:
    """The row width that "auto" stands for, of so many targeted weights; rows of 16,384 weights or fewer are exact."""
    return ROW_WIDTH if weights <= ROW_WIDTH else min(ROW_WIDTH, max(_LEAST_WIDTH, weights // _WEIGHTS_A_NUMBER))


def _check_kinds(config: SageConfig) -> None:
    """Refuses values of another kind than their settings', which would fail far from here; tuples become lists.

    Raises:
        ConfigError: A value is no text, no list of names, no truth value.
    """
    for name in ("target_modules", "text_columns"):
        value = getattr(config, name)
        if isinstance(value, tuple):
            object.__setattr__(config, name, list(value))
        elif isinstance(value, list):  # which the caller may go on to change
            object.__setattr__(config, name, value.copy())
    words = ("strategy", "preset", "consensus", "balance", "target_reduction", "loss_reduction")
    kinds: list[tuple[tuple[str, ...], tuple[type, ...], str]] = [
        (words, (str,), "a word"),
        (("group_by", "cache_gradients"), (str, type(None)), "a word, or None"),
        (("target_modules",), (str, list), "a word, a regular expression, or a list of names"),
        (("text_columns",), (list, type(None)), "a list of one or two names, or None"),
        (("check_gradients",), (bool,), "True or False"),
    ]
    for names, allowed, what in kinds:
        for name in names:
            value = getattr(config, name)
            of_text = not isinstance(value, list) or all(isinstance(each, str) and each for each in value)
            if not isinstance(value, allowed) or value == "" or not of_text:
                raise ConfigError(f"{name} is {value!r}", where=name, fix=f"Give {what}.")


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"


def _whole(value: Any) -> int | None:
    """A whole number of Python's or NumPy's as Python's; None of what is none."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _number(value: Any, name: str, error: type[SageError], what: str) -> float:
    """A setting that is a number; infinite where it is larger than any float."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise error(f"{name} is {value!r}", where=name, fix=f"Give {what}.")
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def check_strategy(name: str, known: Iterable[str] = STRATEGY_LINES) -> None:
    """Checks a strategy's name.

    Raises:
        ConfigError: The name is unknown.
    """
    if name not in known:
        raise ConfigError(f"strategy is {name!r}", where="strategy", fix=_one_of(name, known))


def _one_of(value: Any, known: Iterable[str | None]) -> str:
    """What to do where a value is none of some words: a question after the nearest, and all of them."""
    nearest = get_close_matches(str(value), [word for word in known if word is not None], 1)
    guess = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return f"{guess}Use one of {list(known)}."


def check_budget(fraction: float | None, num_examples: int | None) -> None:
    """Checks what can be checked of a budget before the dataset is known.

    Raises:
        BudgetError: Both were given, or one is out of range.
    """
    if fraction is not None and num_examples is not None:
        raise BudgetError(
            "Both fraction and num_examples were given", where="fraction, num_examples", fix="Give exactly one."
        )
    if fraction is not None and not 0.0 < fraction <= 1.0:  # refuses NaN, too
        guess = f"Did you mean {fraction / 100:g} ({fraction:g} %)? " if 1.0 < fraction <= 100.0 else ""
        raise BudgetError(
            f"fraction is {fraction:g}",
            where="fraction",
            fix=f"{guess}Give a share of the rows, above 0 and at most 1.",
        )
    if num_examples is not None and num_examples < 1:
        raise BudgetError(f"num_examples is {num_examples}", where="num_examples", fix="Ask for at least one row.")
