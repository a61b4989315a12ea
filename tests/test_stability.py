"""What may not change unseen: public names, the score's definition, file formats, and what old names say.

The promise itself is docs/stability.md.
"""

import contextlib
import difflib
import importlib
import inspect
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn

import sage_hf
from sage_hf import SageConfig, SageSelector, StreamSelection
from sage_hf.cli.options import renamed
from sage_hf.utils.deprecation import OLD_NAMES, OLD_WORDS, REMOVED_IN, about_old

from . import public_names
from .cases import image_rows, vit

PAGE = (Path(__file__).parents[1] / "docs" / "stability.md").read_text(encoding="utf-8")
SECTION = "### What to change"
CHANGES = (Path(__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")


# ------------------------------------------------------------------ public names
def test_public_names_are_those_that_are_written_down():
    before, now = public_names.FILE.read_text(encoding="utf-8").splitlines(), public_names.public_names()
    lines = [line for line in difflib.ndiff(before, now) if line[0] in "+-"]
    assert not lines, (
        "Public names differ from tests/public_names.txt:\n" + "\n".join(lines) + "\nIf a line went (-): keep the "
        "old name for one minor version, with a DeprecationWarning (sage_hf/utils/deprecation.py), and say in "
        "CHANGELOG.md what to change. Then, and for new names (+): python -m tests.public_names, and commit the file."
    )


def test_names_of_this_version_hold_no_place_of_this_machine():
    assert not re.search(r"0x[0-9a-f]{6}|/home/|/tmp/|/root/", public_names.FILE.read_text(encoding="utf-8"))


def test_the_page_has_the_version_of_every_kind_of_file():
    for name, version in public_names.formats().items():
        assert f"| {name} | {version} |" in PAGE, f"docs/stability.md: {name} has format {version}"


# --------------------------------------------------------- the score's definition
CLASSES, WIDTH, SKETCH, SHARD = 3, 5, 4, 16
COUNT = 40
X = np.array(
    [[np.sin(1.7 * row + 2.3 * column + 0.6 * row * column) for column in range(WIDTH)] for row in range(COUNT)]
)
Y = np.array([(5 * row) % 7 % CLASSES for row in range(COUNT)])
W = np.array([[0.8 * np.cos(3.1 * out + 1.9 * column) for column in range(WIDTH)] for out in range(CLASSES)])
# Of some rows, by `score` below when it was written.
ROWS = [0, 7, 13, 21, 28, 39]
SCORES = {
    "streaming": [-0.2330872, 0.971346, 0.7215212, 0.5176654, 0.7978436, 0.8302688],
    "exact": [0.4307234, 0.5993542, 0.648578, 0.0848829, 0.5393741, 0.7196962],
}


def gradients():
    """[N, D], of the cross-entropy of softmax(W x) with class y: the outer product of (p - onehot(y)) and x."""
    odds = np.exp(X @ W.T)
    error = odds / odds.sum(1, keepdims=True) - np.eye(CLASSES)[Y]
    return np.stack([np.outer(error[row], X[row]).ravel() for row in range(COUNT)])


def shrunk(rows):
    """Frequent Directions' one step: singular values down by that of the first direction that does not fit."""
    _, values, directions = np.linalg.svd(rows, full_matrices=False)
    left = np.sqrt(np.maximum(values[:SKETCH] ** 2 - (values[SKETCH] ** 2 if len(values) > SKETCH else 0.0), 0.0))
    result = np.zeros((SKETCH, rows.shape[1]))
    result[: len(left)] = left[:, None] * directions[:SKETCH]
    return result


def sketch_of(rows):
    """Of a shard: 2 l rows are held, and shrunk to l when another comes, and at the end."""
    held = np.zeros((0, rows.shape[1]))
    for row in rows:
        if len(held) == 2 * SKETCH:
            held = shrunk(held)
        held = np.vstack([held, row])
    return shrunk(held)


def sketch(rows):
    """[l, D]: shards of consecutive rows, merged two and two."""
    first, second, third = (sketch_of(rows[start : start + SHARD]) for start in range(0, COUNT, SHARD))
    return shrunk(np.vstack([shrunk(np.vstack([first, second])), third]))


def unit(v):
    return v / np.linalg.norm(v)


def score(consensus):
    """[N]: the cosine, in the sketch, of a row's gradient with what its group agrees on.

    z_i = S g_i. Exact: u_g = unit(sum of z_i / |z_i|). Streaming: u_g = unit(S sum of g_i / |g_i|). Sums are over the
    rows of the group g. score_i = <z_i / |z_i|, u_g(i)>.
    """
    g = gradients()
    matrix = sketch(g)
    z = [matrix @ each for each in g]
    agreed = {}
    for group in range(CLASSES):
        members = [row for row in range(COUNT) if Y[row] == group]
        if consensus == "exact":
            agreed[group] = unit(sum(unit(z[row]) for row in members))
        else:
            agreed[group] = unit(matrix @ sum(unit(g[row]) for row in members))
    return np.array([unit(z[row]) @ agreed[Y[row]] for row in range(COUNT)])


class Linear(nn.Module):
    """The model that `gradients` is of."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(WIDTH, CLASSES, bias=False)
        self.linear.weight.data = torch.tensor(W, dtype=torch.float32)

    def forward(self, x, labels):
        logits = self.linear(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize("consensus", SCORES)
def test_the_formula_gives_the_numbers_that_are_written_down(consensus):
    assert np.allclose(score(consensus)[ROWS], SCORES[consensus], atol=1e-6)


@pytest.mark.parametrize("consensus", SCORES)
@pytest.mark.parametrize(("cache", "tolerance"), [("float32", 2e-5), ("auto", 2e-3), (None, 2e-3)])
def test_the_library_scores_by_the_formula(consensus, cache, tolerance, tmp_path):
    rows = Dataset.from_dict({"x": X.tolist(), "labels": Y.tolist()})
    config = SageConfig(
        fraction=0.5,
        strategy="agreement",
        consensus=consensus,
        sketch_size=SKETCH,
        shard_size=SHARD,
        target_modules="all",
        cache_gradients=cache,
        batch_size=8,
    )
    selector = SageSelector(Linear(), config=config, progress=False, cache_dir=tmp_path, data_collator=collate)
    assert np.allclose(selector.select(rows).scores, score(consensus), atol=tolerance)


def collate(rows):
    return {
        "x": torch.tensor([row["x"] for row in rows]).float(),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


# ---------------------------------------------------------------- what was renamed
def uses():
    """{old name: what uses it}."""
    rows = image_rows(30)
    config = SageConfig(strategy="agreement", fraction=0.3, sketch_size=8, batch_size=8, shard_size=16)
    selection = SageSelector(vit(), config=config, progress=False).select(rows)
    stream = SageSelector(vit(), config=config, progress=False).select(rows.to_iterable_dataset())
    made = {
        "Selection.save": lambda: selection.save("/"),
        "Selection.load": lambda: StreamSelection.load("/"),
        "StreamSelection.scores": lambda: stream.scores,
        "StreamSelection.groups": lambda: stream.groups,
        'stats["energy"]': lambda: selection.stats["energy"],
        'stats.get("energy")': lambda: selection.stats.get("energy"),
        '"energy" in stats': lambda: "energy" in selection.stats,
        "SageSelector(checkpoint_dir=)": lambda: SageSelector(vit(), checkpoint_dir=None),
    }
    for name in ("build_model", "test_dataset", "training", "lower_is_better", "output", "overwrite"):
        made[f"compare({name}=)"] = lambda name=name: sage_hf.compare(None, rows, rows, **{name: None})
    for name in ("find_suspects", "select_over", "Suspects"):
        made[f"sage_hf.{name}"] = lambda name=name: getattr(sage_hf, name)
    return made


def test_every_old_name_warns_its_user_and_says_what_it_is_now_and_when_it_goes():
    made = uses()
    assert set(made) == set(OLD_NAMES)
    for old, use in made.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with contextlib.suppress(sage_hf.SageError, TypeError, AttributeError):  # it is asked for nothing real
                use()
        told = [each for each in caught if each.category is DeprecationWarning and "sage_hf" in str(each.message)]
        assert [str(each.message) for each in told] == [about_old(old, OLD_NAMES[old])]
        assert told[0].filename == __file__, old


def test_every_old_word_of_the_shell_does_the_same():
    for old, new in OLD_WORDS.items():
        with pytest.warns(DeprecationWarning, match="goes in") as caught:
            assert renamed([old] if not old.startswith("-") else ["select", old])[-1] == new
        assert [str(each.message) for each in caught] == [about_old(old, new)]


def test_nothing_warns_but_what_the_tables_have():
    root = Path(sage_hf.__file__).parent
    files = [path for path in root.rglob("*.py") if "DeprecationWarning" in path.read_text(encoding="utf-8")]
    assert [path.relative_to(root).as_posix() for path in sorted(files)] == ["cli/options.py", "utils/deprecation.py"]
    # Arguments are in the table by the function that had them.
    decorated = [name for name in OLD_NAMES if "=)" in name]
    for place, function in {"comparison.compare": "compare", "selector.selector": "SageSelector"}.items():
        source = inspect.getsource(importlib.import_module(f"sage_hf.{place}"))
        block = re.search(r"@renamed_arguments\((.*?)\n?\)\n", source, re.DOTALL).group(1)
        olds = re.findall(r"(\w+)=", block)
        assert [f"{function}({old}=)" for old in olds if f"{function}({old}=)" not in decorated] == []


def test_old_names_go_in_the_minor_version_after_this_one():
    major, minor = sage_hf.__version__.split(".")[:2]
    assert f"{major}.{int(minor) + 1}.0" == REMOVED_IN, (
        "utils/deprecation.py: take out what was to go, or keep it longer"
    )


@pytest.mark.parametrize("table", [OLD_NAMES, OLD_WORDS], ids=["python", "shell"])
def test_the_page_names_everything_that_was_renamed(table):
    listed = dict(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", PAGE, re.MULTILINE))
    assert {old: listed.get(old) for old in table} == table


@pytest.mark.parametrize("table", [OLD_NAMES, OLD_WORDS], ids=["python", "shell"])
def test_the_changelog_says_what_to_change(table):
    if SECTION not in CHANGES:
        pytest.skip(f"CHANGELOG.md has no {SECTION!r} yet")
    section = CHANGES.partition(SECTION)[2].partition("\n### ")[0]
    assert [old for old, new in table.items() if f"`{old}` | `{new}`" not in section] == []
