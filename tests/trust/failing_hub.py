"""Run by test_failing_hub.py: a Hub that fails at any request of a push or a download, once or from then on.

python tests/trust/failing_hub.py FOLDER few|many
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

PLACE, IS_WHOLE = Path(sys.argv[1]), sys.argv[2] == "many"
SETTINGS = {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_write"}
os.environ |= {**SETTINGS, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HOME": str(PLACE / "home")}

from tests.hub.on_hub.plugin import HUB  # noqa: E402  # first, because it tells the Hub's library its address

HOME = PLACE / "home" / "hub"

import sage_hf.hub.push  # noqa: E402
from sage_hf import Selection  # noqa: E402
from sage_hf.errors import HubError  # noqa: E402
from tests.cases import image_rows  # noqa: E402
from tests.hub.on_hub.conftest import choose  # noqa: E402

SECTION = b"<!-- sage_hf: default -->"
# Once, and the Hub works again.
ONCE = (500, 502, 429, "hang up", "lost", "half") if IS_WHOLE else (503, "lost")
# From then on.
ALWAYS = (500, 401, 403, 429, "hang up") if IS_WHOLE else (503, 401)
WAITED = []
_sleep = time.sleep


def sleep(seconds):
    WAITED.append(seconds)
    _sleep(min(seconds, 0.002))


def state():
    """What the repository holds, and the titles of its commits."""
    repo = HUB.repos.get(("dataset", "me/kept"))
    return None if repo is None else [dict(repo.files("main")), [title for _, title, _ in repo.log["main"]]]


def is_honest(files, *wholes):
    """Whether no card tells of rows that are not there."""
    if SECTION not in files.get("README.md", b""):
        return True
    rows = {path: held for path, held in files.items() if path.endswith(".parquet")}
    return any(
        files["README.md"] == whole["README.md"]
        and rows == {path: held for path, held in whole.items() if path.endswith(".parquet")}
        for whole in wholes
    )


def prepared(before):
    """A Hub with what an earlier push has left, or none; and nothing of it on this machine."""
    shutil.rmtree(HOME, ignore_errors=True)
    HUB.clear()
    if before is not None:
        before.push_to_hub("me/kept")


def attempt(ask, **case):
    """What is asked, and what came of it."""
    try:
        case |= {"said": "", "given": ask()}
    except HubError as error:
        case["said"] = str(error)
    except Exception as error:
        case["raised"] = repr(error)
    return case


def pushes(name, selection, before, **settings):
    """The push with a fault at every request, and what came of it."""

    def push():
        selection.push_to_hub("me/kept", **settings)

    prepared(before)
    old = (state() or [{}])[0]
    HUB.break_at([], None)
    push()
    count, whole, cases = len(HUB.requests), state(), []
    for number in range(0, count, 1 if IS_WHOLE else 5):
        for fault in ONCE:
            prepared(before)
            HUB.break_at([number], fault, wait=7 if fault == 429 else 0)
            case = attempt(push, push=name, fault=f"{fault} at {number}", is_once=True)
            asked = HUB.requests[number : number + 1]
            cases.append({**case, "request": asked, "same": state() == whole})
        for fault in ALWAYS:
            prepared(before)
            HUB.break_at([number, -1], fault)
            case = attempt(push, push=name, fault=f"{fault} from {number} on", is_once=False)
            case |= {"request": HUB.requests[number : number + 1]}
            case["honest"] = is_honest((state() or [{}])[0], whole[0], old)
            HUB.break_at([], None)
            push()  # the same call
            cases.append({**case, "same": state()[0] == whole[0]})
    return cases


def downloads(selection):
    """A download with a fault at every request: the same scores, or an error; then the same again."""

    def fetch():
        return Selection.from_hub("me/kept").scores.tobytes() == selection.scores.tobytes()

    prepared(selection)
    shutil.rmtree(HOME, ignore_errors=True)
    HUB.break_at([], None)
    fetch()
    cases = []
    for number in range(0, len(HUB.requests), 1 if IS_WHOLE else 2):
        for fault in sorted({*ONCE, "half"}, key=str) if IS_WHOLE else ("half",):
            for rest in ((), (-1,)):
                shutil.rmtree(HOME, ignore_errors=True)
                HUB.break_at([number, *rest], fault)
                case = attempt(fetch, fault=f"{fault} at {number} {rest}", is_once=not rest)
                HUB.break_at([], None)
                cases.append({**case, "same": case.get("given", True) and fetch()})
    return cases


def measure():
    sage_hf.hub.push.save_pictures = lambda seen, folder: []
    time.sleep = sleep
    rows = image_rows(24)
    first, second = choose(rows), choose(rows, fraction=0.5)
    report = {"pushes": pushes("first", first, None), "downloads": downloads(first)}
    if IS_WHOLE:
        report["pushes"] += pushes("again", second, first)
        report["pushes"] += pushes("scores alone", first, None, scores_only=True)
    HUB.clear()
    HUB.break_at([0], 429, wait=7)  # the first request of a push is one that the library does not ask again
    WAITED.clear()
    first.push_to_hub("me/kept")
    report["waited"] = max(WAITED)
    (PLACE / "report.json").write_text(json.dumps(report, default=str))


if __name__ == "__main__":
    measure()
