"""Counts what was tried, and writes it down where `make trust` asks for it."""

import importlib.util
import json
import os
import platform
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from filelock import FileLock

from .scale import REPORT, TRIED

RUN: list[pytest.TestReport] = []


def pytest_runtest_logreport(report):
    RUN.append(report)


def pytest_sessionfinish(session):
    output = getattr(session.config, "workeroutput", None)
    if output is not None:  # a worker of pytest-xdist
        output["tried"] = dict(TRIED)
    elif REPORT and RUN:
        with FileLock(Path(tempfile.gettempdir()) / "sage_hf-trust.lock"):
            _write(Path(REPORT))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    TRIED.update(getattr(node, "workeroutput", {}).get("tried", {}))


def _write(path):
    """Cases, tests and time by file, with the first line of what each file says of itself; other files' lines stay."""
    areas = json.loads(path.read_text(encoding="utf-8"))["areas"] if path.exists() else []
    files = sorted({report.nodeid.partition("::")[0] for report in RUN})
    areas = [area for area in areas if area["file"] not in files and Path(area["file"]).exists()]
    for file in files:
        mine = [report for report in RUN if report.nodeid.startswith(f"{file}::")]
        calls = [report.nodeid for report in mine if report.when == "call"]
        areas.append(
            {
                "file": file,
                "what": Path(file).read_text(encoding="utf-8").split('"""')[1].split("\n")[0].rstrip("."),
                "tests": len(calls),
                "cases": sum(TRIED.get(name, 1) for name in calls),
                "failed": len({report.nodeid for report in mine if report.failed}),
                "skipped": len({report.nodeid for report in mine if report.skipped}),
                "minutes": round(sum(report.duration for report in mine) / 60, 1),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
            }
        )
    areas.sort(key=lambda area: area["file"])
    total = Counter()
    for area in areas:
        total.update({name: area[name] for name in ("tests", "cases", "failed", "skipped")})
    lines = ["| what was tried | cases | failed |", "|---|---:|---:|"]
    lines += [
        f"| {area['what']} (`{Path(area['file']).name}`) | {area['cases']:,} | {area['failed']} |" for area in areas
    ]
    lines.append(f"| together, in {total['tests']} tests | {total['cases']:,} | {total['failed']} |")
    _benchmarks().write(path.parent, path.stem, {"total": dict(total), "areas": areas}, "\n".join(lines))


def _benchmarks():
    """What writes the results of benchmarks, which is no package."""
    place = Path(__file__).parents[2] / "examples" / "benchmarks" / "machine.py"
    spec = importlib.util.spec_from_file_location("machine", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
