"""What is built and installed works away from its source: templates, types, the shell."""

import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sage_hf
from sage_hf.cli.main import app

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "sage_hf" / "hub" / "templates"
NAMES = ("selection.md", "dataset_card.md", "model_card.md", "cleaned.md")
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
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "sage_hf").rglob("*")
        if path.suffix in (".py", ".md", ".html", ".css")
    }
    assert sources <= names
    assert {"sage_hf/py.typed", *(f"sage_hf/hub/templates/{name}" for name in NAMES)} <= names
    assert {name.split("/")[0] for name in names} == {"sage_hf", f"sage_hf-{sage_hf.__version__}.dist-info"}


def test_the_sdist_holds_what_the_tests_need(built):
    with tarfile.open(built[1]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile"} <= names
    assert {"tests/cases.py", "tests/scoring/test_sketch.py"} <= names
    assert not any(name.startswith((".venv", "out/")) for name in names)


def test_the_wheel_in_a_clean_environment_has_its_templates_and_its_command(built, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")}))
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*command, str(built[0])], check=True, capture_output=True)
    # What it depends on is not downloaded again. Python does not read the .pth files there: the source stays away.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    code = "import sage_hf; from sage_hf.hub.markdown import template; print(sage_hf.__file__); "
    code += f"print(*(len(template(name)) for name in {NAMES}))"

    def run(*arguments):
        asked = {"cwd": tmp_path, "capture_output": True, "text": True, "check": True}
        return subprocess.run([str(argument) for argument in arguments], **asked).stdout

    place, lengths = run(python, "-c", code).splitlines()
    assert Path(place).is_relative_to(tmp_path)
    assert lengths.split() == [str(len(path.read_text())) for path in map(TEMPLATES.joinpath, NAMES)]
    for command in ([python, "-m", "sage_hf"], [python.with_name("sage-hf")]):
        assert run(*command, "--version").strip() == f"sage-hf {sage_hf.__version__}"
        assert f"sage_hf: {sage_hf.__version__}" in run(*command, "env")


def test_env_shows_versions_and_nothing_private(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    result = CliRunner().invoke(app, ["env"])
    assert result.exit_code == 0
    for name in ("sage_hf", "Python", "torch", "transformers", "datasets", "accelerate", "CUDA"):
        assert f"{name}: " in result.output
    assert "hf_secret" not in result.output
    assert str(Path.home()) not in result.output
