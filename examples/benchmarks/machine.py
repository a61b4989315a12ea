"""Where a measurement was made, which goes into every result file, and where the files of a run belong.

`results/`, which is committed, is written by a whole run alone: every setting as it is by default, and everything
measured. Any other run writes to a folder of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Container
from pathlib import Path
from typing import Any

import accelerate
import datasets
import psutil
import torch
import transformers

import sage_hf

RESULTS = Path(__file__).parent / "results"
# Where a part of a run writes, in a folder by its name, where the benchmark has no folder for finished parts.
PARTS = Path("out/benchmarks")
LINE = 119


def describe() -> dict[str, Any]:
    """Processor, memory and versions; nothing that names the machine."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": psutil.cpu_count(logical=False),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads_used": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "datasets": datasets.__version__,
        "accelerate": accelerate.__version__,
        "sage_hf": sage_hf.__version__,
    }


def to_json(value: Any, indent: str = "") -> str:
    """JSON with a line for each entry of a list, and for each name whose values are plain or lists of numbers."""
    line, inner = json.dumps(value), indent + " "
    if len(line) <= LINE or not any(map(_has_names, value.values() if isinstance(value, dict) else value)):
        return line
    if isinstance(value, dict):
        parts = [f"{json.dumps(str(name))}: {to_json(part, inner)}" for name, part in value.items()]
        return "{\n" + ",\n".join(inner + part for part in parts) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + json.dumps(part) for part in value) + f"\n{indent}]"


def _has_names(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_has_names, value)))


def results_of(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    *,
    free: Container[str] = ("report",),
    is_whole: bool = True,
) -> Path:
    """The folder for the results of a run: `results/` of a whole one; of any other, one of its own, which is said.

    Args:
        parser: Knows the defaults.
        arguments: What was asked for.
        free: Names of arguments on which the numbers do not depend.
        is_whole: Whether everything that a whole run measures is there.
    """
    asked = {name: value for name, value in vars(arguments).items() if name not in free}
    changed = [
        f"--{name.replace('_', '-')}" for name in asked if not _is_default(parser.get_default(name), asked[name])
    ]
    if is_whole and not changed:
        return RESULTS
    own = getattr(arguments, "folder", None)
    folder = PARTS / Path(sys.argv[0]).stem if own is None else Path(own) / "results"
    why = f"{', '.join(changed)} is not as by default" if changed else "something is not measured yet"
    print(f"No whole run ({why}): its results are in {folder}, and {RESULTS.name}/ stays as it is.", flush=True)
    return folder


def _is_default(default: Any, value: Any) -> bool:
    return (
        list(default) == list(value) if isinstance(value, (list, tuple)) and default is not None else default == value
    )


def write(folder: Path, name: str, result: dict[str, Any], table: str) -> None:
    """Saves NAME.json and NAME.md in a folder by `results_of`, and prints the table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(to_json({"machine": describe(), **result}) + "\n")
    (folder / f"{name}.md").write_text(table + "\n")
    print(table)
