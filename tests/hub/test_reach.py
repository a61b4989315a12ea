"""Offline on purpose, no network, nobody logged in and not there are told apart, each with what to do."""

from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from sage_hf.cli.models import load_model
from sage_hf.cli.rows import load_rows
from sage_hf.errors import ConfigError, DatasetError, HubError
from sage_hf.hub.checks import asking, check_push
from sage_hf.hub.reach import obstacle


def wrapped(error):
    try:
        raise OSError("We couldn't connect to the Hub") from error
    except OSError as made:
        return made


@pytest.mark.parametrize(
    ("error", "offline", "what", "fix"),
    [
        (OfflineModeIsEnabled("offline"), False, "HF_HUB_OFFLINE is set", "Unset HF_HUB_OFFLINE"),
        (wrapped(LocalEntryNotFoundError("not held")), True, "HF_HUB_OFFLINE is set", "Unset HF_HUB_OFFLINE"),
        (wrapped(LocalEntryNotFoundError("not held")), False, "The Hub cannot be reached", "Check the network"),
        (HTTPError("refused"), False, "The Hub cannot be reached", "Check the network"),
        (TimeoutError("slow"), False, "The Hub cannot be reached", "Check the network"),
        (LocalTokenNotFoundError("no token"), False, "Nobody is logged in", "hf auth login"),
        (LocalTokenNotFoundError("no token"), True, "HF_HUB_OFFLINE is set", "Unset HF_HUB_OFFLINE"),
        (ValueError("Dataset 'a' doesn't exist on the Hub or cannot be accessed"), False, "no such file", "log in"),
        (ValueError("Dataset 'a' is a gated dataset"), False, "agreed to its terms", "Agree on its page"),
    ],
)
def test_what_is_in_the_way_is_told_with_what_to_do(error, offline, what, fix, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("sage_hf.hub.reach.get_token", lambda: None)
    found = obstacle(error, "a")
    assert what in found.what and fix in found.fix


@pytest.mark.parametrize(
    ("error", "offline"), [(LocalTokenNotFoundError("no token"), True), (HTTPError("refused"), False)]
)
def test_a_hub_that_was_not_asked_is_the_whole_reason(error, offline, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(HubError) as caught, asking("me/rows", "The Hub does not know who is asking", "fix"):
        raise error
    assert "does not know who is asking" not in caught.value.what
    monkeypatch.setattr("sage_hf.hub.reach.get_token", lambda: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(HubError, match="is asking: Nobody is logged in"), asking("me/rows", "Who is asking", "fix"):
        raise LocalTokenNotFoundError("no token")


def test_a_wrong_name_of_a_repository_is_told_without_hints_for_callers_of_the_hubs_library():
    with pytest.raises(HubError, match="'a/b/c' is not a valid name") as caught:
        check_push("a/b/c", {})
    assert "repo_type" not in str(caught.value)


def test_a_model_that_is_not_here_is_asked_for_twice_where_there_is_no_network(monkeypatch):
    asked = []

    def head(address, timeout):
        asked.append(address)
        raise HTTPError("no route")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("sage_hf.hub.reach.get_session", lambda: SimpleNamespace(head=head))
    monkeypatch.setattr("sage_hf.hub.reach._PAUSE", 0.0)
    with pytest.raises(ConfigError, match=r"The Hub cannot be reached at .*, and there is no 'bert-bdy' here"):
        load_model("bert-bdy", None)
    with pytest.raises(DatasetError, match=r"The Hub cannot be reached at .*, and there is no 'no/rows' here"):
        load_rows("no/rows")
    assert len(asked) == 4


def test_a_hub_that_answers_is_no_lost_network(monkeypatch):
    monkeypatch.setattr("sage_hf.hub.reach.get_token", lambda: "hf_read")
    for status, push, told in (
        (401, True, "does not accept the token"),
        (404, False, "nothing on the Hub that you may read"),
        (418, False, None),
        (418, True, None),
        (429, False, "takes no more requests"),
        (500, False, "an error of its own"),
        (503, True, "an error of its own"),
    ):
        answer = SimpleNamespace(status_code=status, headers={}, request=None)
        error = (RepositoryNotFoundError if status == 404 else HfHubHTTPError)("refused", response=answer)
        error.__cause__ = HTTPError("of the HTTP library")
        found = obstacle(error, "a", is_push=push)
        assert found is None if told is None else told in found.what


def test_other_errors_are_none_of_the_hubs():
    assert obstacle(ValueError("bad values"), "a") is None


def test_loading_and_pushing_say_so(monkeypatch):
    with pytest.raises(DatasetError, match="HF_HUB_OFFLINE is set, and 'no/rows' is not on this machine"):
        load_rows("no/rows")
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set, and 'no/model' is not on this machine"):
        load_model("no/model", None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with (
        pytest.raises(HubError, match=r"The Hub cannot be reached.*Check the network"),
        asking("me/rows", "No", "fix"),
    ):
        raise HTTPError("refused")
