"""The line that goes on with an interrupted command."""

import sys

import pytest

from sage_hf.cli.interrupt import about_going_on, without_tokens


@pytest.fixture(autouse=True)
def _program(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/sage-hf"])
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["select", "m", "a b.csv", "-o", "out"], "Go on with: sage-hf select m 'a b.csv' -o out"),
        (["compare", "m", "$HOME; rm"], "Go on with: sage-hf compare m '$HOME; rm'"),
        (["label-issues", "m", "r"], "Start again with: sage-hf label-issues m r"),
        (["push", "out", "me/data"], "Go on with: sage-hf push out me/data --overwrite"),
        (["push", "out", "me/data", "--overwrite"], "Go on with: sage-hf push out me/data --overwrite"),
        (["show", "out"], ""),
        ([], ""),
    ],
)
def test_it_is_whole_and_quoted_for_a_shell(words, told):
    assert about_going_on(words) == told


@pytest.mark.parametrize(
    "words",
    [
        ["push", "out", "me/data", "--token", "hf_secretsecret"],
        ["push", "--token=hf_secretsecret", "out", "me/data"],
        ["push", "--token", "anything", "out", "me/data"],
    ],
)
def test_a_token_is_not_in_it_and_that_is_said(words):
    told = about_going_on(words)
    assert told == "Go on with: sage-hf push out me/data --overwrite (and your token, by HF_TOKEN)"


def test_what_looks_like_a_token_is_not_in_it_either():
    assert without_tokens(["select", "https://me:hf_abcdefgh123@host/x"])[0] == ["select", "https://me:TOKEN@host/x"]


def test_the_module_and_a_launcher_are_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/sage_hf/__main__.py"])
    assert about_going_on(["select", "m", "r"]) == "Go on with: python -m sage_hf select m r"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert about_going_on(["select", "m", "r"]) == "Go on with: the same launcher and -m sage_hf select m r"
