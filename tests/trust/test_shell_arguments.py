"""Arguments of the shell by chance and by malice: a message and exit code 0, 1 or 2, never a traceback.

No command gets far: the model, where one is named, is tiny, and most lines name none that is there.
"""

import itertools
import re
import string
import traceback

import pytest
import typer.main
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sage_hf.cli.main import app
from sage_hf.errors import printable
from sage_hf.selection.selection import Selection

from ..cases import llama, token_rows
from .scale import cases, tried

NUMBERS = itertools.count()
COMMANDS = typer.main.get_command(app).commands
RUNNER = CliRunner(env={"COLUMNS": "250", "TERM": "dumb", "NO_COLOR": "1"})
LONG = "x" * 300
ODD = (
    *(
        "",
        " ",
        "-",
        "--",
        "=",
        "==",
        ",",
        ",,",
        "=a",
        "a=",
        "0",
        "-1",
        "-0",
        "1e999",
        "-1e999",
        "nan",
        "inf",
        "1e-320",
    ),
    *(
        "99999999999999999999",
        "0x10",
        "1_000",
        "٣",
        "1,5",
        "true",
        "None",
        "none",
        "auto",
        "null",
        "[]",
        "{}",
        "*",
        "**",
    ),
    *(".", "..", "/", "//", "~", "~nobody", "/dev/null", "/dev/full", "/proc/self/mem", "/nonexistent/a/b", "a/../b"),
    *("a\nb", "a\tb", "\x1b[31mred", "\x07", "[red]", "[/]", r"\[/]", ":skull:", "{{7*7}}", "%s", "$(id)", "`id`"),
    *(
        "\u202eabc",
        "\U0001f642",
        "\u0645\u0631",
        "ß" * 100,
        LONG,
        LONG + ".csv",
        "x" * 70_000,
        "a\x00b",
        "\udcff",
        "C:\\x",
    ),
    *("http://user:secret@host/x.csv", "hf://datasets/a/b", "zip://a::b", "file:///etc/passwd", "a.csv", "a.tar.gz"),
    *(
        "agreemnt",
        "label-issue",
        "data",
        "default",
        "owner/name/more",
        "a b/c",
        "x.html",
        "x.parquet",
        "(?<",
        "last,(",
    ),
)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A model, rows and a selection of them, by the names of what commands take."""
    root = tmp_path_factory.mktemp("shell")
    llama().save_pretrained(root / "model")
    rows = token_rows(8)
    rows.save_to_disk(root / "rows")
    (root / "empty").mkdir()
    Dataset.from_dict({"sage_row": [0], "sage_label": ["a"], "sage_action": ["drop"]}).to_csv(root / "issues.csv")
    done = invoke(
        *("select", root / "model", root / "rows", "--fraction", "0.5", "-o", root / "kept", "--batch-size", "4"),
        *("--strategy", "agreement", "--sketch-size", "4", "--device", "cpu"),
    )
    assert done.exit_code == 0, done.output
    assert len(Selection.load_from_disk(root / "kept")) == 4
    given = {"model": root / "model", "dataset": root / "rows", "folder": root / "kept", "issues": root / "issues.csv"}
    return {**given, "repository": "nobody/nothing", "root": root}


@pytest.fixture(autouse=True)
def _nothing_is_started(monkeypatch, tmp_path):
    """No server, no demo of a minute, and no file beside the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sage_hf.cli.explore.launch", lambda *args, **settings: None)
    monkeypatch.setattr("sage_hf.cli.explore.check_installed", lambda: None)
    monkeypatch.setattr("sage_hf.demo.run_demo", None)
    monkeypatch.setattr("sage_hf.comparison.compare.compare", None)


def invoke(*arguments):
    return RUNNER.invoke(app, [str(argument) for argument in arguments])


def check(done, words):
    """Ended as a command of the shell ends."""
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise AssertionError(f"{words!r}\n{''.join(traceback.format_exception(done.exception))[-3000:]}")
    assert done.exit_code in (0, 1, 2), (words, done.exit_code, done.output)
    assert "Traceback" not in done.output
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", done.output), (words, done.output)
    if done.exit_code:
        assert done.output.strip(), words


def arguments_of(command, places):
    """The line up to its options; those of a command that must be there are there."""
    found, options = [command.name], []
    for each in command.params:
        if each.param_type_name == "argument":
            found.append(str(places[each.name]))
        elif each.required:
            options += [each.opts[0], str(places["root"] / "new" / f"kept-{next(NUMBERS)}")]
    return found, options


def options_of(command):
    return [each for each in command.params if each.param_type_name == "option" and not each.is_eager]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_always_there(name):
    for words in ([name, "--help"], [name, "x", "--help"], [name, "--help", "--nonsense"]):
        tried()
        done = invoke(*words)
        check(done, words)
        assert done.exit_code == 0 or "--nonsense" in words


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("demo", "env")])
def test_one_odd_value_of_an_option_is_taken_or_its_option_is_named(name, places):
    command = COMMANDS[name]
    for place, each in enumerate(options_of(command), 7):
        if each.is_flag or each.name == "overwrite":
            continue
        turned = ODD[place % len(ODD) :] + ODD[: place % len(ODD)]
        for value in turned[:: len(ODD) // cases(1, 12)]:
            tried()
            words, needed = arguments_of(command, places)
            # No model: what is not refused before one is loaded is refused by its name.
            words = [str(places["root"] / "no-model") if word == str(places["model"]) else word for word in words]
            given = [*words, *needed, f"{each.opts[0]}={value}"]
            done = invoke(*given)
            check(done, given)
            if done.exit_code:
                shown = " ".join(printable(value).split())[:40]
                named = [*each.opts, shown or "current folder", repr(value)[:40]]
                named += ["no-model", "nobody/nothing", "dataset", "signals"]
                said = " ".join(done.output.split())
                assert any(word in said for word in named), (given, said)


@settings(max_examples=cases(30, 1500), suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_line_is_answered(places, data):
    tried()
    command = COMMANDS[data.draw(st.sampled_from(sorted(COMMANDS.keys() - {"demo", "env"})))]
    values = st.sampled_from(ODD) | st.text(max_size=20) | st.floats().map(str) | st.integers().map(str)
    paths = st.sampled_from([str(places[name]) for name in ("dataset", "folder", "issues", "root")])
    words = [command.name]
    for each in command.params:
        if each.param_type_name == "argument" and data.draw(st.booleans() | st.just(True)):
            fitting = st.just(str(places[each.name])) if each.name != "model" else st.just(str(places["root"] / "no"))
            words.append(data.draw(fitting | paths | values))
    for each in data.draw(st.lists(st.sampled_from(options_of(command)), max_size=4)):
        words.append(data.draw(st.sampled_from([*each.opts, *each.secondary_opts])))
        if not each.is_flag:
            words.append(data.draw(values | paths))
    words = [word.replace("\ud800", "") for word in words]
    check(invoke(*words), words)


@settings(max_examples=cases(15, 500))
@given(st.lists(st.text(string.printable, max_size=12) | st.sampled_from(ODD), max_size=5))
def test_any_words_are_answered(words):
    tried()
    if words[:1] in (["demo"], ["env"]):
        return
    check(invoke(*words), words)
