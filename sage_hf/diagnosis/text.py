"""A diagnosis in plain words, as something `rich` prints; nothing of the user's is read as markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .findings import (
    CheckFindings,
    ClassFindings,
    ModelFindings,
    Problem,
    RowFindings,
    Space,
    TimeFindings,
    WeightKind,
)

# Kinds of weights, and columns, that are listed.
_KINDS, _COLUMNS = 12, 10
_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold"}
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
_ORDERS = {
    "same": "the model's",
    "mapped by name": "not the model's, but labels are mapped by name",
    "differs": "not the model's: the names differ, and labels are taken by their numbers",
    "unknown texts": "not known: labels are texts, and some of them are not classes of the model",
    "by number": "taken by number, because the model or the dataset names no classes",
}


def render_model(model: ModelFindings) -> list[RenderableType]:
    """The model, the table of what is targeted, and the width of a row."""
    parts = _title("Model", f"{model.kind}, {model.weights:,} weights, of which {model.trainable:,} are trained")
    if not model.targets:
        return parts
    parts += [Text(f"Gradients are of {percent(model.share)} of the trainable weights:"), _table(model.targets)]
    if model.others:
        parts += [Text("Trained, but not in the gradients:"), _table(model.others)]
    how = "exact" if model.exact else f"projected from {model.targeted:,}"
    return [*parts, Text(f"A row's gradient has {model.width:,} numbers ({how}).")]


def render_spaces(spaces: Sequence[Space]) -> list[RenderableType]:
    """Memory and disk, each against what is free."""
    if not spaces:
        return []
    lines = [
        f"{each.what}: {size(each.needed)} of {size(each.free)} free"
        + ("" if each.place == "memory" else f" in {each.place}")
        + ("" if each.used else ", if you ask for it")
        + ("." if each.fits else ": too little.")
        for each in spaces
    ]
    return [*_title("Memory and disk", "beside the model and its activations"), *map(Text, lines)]


def render_rows(rows: RowFindings) -> list[RenderableType]:
    """Columns, labels, classes and lengths."""
    every = "all" if rows.looked_at == rows.rows else f"{rows.looked_at:,} from all parts of it"
    parts = _title("Dataset", f"{plural(rows.rows, 'row')}; {every} were looked at")
    if rows.read:
        others = f"; not read: {listed(rows.unread)}" if rows.unread else ""
        parts.append(Text(f"Columns that are read: {listed(rows.read)}{others}."))
    if rows.label_column is not None:
        nulls = f", null in {plural(rows.null_labels, 'row')}" if rows.null_labels else ""
        parts.append(Text(f"Labels: column {rows.label_column!r}{nulls}."))
    if rows.classes is not None:
        parts += _classes(rows.classes)
    if (lengths := rows.lengths) is not None:
        cut = f"{plural(lengths.cut, 'row')} {'is' if lengths.cut == 1 else 'are'}"
        line = f"Tokens a row: {lengths.shortest:,} to {lengths.longest:,}, median {lengths.median:,}"
        parts.append(Text(f"{line}; {cut} cut at {lengths.max_length:,}."))
    counts = {"without tokens": rows.empty, "cannot be encoded": rows.unusable}
    if unusable := [f"{count:,} {what}" for what, count in counts.items() if count]:
        good = f"{rows.looked_at - rows.empty - rows.unusable:,} can be used"
        parts.append(Text(f"Of the {rows.looked_at:,} rows that were looked at: {', '.join(unusable)}; {good}."))
    return parts


def render_check(check: CheckFindings | None, time: TimeFindings | None, rows: int | None) -> list[RenderableType]:
    """The check's result, and how long a selection would take."""
    if check is None:
        return []
    parts = _title("Check against autograd, one row at a time", f"{check.verdict}, {check.seconds:.1f} s")
    if check.reason:
        parts.append(Text(f"{check.reason[0].upper()}{check.reason[1:]}."))
    if time is not None and rows is not None:
        passes = "two passes over the model" if time.gradient_passes > 1 else "one pass over the model"
        batches = f"{time.batches} batch{'es' if time.batches > 1 else ''}"
        parts.append(Text(f"Time: {duration(time.seconds)} for {plural(rows, 'row')} ({passes}; timed on {batches})."))
    return parts


def render_problems(problems: Sequence[Problem]) -> list[RenderableType]:
    """What to change, the most important first, and what is worth knowing."""
    to_change = [problem for problem in problems if problem.severity != "note"]
    notes = [problem for problem in problems if problem.severity == "note"]
    parts = _title("What to change" if to_change else "Nothing to change")
    parts += [_entry(f"{number}. ", problem) for number, problem in enumerate(to_change, 1)]
    if notes:
        parts += [*_title("Worth knowing"), *(_entry("", problem) for problem in notes)]
    return parts


def duration(seconds: float) -> str:
    """A duration as people say it: `about 12 minutes`."""
    for length, unit in _UNITS:
        if seconds >= 1.5 * length or (length == 1 and seconds >= 0.5):
            count = seconds / length
            number = (f"{count:.1f}" if count < 3 and length > 60 else f"{count:.0f}").removesuffix(".0")
            return f"about {number} {unit}{'' if number == '1' else 's'}"
    return "about a second"


def size(count: int) -> str:
    """Bytes as people say them."""
    for unit, power in (("TB", 40), ("GB", 30), ("MB", 20)):
        if count >= 1 << power:
            number = count / (1 << power)
            return f"{number:.1f} {unit}" if number < 10 else f"{number:,.0f} {unit}"
    return "under 1 MB"


def short(count: int) -> str:
    """A large number, rounded: `4.2 M`."""
    for unit, power in (("B", 9), ("M", 6)):
        if count >= 10**power:
            return f"{count / 10**power:,.1f} {unit}"
    return f"{count:,}"


def plural(count: int, word: str) -> str:
    """A number of things."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def percent(share: float) -> str:
    """A share, never rounded to all or nothing."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{share:.0%}".replace("%", " %") if share in (0, 1) else f"{min(share, 0.999):.1%}".replace("%", " %")


def listed(names: Iterable[str], most: int = _COLUMNS) -> str:
    """Names with commas, the first of many."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _title(name: str, summary: str = "") -> list[RenderableType]:
    return [Text.assemble((f"\n{name}", "bold"), f": {summary}" if summary else "")]


def _table(kinds: Sequence[WeightKind]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=True)
    for name, most in (("layers", 24), ("rule", 20)):
        table.add_column(name, overflow="ellipsis", no_wrap=True, max_width=most)
    for name in ("tensors", "weights", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("such as", overflow="ellipsis", no_wrap=True, ratio=1, min_width=8)
    for kind in kinds[:_KINDS]:
        numbers = (f"{kind.parameters:,}", short(kind.weights), percent(kind.share))
        table.add_row(Text(kind.layer), Text(kind.rule), *numbers, Text(kind.examples[0]))
    if rest := kinds[_KINDS:]:
        tensors, weights = sum(kind.parameters for kind in rest), sum(kind.weights for kind in rest)
        share = percent(sum(kind.share for kind in rest))
        table.add_row(f"{len(rest)} more", "", f"{tensors:,}", short(weights), share, "")
    return table


def _classes(findings: ClassFindings) -> list[RenderableType]:
    if not findings.classes:
        return []
    small, large = findings.classes[0], findings.classes[-1]
    lines = [
        f"Classes: {len(findings.classes):,}; the smallest is {small.name!r} ({plural(small.rows, 'row')}), the "
        f"largest {large.name!r} ({plural(large.rows, 'row')}).",
        f"Their order is {_ORDERS[findings.order]}.",
    ]
    if findings.without_rows:
        lines.append(f"Classes without any row: {listed(map(repr, findings.without_rows))}.")
    return [*map(Text, lines)]


def _entry(mark: str, problem: Problem) -> RenderableType:
    text = Text.assemble(
        mark, (problem.severity, _STYLES[problem.severity]), f": {problem.what} [{problem.where}]. {problem.fix}"
    )
    text.overflow = "fold"
    return Padding(text, (0, 0, 0, 1))
