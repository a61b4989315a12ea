"""Files and names that somebody else made: nothing runs, no secret gets out, nothing becomes markup.

docs/security.md says what is trusted; here it is held.
"""

import ast
import io
import json
import logging
import os
import pickle
import re
import struct
import zipfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, List
from PIL import Image as Picture
from typer.testing import CliRunner

import sage_hf
from sage_hf import SageConfig, SageSelector, Selection
from sage_hf.cli.main import app
from sage_hf.cli.models import load_model
from sage_hf.comparison.experiment import complete
from sage_hf.errors import ConfigError, DatasetError, SageError, without_secrets

from ..cases import bert, llama, token_rows
from .hostile import Trap, small_selection
from .scale import REPORT, some, tried

ROOT = Path(sage_hf.__file__).parent
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}
TOKEN = "hf_" + "aBcDeFgH" * 4
RUNNER = CliRunner(env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"})


@pytest.fixture(scope="module")
def selection():
    return small_selection()


# ------------------------------------------------------------------------ nothing runs
@cache
def calls(tree):
    """(name with its dots, keywords, line) of every call."""
    return list(_calls(tree))


def _calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {each.arg: ast.unparse(each.value) for each in node.keywords}, node.lineno


def test_no_file_unpickles_evaluates_or_starts_a_shell():
    for path, tree in TREES.items():
        tried()
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            banned = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "cloudpickle", "subprocess", "yaml"}
            assert not banned & {name.split(".")[0] for name in names}, path
        for name, keywords, line in calls(tree):
            where = f"{path}:{line}"
            assert name not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.save"), where
            assert not name.startswith(("yaml.load", "torch.hub", "torch.package")), where
            assert "allow_pickle" not in keywords and "shell" not in keywords, where
            if name.endswith("torch.load"):
                assert keywords.get("weights_only") == "True", where


def test_no_checkpoint_is_loaded_with_code_of_its_own():
    for path, tree in TREES.items():
        for name, keywords, line in calls(tree):
            if name.endswith(".from_pretrained") and not name.startswith("Peft"):
                tried()
                assert keywords.get("trust_remote_code") == "False", f"{path}:{line}"
            assert keywords.get("trust_remote_code", "False") == "False", f"{path}:{line}"


@pytest.mark.parametrize("kind", ["AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"])
def test_the_code_of_a_checkpoint_is_not_run(kind, tmp_path):
    folder, canary = tmp_path / "model", tmp_path / "canary"
    llama().save_pretrained(folder)
    (folder / "trap.py").write_text(f"import os\nos.mkdir({str(canary)!r})\nclass Trap: pass\n")
    config = json.loads((folder / "config.json").read_text())
    if kind == "AutoTokenizer":
        (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {kind: ["trap.Trap", None]}}))
    else:
        config |= {"auto_map": {"AutoConfig": "trap.Trap", kind: "trap.Trap"}, "model_type": "trap"}
    (folder / "config.json").write_text(json.dumps(config))
    if kind == "AutoTokenizer":
        assert load_model(str(folder), token_rows(4)).processing_class is None
    else:
        with pytest.raises(ConfigError, match="code of its own"):
            load_model(str(folder), token_rows(4))
    assert not canary.exists()


def traps(folder, canary):
    """Pickles in place of every file that is read, in every form that torch and numpy know."""
    trap = Trap(canary)
    raw, torched, array = pickle.dumps(trap), io.BytesIO(), io.BytesIO()
    torch.save(trap, torched)
    np.save(array, np.array([trap], dtype=object), allow_pickle=True)
    return {"raw": raw, "torch": torched.getvalue(), "numpy": array.getvalue()}


@pytest.mark.parametrize(
    "file", ["selection.json", "selection.safetensors", "signals.npy", "signals.safetensors", "state.json"]
)
def test_a_pickle_in_a_saved_selection_is_refused(selection, tmp_path, file):
    for form, content in traps(tmp_path, tmp_path / "canary").items():
        tried()
        place = selection.save_to_disk(tmp_path / form)
        (place / file).write_bytes(content)
        with suppress(SageError):
            Selection.load_from_disk(place)
        for command in ("show", "report", "choose"):
            more = ["-o", str(tmp_path / "chosen")] if command == "choose" else []
            RUNNER.invoke(app, [command, str(place), *more])
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "file", ["pytorch_model.bin", "model.safetensors", "adapter_model.bin", "optimizer.pt", "training_args.bin"]
)
def test_a_pickle_in_a_checkpoint_is_not_run(tmp_path, file):
    for content in traps(tmp_path, tmp_path / "canary").values():
        tried()
        folder = tmp_path / "model"
        llama().save_pretrained(folder)
        if file in ("pytorch_model.bin", "adapter_model.bin"):
            (folder / "model.safetensors").unlink(missing_ok=True)
        if file == "adapter_model.bin":
            (folder / "adapter_config.json").write_text(
                json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"})
            )
        (folder / file).write_bytes(content)
        RUNNER.invoke(app, ["doctor", str(folder)])
        token_rows(4).save_to_disk(tmp_path / "rows")
        more = ["--target", str(tmp_path / "rows"), "--adam"] if file == "optimizer.pt" else []
        words = [
            "select",
            str(folder),
            str(tmp_path / "rows"),
            "--fraction",
            "0.5",
            "-o",
            str(tmp_path / "out"),
            *more,
        ]
        done = RUNNER.invoke(app, [*words, "--overwrite"])
        assert done.exit_code in (0, 1) and "Traceback" not in done.output
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "name", ["rows.pkl", "rows.pt", "rows.npy", "rows.arrow", "rows.parquet", "rows.jsonl", "rows.csv", "a.py"]
)
def test_a_pickle_or_a_script_as_a_dataset_is_refused(name, tmp_path):
    for content in traps(tmp_path, tmp_path / "canary").values():
        tried()
        for place in (tmp_path / name, tmp_path / "folder" / name):
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(
                f"import os\nos.mkdir({str(tmp_path / 'canary')!r})".encode() if name == "a.py" else content
            )
            source = place if place.parent == tmp_path else place.parent
            done = RUNNER.invoke(app, ["doctor", "no-model", str(source)])
            assert done.exit_code == 1 and "Traceback" not in done.output
    assert not (tmp_path / "canary").exists()


# --------------------------------------------------------------------------- claims of size
def test_files_that_claim_more_than_they_hold_are_refused(selection, tmp_path, caplog):
    big = 2**60
    header = json.dumps({"scores": {"dtype": "F32", "shape": [big], "data_offsets": [0, 4 * big]}}).encode()
    absurd = {
        "selection.safetensors": [struct.pack("<Q", len(header)) + header, struct.pack("<Q", big) + b"{}", b""],
        "signals.npy": [
            b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
            for shape in (f"({big},)", f"({big}, {big})", "(-1,)", "(" * 2000)
            for text in [f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()]
        ],
        "selection.json": [
            b"[" * 100_000,
            b'{"format_version": 2}',
            b"null",
            b"[]",
            b'"x"',
            b"1" * 100_000,
            b"\xff\xfe",
        ],
    }
    for file, contents in absurd.items():
        for number, content in enumerate(contents):
            tried()
            place = selection.save_to_disk(tmp_path / f"{file}-{number}")
            (place / file).write_bytes(content)
            if file == "signals.npy":  # without which a selection is whole
                caplog.clear()
                assert Selection.load_from_disk(place).signals is None
                assert "cannot be read" in caplog.text
                continue
            with pytest.raises(SageError):
                Selection.load_from_disk(place)


def nested(value):
    """Every value of a JSON file in turn, replaced by others."""
    if isinstance(value, dict):
        for name, inner in value.items():
            for other in (None, [], {}, "x", -1, 1e308, True):
                yield {**value, name: other}
            for changed in nested(inner):
                yield {**value, name: changed}
        for name in value:
            yield {other: inner for other, inner in value.items() if other != name}


def test_a_selection_with_any_other_value_is_read_or_refused(selection, tmp_path):
    place = selection.save_to_disk(tmp_path / "saved")
    facts = json.loads((place / "selection.json").read_text())
    for changed in some(list(nested(facts)), 60):
        tried()
        (place / "selection.json").write_text(json.dumps(changed))
        try:
            loaded = Selection.load_from_disk(place)
        except SageError:
            continue
        for shown in (str, repr, lambda each: each.report(), lambda each: each._repr_html_()):
            try:
                shown(loaded)
            except SageError:
                continue


def test_archives_are_never_unpacked_by_us(tmp_path):
    for path, tree in TREES.items():
        for name, _, line in calls(tree):
            assert not re.search(r"(extractall|unpack_archive)$", name), f"{path}:{line}"
    bomb = tmp_path / "rows.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../outside.csv", "text\nx\n")
        file.writestr("a.txt", b"\0" * 10_000_000)
    for words in (
        ["show", str(bomb)],
        ["choose", str(bomb), "-o", str(tmp_path / "out")],
        ["doctor", "no-model", str(bomb)],
    ):
        tried()
        done = RUNNER.invoke(app, words)
        assert done.exit_code == 1 and "Traceback" not in done.output
    assert not (tmp_path.parent / "outside.csv").exists() and not (tmp_path.parent.parent / "outside.csv").exists()


# ------------------------------------------------------------------------------- secrets
SECRETS = (
    f"no access with {TOKEN}",
    f"https://user:{TOKEN}@huggingface.co/x",
    "cannot read https://me:pass-word1@host/file.csv",
    "https://host/file?token=pass-word1&x=1",
    "TrainingArguments(hub_token='pass-word1', seed=0)",
    "hub_token=pass-word1",
    "s3 secret=pass-word1",
    "the key is env-key-12345",
)


def test_errors_and_lines_of_the_shell_hold_no_secret(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "env-key-12345")
    for text in SECRETS:
        tried()
        said = str(SageError(text, where=text, fix=text)) + without_secrets(text)
        assert not any(word in said for word in (TOKEN, "pass-word1", "env-key-12345")), said


@pytest.mark.skipif(not REPORT, reason="takes seconds")
def test_a_comparison_keeps_no_token_of_its_trainings(tmp_path):
    from sage_hf.comparison.compare import compare

    arguments = {"hub_token": TOKEN, "max_steps": 1, "learning_rate": 1e-3, "per_device_train_batch_size": 4}
    assert complete(arguments, 4, True)["hub_token"] == TOKEN  # trainings may need it
    rows = token_rows(16).add_column("label", [row % 2 for row in range(16)])
    config = SageConfig(sketch_size=4, batch_size=4, check_gradients=False, group_by=None)
    comparison = compare(
        bert(num_labels=2),
        rows.select(range(10)),
        rows.select(range(10, 16)),
        model_init=lambda seed: bert(num_labels=2),
        fractions=[0.5],
        strategies=["random"],
        seeds=1,
        config=config,
        training_args=arguments,
        output_dir=tmp_path,
        progress=False,
    )
    held = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert TOKEN.encode() not in held and TOKEN not in comparison.card() + str(comparison.to_dict())


def test_a_selection_in_the_shell_writes_and_says_no_token(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("WANDB_API_KEY", "wandb-key-1")
    caplog.set_level(logging.DEBUG, "sage_hf")
    llama().save_pretrained(tmp_path / "model")
    token_rows(8).save_to_disk(tmp_path / "rows")
    words = ["select", str(tmp_path / "model"), str(tmp_path / "rows"), "--num-examples", "4", "--sketch-size", "4"]
    words += ["--strategy", "agreement"]
    done = RUNNER.invoke(app, [*words, "-v", "-o", str(tmp_path / "out"), "--group-by", "none"])
    assert done.exit_code == 0, done.output
    for more in (
        ["env"],
        ["push", str(tmp_path / "out"), "me/x", "--token", TOKEN],
        ["report", str(tmp_path / "out")],
    ):
        tried()
        done = RUNNER.invoke(app, more)
        assert TOKEN not in done.output and "wandb-key-1" not in done.output
    held = b"".join(file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert TOKEN.encode() not in held and TOKEN not in caplog.text
    assert str(tmp_path).encode() not in (tmp_path / "out" / "report.html").read_bytes()


# --------------------------------------------------------------------------------- paths
@pytest.mark.parametrize("ending", ["folder", "parquet"])
@pytest.mark.parametrize(
    "kind", [Image(), Image(decode=False), List(Image(decode=False)), {"deep": [Image(decode=False)]}]
)
def test_a_file_that_is_no_image_is_not_copied_into_a_result(tmp_path, ending, kind):
    secret = tmp_path / "id_rsa"
    secret.write_text("PRIVATE KEY")
    (tmp_path / "link.png").symlink_to(secret)
    Picture.new("L", (2, 2)).save(tmp_path / "real.png")
    for number, path in enumerate(
        [str(secret), str(tmp_path / "link.png"), f"{tmp_path}/x/../id_rsa", "/etc/passwd", "a\0b", "x" * 300]
    ):
        tried()
        stored = {"bytes": None, "path": path}
        value = {"deep": [stored]} if isinstance(kind, dict) else [stored] if isinstance(kind, List) else stored
        real = {"bytes": None, "path": str(tmp_path / "real.png")}
        first = {"deep": [real]} if isinstance(kind, dict) else [real] if isinstance(kind, List) else real
        rows = token_rows(4)
        features = Features({**rows.features, "picture": kind})
        rows = Dataset.from_dict({**rows.to_dict(), "picture": [first, value, first, None]}, features=features)
        config = SageConfig(fraction=1.0, strategy="agreement", sketch_size=4, batch_size=4, check_gradients=False)
        chosen = SageSelector(llama(), config=config, progress=False).select(rows)
        out = tmp_path / f"out-{number}{'.parquet' if ending == 'parquet' else ''}"
        with pytest.raises(DatasetError, match="column 'picture', row 1"):
            (chosen.save_rows if ending == "parquet" else chosen.save_to_disk)(out)
        assert not out.exists()


NAMED = [
    "../up",
    "..",
    "/tmp/x",
    "a/b",
    "C:\\x",
    "CON",
    "a\0b",
    "\u202ex",
    "e\u0301",
    "é",
    "A",
    "a",
    "x" * 300,
    "zip://a",
    "file:/etc",
    "a::b",
    "~",
]


def test_names_of_groups_and_columns_make_no_files(tmp_path):
    rows = token_rows(len(NAMED)).add_column("by", NAMED)
    for name in some(NAMED[1:], 4):
        if name not in rows.column_names and "\0" not in name:  # Arrow ends a name there
            rows = rows.add_column(name, [1] * len(rows))
    config = SageConfig(num_examples=9, strategy="agreement", sketch_size=4, group_by="by", check_gradients=False)
    chosen = SageSelector(llama(), config=config, progress=False).select(rows)
    chosen.save_to_disk(tmp_path / "a" / "b")
    chosen.report(tmp_path / "a" / "report.html")
    made = {path.relative_to(tmp_path / "a").parts[0] for path in (tmp_path / "a").rglob("*")}
    assert made == {"b", "report.html"}
    flat = {path.name for path in (tmp_path / "a" / "b").rglob("*")}
    assert all(re.fullmatch(r"[a-z_.\-0-9]+", name) for name in flat), flat


@pytest.mark.parametrize("name", ["file:/tmp/sage-escape", "memory:/x", "hf:/datasets/a/b", "local:/tmp/sage-escape"])
def test_an_output_that_looks_like_an_address_is_a_folder_here(selection, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    place = selection.save_to_disk(name)
    assert place.resolve().is_relative_to(tmp_path) and (tmp_path / name / "selection.json").is_file()
    assert len(Selection.load_from_disk(name).dataset) == 6
    selection.dataset.to_dict()
    selection.save_rows(f"{name}.parquet")
    assert (tmp_path / f"{name}.parquet").is_file()
    assert not Path("/tmp/sage-escape").exists()


def test_the_explorer_opens_no_folder_to_a_browser():
    text = (ROOT / "explorer" / "app.py").read_text(encoding="utf-8") + (ROOT / "explorer" / "server.py").read_text(
        encoding="utf-8"
    )
    assert "allowed_paths" not in text and "set_static_paths" not in text and '"share": False' in text
    assert os.environ.get("HF_TOKEN") is None or TOKEN not in text
