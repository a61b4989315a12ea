"""Imports go down the layers of ARCHITECTURE.md, and no module reaches the network or a pickle."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sage_hf

ROOT = Path(sage_hf.__file__).parent
# Top knows bottom; a folder knows no other of its own line.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("demo",),
    ("training", "comparison", "diagnosis", "explorer"),
    ("selector",),
    ("selection",),
    ("report",),
    ("hub", "passes"),
    ("data",),
    ("strategies", "gradients"),
    ("scoring", "utils"),
    ("config",),
    ("errors",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path):
    """Rooms of sage_hf that a file imports, at any depth of its code."""
    package = path.relative_to(ROOT).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            names = [*base, *(node.module or "").split(".")] if node.module else [*base]
            found |= {names[0]} if names else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("sage_hf") for alias in node.names), "import relatively"
    return found - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_knows_only_the_rooms_below_it(path):
    here = room(path)
    for other in imported_rooms(path) - {here}:
        assert LEVEL[other] > LEVEL[here], f"{here} imports {other}"


def test_every_room_has_a_layer():
    assert {room(path) for path in FILES} == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small_and_free_of_pickle(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 420
    assert "import pickle" not in text
    # Of an optimizer's state, which Trainer writes so, tensors and numbers alone.
    assert text.count("torch.load(") == text.count("weights_only=True)")


def loaded_by(code):
    """Which slow or optional libraries a piece of code imports."""
    slow = ("torch", "transformers", "datasets", "sklearn", "pandas", "matplotlib", "evaluate", "peft", "trl")
    code = f"import sys\ntry:\n    {code}\nfinally:\n    print([m for m in {slow!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return ast.literal_eval(result.stdout.splitlines()[-1]), result


def test_the_package_is_imported_without_what_is_slow():
    assert loaded_by("import sage_hf; sage_hf.SageConfig(fraction=0.1)")[0] == []


def test_the_selector_is_imported_without_what_is_optional():
    # transformers itself imports scikit-learn where it is installed.
    assert not {"matplotlib", "evaluate", "trl"} & {*loaded_by("from sage_hf import SageSelector")[0]}


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        *(
            [command, "--help"]
            for command in ("select", "choose", "show", "report", "doctor", "label-issues", "apply", "compare", "push")
        ),
        ["demo", "--help"],
        ["selct"],
        ["select", "model", "rows.jsonl", "--fractoin", "0.1"],
        ["select", "model", "no/such/file.csv", "--fraction", "0.1", "-o", "out"],
        ["select", "model", "rows", "--fraction", "10", "-o", "out"],
        ["select", "model", "rows", "--strategy", "agreemnt", "-o", "out"],
        ["label-issues", "model", "rows", "-o", "issues.txt"],
        ["apply", "rows", "issues.txt", "-o", "clean"],
        ["select", "model", "rows", "--exclude", "issues.csv", "-o", "out"],
    ],
    ids=" ".join,
)
def test_help_and_wrong_words_are_answered_without_what_is_slow(words):
    found, result = loaded_by(f"from sage_hf.cli.main import app; app({words!r})")
    assert found == [], result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout.startswith(" Usage") or "Error" in result.stderr or "Usage" in result.stdout


def test_public_names_are_what_type_checkers_see():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == sage_hf._HOME_OF and sorted(seen) == sage_hf.__all__
    for name in sage_hf.__all__:
        assert getattr(sage_hf, name).__module__.startswith("sage_hf") and name in dir(sage_hf)
    with pytest.raises(AttributeError, match="no attribute 'SageSelektor'"):
        _ = sage_hf.SageSelektor
