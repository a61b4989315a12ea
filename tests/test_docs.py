"""What README and pages say works: their Python runs, their shell lines parse, their links and tables hold."""

import ast
import inspect
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
import typer
import yaml
from datasets import ClassLabel, Dataset, Features, Value

import sage_hf
from examples.benchmarks.readme import pages, with_tables
from examples.python_text import build_bert, build_llama, train_tokenizer
from sage_hf.cli.main import app
from sage_hf.cli.paths import FORMATS
from sage_hf.config import STRATEGY_LINES
from sage_hf.gradients.layers.rules import RULES
from sage_hf.strategies import STRATEGIES

from .cases import llama, lm_batch

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Every page that people read.
OTHERS = ("examples/README.md", "CONTRIBUTING.md", "ARCHITECTURE.md")
PAGES = {str(path.relative_to(ROOT)): path for path in [*pages(), *(ROOT / name for name in OTHERS)]}
# A fence with its language, and the comment before it.
BLOCK = re.compile(
    r"(?:<!-- (?P<note>[^>]*?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
LANGUAGES = {"python", "sh", "text"}
CALL = re.compile(r"^(?:.* -m sage_hf|sage-hf)\s+(?P<words>.*)$")


@dataclass
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    code: str
    not_run: bool
    names: str | None

    @property
    def place(self):
        """For messages."""
        return f"{self.page}:{self.line}"


def blocks_of(page):
    text = PAGES[page].read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        note = match["note"] or ""
        names = note.removeprefix("with: ") if note.startswith("with: ") else None
        line = text.count("\n", 0, match.start("code"))
        found.append(Block(page, line, match["language"], match["code"], note.startswith("not run: "), names))
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
(README_CODE,) = (block.code for block in PYTHON if block.page == "README.md")
SHELL = [block for block in BLOCKS if block.language == "sh"]


# ---------------------------------------------------------------------- Python
def classifier():
    """A tiny model of two classes, its tokenizer, and rows to train on and to test with."""
    words = {"good": "ripe sweet fresh bright", "bad": "sour rotten stale dull"}
    rows = [
        {"text": f"{word} {fruit} number {number}", "label": label}
        for number in range(8)
        for label, kind in enumerate(words)
        for word in words[kind].split()
        for fruit in ("apples", "pears")
    ]
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(words))})
    every = Dataset.from_list(rows, features=features)
    tokenizer = train_tokenizer(every["text"], 300)
    tokenizer.pad_token = tokenizer.eos_token

    def build(seed=0):
        torch.manual_seed(seed)
        return build_bert(len(tokenizer), 2, width=16)

    parts = every.train_test_split(test_size=32, seed=0)
    names = {"model": build(), "tokenizer": tokenizer, "build": build}
    return {**names, "dataset": parts["train"], "test": parts["test"]}


def language_model():
    """A tiny language model, its tokenizer, and rows of text."""
    dataset = Dataset.from_dict({"text": [f"row {number} of a text about {number % 7}" for number in range(48)]})
    tokenizer = train_tokenizer(dataset["text"], 300)
    tokenizer.pad_token = tokenizer.eos_token
    return {"model": build_llama(len(tokenizer), 16), "tokenizer": tokenizer, "dataset": dataset}


def tensors():
    """A stream of rows, a model and a batch."""
    return {"stream": [torch.randn(16, 32) for _ in range(8)], "model": llama(), "batch": lm_batch()}


NAMES = {"classifier": classifier, "language_model": language_model, "tensors": tensors}


@pytest.fixture
def _registries():
    """What pages register is theirs alone."""
    held = [(registry, dict(registry)) for registry in (STRATEGIES, STRATEGY_LINES, RULES)]
    yield
    for registry, before in held:
        registry.clear()
        registry.update(before)


@pytest.mark.parametrize("page", sorted({block.page for block in PYTHON if not block.not_run} - {"README.md"}))
@pytest.mark.usefixtures("_registries")
def test_the_python_of_a_page_runs_from_its_top_to_its_end(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # dataclasses look there
    given = None
    for block in blocks_of(page):
        if block.language != "python" or block.not_run or block.code == README_CODE:
            continue
        if block.names not in (None, given):
            given = block.names
            vars(module).update(NAMES[given]())
        # Errors then name the page and its line.
        exec(compile("\n" * block.line + block.code, str(PAGES[page]), "exec"), vars(module))


@pytest.mark.slow
def test_the_python_of_the_readme_runs_as_it_stands():
    assert len([line for line in README_CODE.splitlines() if line.strip()]) <= 10
    result = subprocess.run([sys.executable, "-c", README_CODE], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "sage_score" in result.stdout
    before, after = map(float, re.search(r"([\d.]+) ([\d.]+)\s*$", result.stdout).groups())
    assert after < before


@pytest.mark.parametrize("block", [block for block in PYTHON if block.not_run], ids=lambda block: block.place)
def test_python_that_is_not_run_parses_and_uses_names_and_arguments_that_are_there(block):
    """Names imported from the package, keyword arguments of its classes and functions, and methods by name."""
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sage_hf":
            assert all(hasattr(import_module(node.module), name.name) for name in node.names), block.place
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in sage_hf.__all__:
            taken = inspect.signature(getattr(sage_hf, node.func.id)).parameters
            if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken.values()):
                assert {each.arg for each in node.keywords} <= set(taken), block.place
    methods = re.findall(r"\b(?:selection|Selection)\.(\w+)\(", block.code)
    assert all(hasattr(sage_hf.Selection, name) for name in methods), block.place


# ----------------------------------------------------------------------- shell
def lines_of(block):
    """The lines of a block as the shell has them, without comments; continued ones joined."""
    for line in re.sub(r"\\\n\s*", " ", block.code).splitlines():
        words = shlex.split(line.replace("$RANK", "0").replace("$ADDRESS", "host"), comments=True)
        if words:
            yield words


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.place)
def test_lines_of_the_shell_parse(block):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    group = typer.main.get_command(app)
    for words in lines_of(block):
        if words[0] == "make":
            assert set(words[1:]) <= set(targets), words
        for word in words:
            if word.startswith("examples/"):
                assert (ROOT / word).exists(), word
        found = CALL.match(shlex.join(words))
        if found is None:
            continue
        name, *arguments = shlex.split(found["words"])
        if name.startswith("-"):
            group.make_context("sage-hf", [name], resilient_parsing=True)
            continue
        command = group.get_command(group.make_context("sage-hf", [], resilient_parsing=True), name)
        assert command is not None, words
        options = command.make_context(name, arguments).params
        if name == "compare":  # which rows to judge by: of a file there is no other split
            is_file = Path(options["dataset"]).suffix in FORMATS
            assert (options["test_size"] is None) != (options["test_split"] is None), words
            assert not (is_file and options["test_split"]), words


def test_every_block_has_a_language_that_is_tested():
    ours = [block for block in BLOCKS if block.page not in OTHERS]
    assert {block.language for block in ours} <= LANGUAGES
    fences = sum(path.read_text(encoding="utf-8").count("\n```") for page, path in PAGES.items() if page not in OTHERS)
    assert fences == 2 * len(ours)


# ----------------------------------------------------------------------- pages
@pytest.mark.parametrize("page", PAGES)
def test_the_tables_of_a_page_are_the_measured_ones(page):
    text = PAGES[page].read_text(encoding="utf-8")
    assert with_tables(text) == text


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_is_there(page):
    text = PAGES[page].read_text(encoding="utf-8")
    for path in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert PAGES[page].parent.joinpath(path).exists(), path
    for path in re.findall(r"python (examples/[\w/]+\.py)", text):
        assert (ROOT / path).exists(), path


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_reference_has_every_public_name_once():
    found = re.findall(
        r"^::: sage_hf\.(?:\w+\.)*(\w+)$", "\n".join(map(Path.read_text, DOCS.glob("api/*.md"))), re.MULTILINE
    )
    assert sorted(found) == sorted(sage_hf.__all__)


def test_the_list_of_settings_has_every_field_of_the_config():
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in sage_hf.SageConfig.__dataclass_fields__)


def test_the_citation_is_of_this_version():
    held = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert held["version"] == sage_hf.__version__


@pytest.mark.slow
def test_the_site_builds_without_a_broken_link_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    loaded = re.compile(r"<(?:link|script|img|iframe)\b[^>]*(?:href|src)=\"?(https?://[^\" >]+)")
    for page in (tmp_path / "site").rglob("*.html"):
        assert not loaded.findall(page.read_text(encoding="utf-8")), page
    reference = (tmp_path / "site" / "api" / "selecting.html").read_text(encoding="utf-8")
    assert 'id="sage_hf.SageSelector.select"' in reference
    assert 'id="sage_hf.Selection.push_to_hub"' in reference
    assert "_knob" not in reference
