"""The parts of a diagnosis: plain values that become JSON as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..data.classes import ClassOrder

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Problem:
    """Something to change, or to know.

    Attributes:
        severity: "error": a selection would stop, or stop at these rows; "warning": it would run, and may not be what
            was wanted; "note": worth knowing.
        what: What is wrong, one sentence without the final full stop.
        where: The argument, column, rows or modules concerned.
        fix: What to do, one sentence or two.
    """

    severity: Severity
    what: str
    where: str
    fix: str


@dataclass(frozen=True)
class WeightKind:
    """Parameters in layers of one kind whose gradients are found in one way.

    Attributes:
        layer: The kind's class.
        rule: How the gradients are found; "not targeted" or "left out" where they are not.
        parameters: Number of tensors.
        weights: Number of numbers in them.
        share: Their share of all trainable weights.
        examples: Names of some.
    """

    layer: str
    rule: str
    parameters: int
    weights: int
    share: float
    examples: tuple[str, ...]


@dataclass(frozen=True)
class ModelFindings:
    """The model, and which of its weights a row's gradient is of.

    Attributes:
        kind: The model's class.
        weights: All of them.
        trainable: Those that a training changes.
        targeted: Those that rows are gradients of.
        share: Targeted as a share of the trainable ones.
        width: D, the numbers of a row; 0 where nothing could be targeted.
        exact: Whether rows hold whole gradients, and no projections of them.
        targets: What is targeted, the most weights first.
        others: Trainable, and not in a row.
    """

    kind: str
    weights: int
    trainable: int
    targeted: int
    share: float
    width: int
    exact: bool
    targets: tuple[WeightKind, ...] = ()
    others: tuple[WeightKind, ...] = ()


@dataclass(frozen=True)
class Space:
    """Bytes that something takes, and that are free for it.

    Attributes:
        what: What takes them.
        needed: Bytes, as far as is known; of some files they depend on the dataset.
        free: Bytes that are free in the memory or on the disk.
        place: The folder; "memory" for memory.
        used: Whether a selection with these settings takes them.
        fits: Whether there is room.
        fix: What to do where there is none.
    """

    what: str
    needed: int
    free: int
    place: str
    used: bool
    fits: bool
    fix: str


@dataclass(frozen=True)
class CheckFindings:
    """Whether rows that share a batch have the gradients that they have alone.

    Attributes:
        verdict: "whole batches"; "one at a time", which is right and slow; "refused"; "not run".
        reason: Why it is not "whole batches"; empty where it is.
        seconds: How long the check took.
    """

    verdict: Literal["whole batches", "one at a time", "refused", "not run"]
    reason: str
    seconds: float = 0.0


@dataclass(frozen=True)
class TimeFindings:
    """What a few batches took, and so what a selection would take on one process, without the choice itself.

    Attributes:
        batches: Number of timed batches, after one to warm up.
        rows: Number of rows in them.
        encode_seconds: Seconds a row, to read and to encode.
        gradient_seconds: Seconds a row, in a pass.
        sketch_seconds: Seconds a row, in the first pass.
        gradient_passes: Number of passes over the model: 2 where the gradient rows do not go into a file.
        seconds: Seconds for the whole dataset.
    """

    batches: int
    rows: int
    encode_seconds: float
    gradient_seconds: float
    sketch_seconds: float
    gradient_passes: int
    seconds: float


@dataclass(frozen=True)
class ClassCount:
    """A class of the dataset: its rows, and how many of them the settings leave; None where no budget tells."""

    name: str
    rows: int
    kept: int | None


@dataclass(frozen=True)
class ClassFindings:
    """The classes of the label column.

    Attributes:
        column: The column.
        classes: All that have rows, the smallest first.
        without_rows: Names that the column knows and no row has.
        order: How the dataset's class numbers become the model's: "same"; "mapped by name"; "differs", where names
            disagree and numbers are taken as they are; "by number", where one of the two names no classes.
    """

    column: str
    classes: tuple[ClassCount, ...]
    without_rows: tuple[str, ...]
    order: ClassOrder


@dataclass(frozen=True)
class Lengths:
    """Tokens of the rows that were looked at and have any.

    Attributes:
        shortest: The fewest.
        median: Tokens of the row in the middle.
        longest: The most, after the cut.
        cut: Number of rows that lose tokens beyond `max_length`.
        max_length: Tokens that a row may have.
    """

    shortest: int
    median: int
    longest: int
    cut: int
    max_length: int


@dataclass(frozen=True)
class RowFindings:
    """The dataset.

    Attributes:
        rows: N, the number of rows.
        looked_at: Number of rows that were encoded to see what they are; all, or some from all over the dataset.
        read: Columns that feed the model.
        unread: The others.
        label_column: The column that the loss sees; None where labels are made of the inputs, or by a collator.
        null_labels: Number of all rows that have none.
        unusable: Number of rows, of those that were looked at, that cannot be encoded.
        empty: Number of rows, of the same, without tokens: they are set aside.
        classes: The classes; None where rows have none.
        lengths: The lengths; None where rows have none.
    """

    rows: int = 0
    looked_at: int = 0
    read: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    label_column: str | None = None
    null_labels: int = 0
    unusable: int = 0
    empty: int = 0
    classes: ClassFindings | None = None
    lengths: Lengths | None = None
