"""The explorer's clicks, by gradio's own client: no browser."""

import re
from pathlib import Path

import pytest

from sage_hf import Selection
from sage_hf.errors import HubError
from sage_hf.explorer import Offers, launch

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'sage-hf[explore]'")
gradio_client = pytest.importorskip("gradio_client")

LOOK = {"view": "kept", "group": -1}


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def address(selection, told):
    app = launch(selection, offers=Offers(folder="tenth", on_saved=told.append), say=lambda text: None, block=False)
    yield f"http://127.0.0.1:{app.server_port}/"
    app.close()


@pytest.fixture
def click(address):
    """Calls a function of the page, in a session of its own; gives all text that came back."""
    client = gradio_client.Client(address, verbose=False)

    def call(name, *values):
        return client.predict(*values, api_name=f"/{name}")

    yield call
    client.close()


def choose(click, percent=10.0, strategy="auto", balance="proportional", gate="auto"):
    return str(click("choose", *LOOK.values(), percent, strategy, balance, gate))


def test_other_settings_change_what_is_kept_and_the_way_back_gives_the_original(click):
    assert "newly kept" in choose(click, 30.0)
    changed = choose(click, 30.0, "loss", "equal", "none")
    assert "<b>126</b> of 420 rows" in changed
    assert "sage-hf choose tenth --fraction 0.3 --strategy loss --balance equal --gate none" in changed
    assert "The selection as it was opened" in str(click("reset", *LOOK.values()))


def test_an_error_is_a_sentence_and_the_choice_stays(click):
    choose(click, 30.0, "loss", "equal", "none")
    for text in (choose(click, gate="many"), choose(click, gate="7"), choose(click, 0), choose(click, 200)):
        assert 'role="alert"' in text and "is still shown" in text and "Traceback" not in text
    assert "Rows 1–12 of 126" in str(click("look", *LOOK.values()))  # noqa: RUF001
    assert "as it was opened" in choose(click, None)  # an empty box leaves the budget as it was


def test_pages_are_turned_and_sessions_do_not_see_each_other(click, address):
    assert "Rows 1–12 of 42" in str(click("first", *LOOK.values()))  # noqa: RUF001
    assert "Rows 13–24 of 42" in str(click("next_top", *LOOK.values()))  # noqa: RUF001
    assert "Rows 25–36 of 42" in str(click("next_bottom", *LOOK.values()))  # noqa: RUF001
    assert "Rows 13–24 of 42" in str(click("previous_top", *LOOK.values()))  # noqa: RUF001
    choose(click, 30.0)
    other = gradio_client.Client(address, verbose=False)
    assert "of 42" in str(other.predict(*LOOK.values(), api_name="/first"))
    other.close()


def test_marks_are_listed_in_a_file(click):
    click("look", "doubted", -1)
    click("mark_0", "drop")
    listed = click("mark_1", "class:drop")
    (found,) = re.findall(r"[^\s'\"]+label_issues\.csv", str(listed))
    file = Path(found)
    lines = file.read_text(encoding="utf-8").splitlines()
    assert file.name == "label_issues.csv" and len(lines) == 3
    assert {line.rsplit(",", 1)[1] for line in lines[1:]} == {"drop", "class:drop"}
    assert "No label is marked" in str(click("clear", *LOOK.values()))


def test_a_choice_is_saved_and_what_is_there_is_not_replaced_unasked(click, told, tmp_path):
    choose(click, 30.0, "loss", "equal", "none")
    place = tmp_path / "third"
    assert f"Saved to {place}" in click("save", str(place), False)
    assert told[-1] == place and len(Selection.load_from_disk(place)) == 126
    assert "holds another selection" in click("save", str(place), False)
    choose(click, 20.0, "loss", "equal", "none")
    assert "Saved" in click("save", str(place), True) and len(Selection.load_from_disk(place)) == 84
    assert "No folder is named" in click("save", "  ", False)


def test_a_choice_is_pushed_with_the_login_that_there_is(click, monkeypatch):
    pushed = []

    def push(selection, repository, **settings):
        if "/" not in repository:
            raise HubError("Nobody is logged in", where="token", fix="Run hf auth login.")
        pushed.append((len(selection), repository, settings))

    monkeypatch.setattr(Selection, "push_to_hub", push)
    choose(click, 30.0, "loss", "equal", "none")
    assert "Nobody is logged in. Run hf auth login." in click("push", "name", True, True, False)
    assert "Pushed." in click("push", " owner/name ", True, False, False)
    assert pushed == [(126, "owner/name", {"private": True, "overwrite": False, "other_splits": {}})]
    assert "No repository is named" in click("push", "", True, True, False)


def test_where_others_can_open_it_nothing_can_be_written(selection):
    app = launch(selection, say=lambda text: None, block=False)
    try:
        client = gradio_client.Client(f"http://127.0.0.1:{app.server_port}/", verbose=False)
        names = set(client.view_api(return_format="dict")["named_endpoints"])
        client.close()
        assert "/choose" in names and not {"/save", "/push"} & names
    finally:
        app.close()
