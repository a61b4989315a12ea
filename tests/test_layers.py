"""Imports go down the layers of ARCHITECTURE.md, and no module reaches the network or a pickle."""

import ast
from pathlib import Path

import pytest

import sage_hf

ROOT = Path(sage_hf.__file__).parent
# Top knows bottom; a folder knows no other of its own line.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("demo",),
    ("training", "comparison", "diagnosis"),
    ("selector",),
    ("selection",),
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


def test_importing_the_package_does_not_import_what_is_optional():
    import subprocess
    import sys

    code = "import sys, sage_hf; print([m for m in ('matplotlib', 'sklearn', 'peft', 'evaluate') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # transformers itself imports scikit-learn where it is installed; sage_hf does not.
    assert "matplotlib" not in result.stdout
    assert "evaluate" not in result.stdout
