"""What a selection's run measured: its statistics, as they are kept in `selection.json` and told in cards."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..utils.deprecation import warn_old
from ..utils.shown import ShortRepr
from ..utils.typed import as_declared
from .classes import Classes
from .longest import LongestRow
from .meaning import Meaning


class _OldKeys:
    """Fields by their names, as when statistics were dicts, for one version."""

    def __getitem__(self, name: str) -> Any:
        if not hasattr(self, str(name)):
            raise KeyError(name)
        warn_old(f'stats["{name}"]', f"stats.{name}")
        return getattr(self, name)

    def __contains__(self, name: str) -> bool:
        warn_old(f'"{name}" in stats', f"stats.{name} is not None")
        return getattr(self, name, None) is not None

    def get(self, name: str, default: Any = None) -> Any:
        """A field; `default` where it is None."""
        warn_old(f'stats.get("{name}")', f"stats.{name}")
        value = getattr(self, name, None)
        return default if value is None else value


@dataclass
class GroupStats(_OldKeys):
    """One group of rows.

    Attributes:
        name: Its value, as text.
        rows: Number of rows.
        kept: Number of rows that are kept.
        set_aside: Number of rows without a score.
        mean_score: Mean score of the scored rows; None where there are none.
        mean_score_kept: Mean score of the kept rows; None where there are none.
    """

    name: str
    rows: int
    kept: int
    set_aside: int
    mean_score: float | None
    mean_score_kept: float | None


@dataclass
class TriedRecipe(_OldKeys):
    """What a probe found of one way to choose.

    Attributes:
        name: Name of the recipe.
        accuracy: Share of held-out rows that a cheap classifier of the rows that it kept gets right.
        lead: By how much that is more than the default's, in [-1, 1].
        error: Standard error of the lead.
    """

    name: str
    accuracy: float
    lead: float
    error: float


@dataclass
class GateStats(_OldKeys):
    """What the gate took out, and how the others were chosen from.

    Attributes:
        method: How rows were judged.
        doubted: Number of rows that may be wrong: where labels are wrong, up to twice as many as these.
        judged: Number of rows that were judged.
        hard: Number of further rows, the most doubted of groups that keep few.
        wrong_share: Estimated share of wrong labels; None where rows have no classes, or nothing can be told of them.
        copies: Number of near-duplicates that stayed out, each of a row that may be kept.
        recipe: Name of the recipe that rows were chosen by; None where none was looked for.
        tried: All recipes that a probe tried; empty where there was none.
    """

    method: str
    doubted: int
    judged: int
    hard: int = 0
    wrong_share: float | None = None
    copies: int = 0
    recipe: str | None = None
    tried: list[TriedRecipe] = field(default_factory=list)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GateStats:
        """From JSON."""
        return cls(**{**values, "tried": [as_declared(TriedRecipe(**each)) for each in values.get("tried", [])]})

    def plus(self, other: GateStats) -> GateStats:
        """What was taken out here and elsewhere."""
        judged, known = self.judged + other.judged, [each for each in (self, other) if each.wrong_share is not None]
        share = sum(float(each.wrong_share or 0.0) * each.judged for each in known) / max(1, judged) if known else None
        chosen = self if self.tried or not other.tried else other
        counts = {name: getattr(self, name) + getattr(other, name) for name in ("doubted", "hard", "copies")}
        return dataclasses.replace(chosen, judged=judged, wrong_share=share, **counts)


@dataclass(kw_only=True, repr=False)
class FitStats(ShortRepr, _OldKeys):
    """What the passes measured.

    Attributes:
        energy: Share of the gradients' squared norm that the sketch holds.
        error_bound: The sketch's proven bound on the squared error along any direction.
        squared_norm: Sum of the gradients' squared norms.
        spectrum: [l] squared singular values of the sketch.
        sketch_size: l.
        row_width: D.
        target_weights: Number of weights that the gradients are of.
        target_share: Their share of the trainable weights.
        left_out: Names of targeted weights whose gradients could not be had.
        consensus: "streaming" or "exact".
        group_by: Column that rows are grouped by; None for one group.
        one_at_a_time: Whether rows were taken one at a time.
        processes: Number of processes.
        model: Class, Hub id and commit.
        model_fingerprint: Fingerprint of the weights.
        source: Name, split, Hub id and commit of the dataset.
        source_digest: Digest of the dataset's rows; None of a stream.
        versions: Versions of the libraries.
        check_seconds: Time of the check of the gradients.
        fit_seconds: Time of the first pass, in seconds.
        score_seconds: Time of the passes after it.
        classes: The classes of labels that are text.
        targets: Names of the target datasets; None without a target.
        target_shares: Share of the budget that each of several targets gets.
        checkpoints: Number of models whose scores were averaged; None for one.
        adam: Whether rows counted as the updates that Adam would make of them.
        checkpoint_weights: Weight of each of them, in sum 1.
        meaning: What speaks for or against the scores; None where nobody looked.
        longest: The row with the longest gradient; None where nobody looked.
    """

    energy: float
    error_bound: float
    squared_norm: float
    spectrum: list[float]
    sketch_size: int
    row_width: int
    target_weights: int
    target_share: float
    left_out: list[str]
    consensus: str
    group_by: str | None
    one_at_a_time: bool
    processes: int
    model: dict[str, str | None]
    model_fingerprint: str
    source: dict[str, Any]
    source_digest: str | None
    versions: dict[str, str]
    check_seconds: float
    fit_seconds: float = 0.0
    score_seconds: float = 0.0
    classes: Classes | None = None
    targets: list[str] | None = None
    target_shares: list[float] | None = None
    checkpoints: int | None = None
    adam: bool = False
    checkpoint_weights: list[float] | None = None
    meaning: Meaning | None = None
    longest: LongestRow | None = None

    @property
    def warning(self) -> str:
        """What speaks against the scores, for people; empty where nothing does, or nobody looked."""
        return " ".join(each.warning for each in (self.meaning, self.longest) if each is not None and each.warning)


@dataclass(kw_only=True, repr=False)
class SelectionStats(FitStats):
    """What the passes measured, and what came of the choice.

    Attributes:
        strategy: The rule that rows were chosen by; what "auto" came to.
        rows: N.
        kept: K.
        set_aside: Number of rows without a score.
        groups: One entry a group.
        lost_groups: Names of groups of which no row is kept.
        mean_score: Mean agreement of the scored rows.
        mean_score_kept: Mean agreement of the kept rows.
        mean_loss: Mean loss of the scored rows.
        gate: What the gate took out; None where there was none.
        choose_seconds: Time of the choice; of a stream it is in `score_seconds`.
        command: The shell's words that select again; None outside the shell.
        trained_steps: Optimizer steps before the selection, in a training.
        trained_epochs: Epochs before the selection, in a training.
    """

    strategy: str
    rows: int
    kept: int
    set_aside: int
    groups: list[GroupStats]
    lost_groups: list[str]
    mean_score: float
    mean_score_kept: float
    mean_loss: float
    gate: GateStats | None = None
    choose_seconds: float = 0.0
    command: list[str] | None = None
    trained_steps: int | None = None
    trained_epochs: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SelectionStats:
        """What `to_dict` gave.

        Raises:
            TypeError: Something is missing, is not known, or is of another type.
        """
        if not isinstance(values, Mapping):
            raise TypeError("stats is no object")
        gate, meaning, longest = (values.get(name) for name in ("gate", "meaning", "longest"))
        made = cls(
            **{
                **values,
                "groups": [as_declared(GroupStats(**group)) for group in values.get("groups", [])],
                "gate": None if gate is None else as_declared(GateStats.from_dict(gate)),
                "meaning": None if meaning is None else as_declared(Meaning(**meaning)),
                "longest": None if longest is None else as_declared(LongestRow(**longest)),
            }
        )
        if not {"name", "id", "config", "split", "splits", "revision"} <= as_declared(made).source.keys():
            raise TypeError("source lacks something")
        if not {"class", "id", "revision"} <= made.model.keys():
            raise TypeError("model lacks something")
        return made
