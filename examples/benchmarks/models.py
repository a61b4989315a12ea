"""Which model classes give right rows: the zoo of the tests, all of it, in all its settings.

    python examples/benchmarks/models.py                # two processes, about 20 minutes; writes results/models.*
    python examples/benchmarks/models.py Longformer LED # families whose names hold a word, into out/benchmarks/models

"Right" is a whole batch at once, "one at a time" is right and slow, "refused" is an error that says why. Every row is
held to autograd of that row alone, weight by weight. A setting that comes to another verdict than the plain one (sdpa,
padding on the right, float32) is named in the last column.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.zoo.families import FAMILIES, PLAIN, SETTINGS, TARGETS
from tests.zoo.family import Setting, make_batch
from tests.zoo.truth import truths_of
from tests.zoo.verdict import WRONG, Verdict, judge

WORDS = ("right", "one at a time", "refused", WRONG, "crash", "not run")
LONGEST_REASON = 160


def try_setting(name: str, setting: Setting) -> dict[str, Verdict]:
    """The verdict of each target; "not run" where the model itself does not compute in the setting."""
    family = FAMILIES[name]
    try:
        batch = make_batch(family, setting)
        truths = truths_of(family, setting, batch)
    except Exception as error:  # whatever a model raises
        return {target: Verdict("not run", f"{type(error).__name__}: {error}") for target in TARGETS}
    found = {}
    for target in TARGETS:
        try:
            found[target] = judge(family, setting, batch, truths, target)
        except Exception as error:  # a crash is a finding, too
            found[target] = Verdict("crash", f"{type(error).__name__}: {error}")
    return found


def try_family(name: str) -> dict[str, Any]:
    """A family's line of the table."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    plain = try_setting(name, PLAIN)
    line: dict[str, Any] = {
        "family": name,
        "head": FAMILIES[name].head,
        "share": round(plain["auto"].share, 3),
        "differs": {},
        "settings": 1,
    }
    for target, verdict in plain.items():
        line[target] = verdict.word
        line[f"left out by {target}"] = len(verdict.left_out)
        if verdict.word != "right" or verdict.left_out:
            line[f"reason of {target}"] = _short(verdict.reason)
    for setting in SETTINGS[1:]:
        if not FAMILIES[name].has(setting):
            continue
        line["settings"] += 1
        for target, verdict in try_setting(name, setting).items():
            if verdict.word != plain[target].word:
                line["differs"][f"{setting.name} {target}"] = [verdict.word, _short(verdict.reason)]
    return line


def _short(reason: str) -> str:
    """The sentence of the reason that tells most, on one line."""
    parts = [part for part in reason.split(" | ") if part]
    told = next((part for part in parts if "one at a time" in part), parts[0] if parts else "")
    told = told.replace("Rows are scored one at a time, which is right but slow: ", "").replace("\n", " ")
    return told if len(told) <= LONGEST_REASON else f"{told[:LONGEST_REASON]} ..."


def report(lines: list[dict[str, Any]], version: str) -> str:
    """The table of all families as Markdown; `version` is that of transformers."""
    counts = {target: Counter(line[target] for line in lines) for target in TARGETS}
    other = Counter(word for line in lines for word, _ in line["differs"].values())
    cells = sum(line["settings"] * len(TARGETS) for line in lines)
    text = [
        "# Model classes held to batch-of-1",
        "",
        f"{len(lines)} families ({len({line['family'].split('-')[0] for line in lines})} model classes) of "
        f"transformers {version}, tiny configs, 4 rows of uneven length, every weight of every row "
        f"against autograd of the row alone; {cells} runs over targets, attention, padding and precision. "
        "Written by `make models`.",
        "",
        "| target | " + " | ".join(WORDS) + " |",
        "|---|" + "---|" * len(WORDS),
        *(f"| {target} | " + " | ".join(str(counts[target][word]) for word in WORDS) + " |" for target in TARGETS),
        "| other settings, where another verdict | " + " | ".join(str(other[word]) for word in WORDS) + " |",
        "",
        "| model class | head | auto | all | share of auto | reason, and settings with another verdict |",
        "|---|---|---|---|---|---|",
    ]
    for line in lines:
        verdicts = [_cell(line, target) for target in TARGETS]
        reasons = list(
            dict.fromkeys(line[f"reason of {target}"] for target in TARGETS if line.get(f"reason of {target}"))
        )
        reasons += [f"{setting}: {word}" for setting, (word, _) in line["differs"].items()]
        told = "; ".join(reasons).replace("|", "\\|")
        text.append(f"| {line['family']} | {line['head']} | {' | '.join(verdicts)} | {line['share']:.2f} | {told} |")
    return "\n".join(text) + "\n"


def _cell(line: dict[str, Any], target: str) -> str:
    left_out = line[f"left out by {target}"]
    return line[target] + (f", {left_out} weight{'s' if left_out > 1 else ''} left out" if left_out else "")


def main() -> None:
    """Tries the families, all or those whose names hold one of the words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", default=[], help="of the names of families; all by default")
    arguments = parser.parse_args()
    names = [name for name in FAMILIES if not arguments.words or any(word in name for word in arguments.words)]
    found = {}
    with ProcessPoolExecutor(max_workers=2) as pool:
        for number, line in enumerate(pool.map(try_family, names, chunksize=4), 1):
            found[line["family"]] = line
            print(
                f"{number}/{len(names)} {line['family']}: {line['auto']}, {line['all']}, {line['differs']}", flush=True
            )
    from machine import results_of

    write(results_of(parser, arguments), [found[name] for name in FAMILIES if name in found])


def write(folder: Path, lines: list[dict[str, Any]]) -> None:
    """Writes both files of the results, to a folder by `results_of`."""
    folder.mkdir(parents=True, exist_ok=True)
    written = ",\n".join(json.dumps(line, separators=(",", ":")) for line in lines)
    text = f'{{"transformers": "{transformers.__version__}", "families": [\n{written}\n]}}\n'
    (folder / "models.json").write_text(text, encoding="utf-8")
    (folder / "models.md").write_text(report(lines, transformers.__version__), encoding="utf-8")


if __name__ == "__main__":
    main()
