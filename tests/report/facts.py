"""Facts of a report, made up, with whatever names a test wants."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sage_hf import SageConfig
from sage_hf.data.stats import GateStats, GroupStats, SelectionStats
from sage_hf.hub.pictures import Seen
from sage_hf.report import ReportFacts, RowList

HOSTILE = (
    """{{ 7 * 7 }}<script>alert(1)</script>'"><img src=x onerror=alert(2)>]]><!-- </style></title> & \x00\u202e"""
)


@dataclass
class OneRow:
    row: int
    outcome: str = "kept"
    score: float | None = 0.5
    loss: float | None = 1.25
    group: str = "a"
    label: str | None = None
    doubt: float | None = None
    suggestion: str | None = None
    content: dict[str, Any] | None = field(default_factory=dict)


def seen(groups=3, rows=60, others=True, kept_share=0.25, names="class {}"):
    generator = np.random.default_rng(0)
    parts = [np.sort(generator.uniform(-0.3, 1, rows).astype(np.float32)) for _ in range(groups)]
    cut = max(1, round(rows * kept_share))
    table = [GroupStats(names.format(n), rows, cut, 0, 0.1, 0.2) for n in range(groups)]
    left = [part[:-cut] for part in parts] if others else None
    return Seen(
        "label" if groups > 1 else None, table, [part[-cut:] for part in parts], left, [4.0, 2.0, 1.0, 0], 10.0
    )


def stats(shown, **changes):
    values = {
        **{"energy": 0.7, "error_bound": 0.1, "squared_norm": 10.0, "spectrum": list(shown.spectrum)},
        **{"sketch_size": 4, "row_width": 64, "target_weights": 1000, "target_share": 1.0, "left_out": []},
        **{"consensus": "streaming", "group_by": shown.group_by, "one_at_a_time": False, "processes": 1},
        "model": {"class": "Tiny", "id": None, "revision": None},
        "source": {"name": "rows", "id": None, "config": "default", "split": "train", "splits": [], "revision": None},
        **{"model_fingerprint": "ab12", "source_digest": "cd34", "versions": {"torch": "2.9"}, "check_seconds": 0.1},
        **{"strategy": "auto", "rows": sum(g.rows for g in shown.table), "kept": sum(g.kept for g in shown.table)},
        **{"set_aside": 0, "groups": list(shown.table), "lost_groups": [], "mean_score": 0.1},
        **{"mean_score_kept": 0.2, "mean_loss": 1.0, "gate": GateStats("cross-fold", 5, 100, wrong_share=0.05)},
    }
    return SelectionStats(**{**values, **changes})


def facts(shown=None, config=None, **changes):
    shown = shown or seen()
    told = {name: changes.pop(name) for name in ("gate", "command", "set_aside_count", "source") if name in changes}
    told["set_aside"] = told.pop("set_aside_count", 0)
    return ReportFacts(stats(shown, **told), config or SageConfig(fraction=0.25), shown, **changes)


def hostile_facts(name=HOSTILE):
    shown = seen(names=name.replace("{", "{{").replace("}", "}}") + "{}")
    content = {name: name, "text": name, "turns": [{"role": name, "content": name}], "short": [name], "n": 3}
    rows = [OneRow(7, "kept", group=name, label=name, doubt=0.9, suggestion=name, content=content)]
    return facts(
        shown,
        why=[name],
        outcomes={"kept": 45, "not chosen": 135},
        typical=[RowList("Highest", name, rows, 9)],
        duplicates=RowList("Near-duplicates", name, rows),
        set_aside={name: [1, 2]},
        set_aside_count=2,
        set_aside_rows=rows,
        note=name,
        command=["sage-hf", "select", name, name],
        source={"name": name, "id": None, "config": name, "split": name, "splits": [name], "revision": name},
        gate=GateStats("cross-fold", 5, 100, recipe=name),
    )
