"""Where a measurement was made: goes into every result file."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import accelerate
import datasets
import psutil
import torch
import transformers

import sage_hf

RESULTS = Path(__file__).parent / "results"
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


def write(name: str, result: dict[str, Any], table: str, folder: Path = RESULTS) -> None:
    """Saves NAME.json and NAME.md, of a part of a benchmark in another folder than `results`, and prints the table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(to_json({"machine": describe(), **result}) + "\n")
    (folder / f"{name}.md").write_text(table + "\n")
    print(table)
