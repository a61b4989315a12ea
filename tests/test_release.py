"""What is built and installed works away from its source: templates, types, the shell."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sage_hf
from sage_hf.cli import app

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_holds_the_package_and_nothing_else(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "sage_hf").rglob("*") if path.suffix in (".py", ".md")}
    assert sources <= names
    assert {"sage_hf/py.typed", "sage_hf/templates/model_card.md"} <= names
    assert {name.split("/")[0] for name in names} == {"sage_hf", f"sage_hf-{sage_hf.__version__}.dist-info"}


def test_the_sdist_holds_what_the_tests_need(built):
    with tarfile.open(built[1]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/test_sketch.py", "Makefile"} <= names
    assert not any(name.startswith((".venv", "out/")) for name in names)


def test_the_installed_wheel_runs_away_from_its_source(built, tmp_path):
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*command, str(built[0])], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    code = "import sage_hf, sage_hf.model_card; from importlib.resources import files; print(sage_hf.__file__);"
    code += "print((files('sage_hf') / 'templates' / 'model_card.md').read_text()[:3])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    place, template = done.stdout.split()
    assert Path(place).is_relative_to(target)
    assert template == "---"
    for command in ([sys.executable, "-m", "sage_hf"], [sys.executable, str(target / "bin" / "sage-hf")]):
        done = subprocess.run(
            [*command, "--version"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == f"sage-hf {sage_hf.__version__}"


def test_env_shows_versions_and_nothing_private(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    result = CliRunner().invoke(app, ["env"])
    assert result.exit_code == 0
    for name in ("sage_hf", "Python", "torch", "transformers", "datasets", "accelerate", "CUDA"):
        assert f"{name}: " in result.output
    assert "hf_secret" not in result.output
    assert str(Path.home()) not in result.output
