"""A selection goes to the Hub whole, with its story, or with a clear error."""

import json

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, load_dataset
from huggingface_hub import DatasetCard, HfApi

from sage_hf import Selection
from sage_hf.errors import ConfigError, DatasetError, HubError

from ...cases import image_rows
from .. import real_hub
from ..fake import Repo
from .conftest import choose

SOURCE_CARD = """---
license: cc-by-4.0
language:
- en
task_categories:
- image-classification
---

# Squares

## Citation

```bibtex
@misc{squares, title = {Squares}}
```
"""


def card(hub, name="me/kept", revision="main"):
    return DatasetCard(hub.files(name, revision=revision)["README.md"].decode())


@pytest.fixture
def source(hub):
    """A dataset on the Hub with two other splits and a card."""
    splits = DatasetDict({"train": image_rows(40), "validation": image_rows(7, seed=1), "test": image_rows(9, seed=2)})
    splits.push_to_hub("me/squares")
    held = card(hub, "me/squares")
    own = DatasetCard(SOURCE_CARD)
    held.text = own.text
    held.data = type(held.data)(**{**own.data.to_dict(), **held.data.to_dict()})
    held.push_to_hub("me/squares")
    return load_dataset("me/squares", split="train")


def test_what_is_pushed_loads_back_with_all_splits_and_one_features(hub, source):
    selection = choose(source)
    done = selection.push_to_hub("me/kept")
    assert done.oid == hub.repos["dataset", "me/kept"].sha("main")
    back = load_dataset("me/kept")
    assert set(back) == {"train", "validation", "test"}
    assert back["train"]["label"][:] == selection.dataset["label"][:]
    assert back["train"]["sage_score"][:] == selection.dataset["sage_score"][:]
    assert back["test"]["label"][:] == image_rows(9, seed=2)["label"][:]
    assert back["test"]["sage_score"][:] == [None] * 9
    assert back["train"].features == back["test"].features
    assert {k: v for k, v in back["train"].features.items() if not k.startswith("sage_")} == source.features


def test_the_card_tells_where_the_rows_come_from_and_how_they_were_chosen(hub, source):
    selection = choose(source)
    selection.push_to_hub("me/kept")
    pushed, commit = card(hub), hub.repos["dataset", "me/squares"].sha("main")
    for told in (
        "12 of the 40 rows of [me/squares](https://huggingface.co/datasets/me/squares) (train)",
        f"commit `{commit}`, fingerprint `{selection.source_fingerprint}`",
        f"a ViTForImageClassification that was in memory; weights `{selection.stats.model_fingerprint}`",
        "| validation | 7 | as in the source; `sage_score` is null |",
        f"holds {100 * selection.stats.energy:.1f} % of the gradients' energy",
        "SageConfig(fraction=0.3, strategy='agreement', sketch_size=8, batch_size=5, shard_size=8)",
        f'source = load_dataset("me/squares", split="train", revision="{commit}")',
        'Selection.from_hub("me/kept", source).choose(fraction=0.05, strategy="agreement").dataset',
        "![Share of each group that was kept](sage/default/groups.png)",
        "Licence: cc-by-4.0, as the source states it.",
        "@misc{squares, title = {Squares}}",
        "Compare with random rows before you rely on it.",
        "| sketch_size | 8 |",
        f"torch {selection.stats.versions['torch']}",
    ):
        assert told in pushed.text, told
    data = pushed.data
    assert (data.license, data.language, data.task_categories) == ("cc-by-4.0", ["en"], ["image-classification"])
    assert data.source_datasets == ["me/squares"]
    assert data.size_categories == ["n<1K"]
    assert {"sage", "data-selection"} <= set(data.tags)
    assert [each["split"] for each in data.configs[0]["data_files"]] == ["train", "validation", "test"]
    assert ("POST", "/api/validate-yaml") in hub.requests
    files = hub.files("me/kept")
    for name in ("scores", "spectrum", "groups"):
        assert files[f"sage/default/{name}.png"][:4] == b"\x89PNG"
    assert not [path for path in files if path.endswith(".svg")]


def test_the_cards_own_lines_do_what_they_say(hub, source):
    selection = choose(source)
    selection.push_to_hub("me/kept")
    code = card(hub).text.split("```python\n")[1].split("```")[0]
    names = {}
    exec(code, names)
    assert names["rows"]["sage_score"][:] == selection.dataset["sage_score"][:]
    assert names["smaller"]["label"][:] == selection.choose(fraction=0.05).dataset["label"][:]


def test_pushing_again_replaces_rows_and_section_and_keeps_what_others_wrote(hub, source):
    choose(source).push_to_hub("me/kept", license="mit")
    held = card(hub)
    held.text = "A word of the owner.\n" + held.text + "\nAnd one after.\n"
    held.data.pretty_name = "Mine"
    held.push_to_hub("me/kept")
    choose(source, fraction=0.5).push_to_hub("me/kept", other_splits={})
    again = card(hub)
    assert "A word of the owner." in again.text
    assert "And one after." in again.text
    assert again.text.count("<!-- sage_hf: default -->") == 1
    assert "20 of the 40 rows" in again.text
    assert "12 of the 40 rows" not in again.text
    assert (again.data.pretty_name, again.data.license) == ("Mine", "mit")
    assert set(load_dataset("me/kept")) == {"train"}
    assert len(load_dataset("me/kept", split="train")) == 20
    choose(source).push_to_hub("me/kept", other_splits={}, license="apache-2.0")
    assert card(hub).data.license == "apache-2.0"


def test_another_configuration_stands_beside_the_first(hub, source):
    choose(source).push_to_hub("me/kept")
    choose(source, strategy="random").push_to_hub("me/kept", config_name="random-rows")
    assert len(load_dataset("me/kept", "random-rows", split="test")) == 9
    assert len(load_dataset("me/kept", "default", split="train")) == 12
    text = card(hub).text
    assert text.index("<!-- sage_hf: default -->") < text.index("<!-- sage_hf: random-rows -->")
    assert 'load_dataset("me/kept", "random-rows", split="train")' in text
    assert {"sage/default/scores.png", "sage/random-rows/scores.png"} <= set(hub.files("me/kept"))


def test_a_pull_request_holds_rows_and_card_and_leaves_main_as_it_was(hub, source):
    choose(source).push_to_hub("me/kept")
    before = dict(hub.files("me/kept"))
    done = choose(source, fraction=0.5).push_to_hub("me/kept", create_pr=True)
    assert hub.files("me/kept") == before
    assert hub.repos["dataset", "me/kept"].pull_requests == 1
    assert "20 of the 40 rows" in card(hub, revision="refs/pr/1").text
    assert len(load_dataset("me/kept", split="train", revision="refs/pr/1")) == 20
    assert done.oid == hub.repos["dataset", "me/kept"].sha("refs/pr/1")


def test_a_branch_is_made_and_main_is_left_alone(hub, source):
    choose(source).push_to_hub("me/kept", revision="half")
    assert len(load_dataset("me/kept", split="train", revision="half")) == 12
    assert not any(path.endswith(".parquet") for path in hub.files("me/kept"))


def test_a_private_repository_is_not_read_without_a_token(hub, selection, monkeypatch):
    selection.push_to_hub("kept", private=True)
    assert hub.repos["dataset", "me/kept"].private
    assert len(Selection.from_hub("me/kept")) == 12
    with pytest.raises(HubError, match="cannot be read"):
        Selection.from_hub("me/kept", token="hf_nobodys")


def test_rows_that_no_hub_knows_are_pushed_alone_and_the_card_says_so(hub, selection):
    selection.push_to_hub("me/kept", license="apache-2.0")
    text = card(hub).text
    assert "12 of the 40 rows of a dataset made in memory" in text
    assert "Licence: apache-2.0." in text
    assert card(hub).data.source_datasets is None
    assert set(load_dataset("me/kept")) == {"train"}


def test_what_is_run_against_the_real_hub_holds_here_and_leaves_nothing(hub, capsys):
    real_hub.main()
    assert "same rows and scores" in capsys.readouterr().out
    assert hub.repos == {}


# ------------------------------------------------------------------ scores alone
def test_scores_alone_take_a_few_bytes_a_row_and_give_any_share(hub, source):
    selection = choose(source)
    selection.push_to_hub("me/scores", scores_only=True)
    files = hub.files("me/scores")
    assert not any(path.endswith(".parquet") for path in files)
    assert len(files["sage/default/selection.safetensors"]) < 40 * 13 + 12 * 8 + 600
    assert card(hub, "me/scores").data.viewer is False
    assert "the rows themselves are not here" in card(hub, "me/scores").text
    back = Selection.from_hub("me/scores", source)
    assert np.array_equal(back.scores, selection.scores, equal_nan=True)
    for fraction in (0.1, 0.5):
        assert (
            back.choose(fraction=fraction).dataset["label"][:] == choose(source, fraction=fraction).dataset["label"][:]
        )


def test_scores_are_refused_for_another_revision_and_for_other_rows(hub, source):
    choose(source).push_to_hub("me/scores", scores_only=True)
    changed = source.remove_columns("label").add_column(
        "label", source["label"][::-1], feature=source.features["label"]
    )
    with pytest.raises(DatasetError, match="40 rows with fingerprint"):
        Selection.from_hub("me/scores", Dataset.from_dict(changed[:], features=changed.features))
    commit = hub.repos["dataset", "me/squares"].sha("main")
    # The same rows at a later commit: what was chosen from is named.
    held = card(hub, "me/squares")
    held.text += "\nA word.\n"
    held.push_to_hub("me/squares", commit_message="a word")
    later = load_dataset("me/squares", split="train")
    assert hub.repos["dataset", "me/squares"].sha("main") != commit
    with pytest.raises(DatasetError, match=f"made from revision {commit}"):
        Selection.from_hub("me/scores", later)
    assert (
        len(Selection.from_hub("me/scores", load_dataset("me/squares", split="train", revision=commit)).dataset) == 12
    )


def test_a_repository_without_scores_names_the_configurations_that_it_has(hub, selection):
    selection.push_to_hub("me/kept", config_name="tenth")
    with pytest.raises(HubError, match="config_name='tenth'"):
        Selection.from_hub("me/kept")
    image_rows(4).push_to_hub("me/plain")
    with pytest.raises(HubError, match="Name one that sage_hf pushed to"):
        Selection.from_hub("me/plain")
    with pytest.raises(HubError, match="me/nothing"):
        Selection.from_hub("me/nothing")


# ------------------------------------------------------------------------ errors
@pytest.mark.parametrize(
    ("token", "message"), [("hf_nobodys", "does not know who is asking"), ("hf_read", "only gives read")]
)
def test_without_the_right_to_write_nothing_is_sent(hub, selection, token, message):
    with pytest.raises(HubError, match=message) as caught:
        selection.push_to_hub("me/kept", token=token)
    assert hub.repos == {}
    assert token not in str(caught.value)


def test_bad_names_are_told_before_anything_is_sent(hub, selection):
    with pytest.raises(HubError, match="not a valid name of a repository"):
        selection.push_to_hub("me/what is this")
    for name in ("data", "a/b", ""):
        with pytest.raises(ConfigError, match="config_name"):
            selection.push_to_hub("me/kept", config_name=name)
    assert hub.requests == []


def test_other_data_is_replaced_only_when_asked(hub, source):
    with pytest.raises(HubError, match="other data in the configuration 'default'"):
        choose(source).push_to_hub("me/squares")
    before = dict(hub.files("me/squares"))
    choose(source).push_to_hub("me/squares", config_name="kept")
    assert {path: before[path] for path in before if path != "README.md"}.items() <= hub.files("me/squares").items()
    assert len(load_dataset("me/squares", "default", split="train")) == 40
    other = choose(image_rows(40, seed=5))
    with pytest.raises(HubError, match="other data in the configuration 'kept'"):
        other.push_to_hub("me/squares", config_name="kept")
    other.push_to_hub("me/squares", config_name="kept", overwrite=True)
    assert load_dataset("me/squares", "kept", split="train")["label"][:] == other.dataset["label"][:]


def test_data_that_datasets_did_not_push_is_other_data_too(hub, selection):
    api = HfApi()
    api.create_repo("me/table", repo_type="dataset")
    selection.push_to_hub("me/table")  # an empty repository is free
    api.create_repo("me/table2", repo_type="dataset")
    api.upload_file(path_or_fileobj=b"a,b\n1,2\n", path_in_repo="train.csv", repo_id="me/table2", repo_type="dataset")
    with pytest.raises(HubError, match="other data"):
        selection.push_to_hub("me/table2")


def test_scores_alone_are_not_put_beside_rows(hub, selection):
    selection.push_to_hub("me/kept")
    with pytest.raises(HubError, match="scores alone cannot go there"):
        selection.push_to_hub("me/kept", scores_only=True, overwrite=True)
    selection.push_to_hub("me/kept", scores_only=True, config_name="scores")
    assert len(Selection.from_hub("me/kept", config_name="scores")) == 12


def test_a_source_without_a_licence_is_handed_on_only_with_one_named(hub):
    image_rows(40).push_to_hub("me/bare")
    selection = choose(load_dataset("me/bare", split="train"))
    with pytest.raises(HubError, match="states no licence") as caught:
        selection.push_to_hub("me/kept")
    assert "me/bare" in str(caught.value)
    assert ("dataset", "me/kept") not in hub.repos
    selection.push_to_hub("me/scores", scores_only=True)
    assert "states no licence" not in card(hub, "me/scores").text
    selection.push_to_hub("me/kept", license="unknown")
    assert card(hub).data.license == "unknown"


def test_values_that_a_card_cannot_hold_are_named_before_anything_is_sent(hub, selection):
    with pytest.raises(HubError, match=r"2,000 characters.*me/kept, license"):
        selection.push_to_hub("me/kept", license="m" * 2000)
    with pytest.raises(HubError, match="does not take the card's metadata"):
        selection.push_to_hub("me/kept", license="no-licence-that-the-hub-knows")
    assert hub.repos == {}


def test_columns_that_parquet_cannot_hold_are_named_before_anything_is_sent(hub):
    rows = image_rows(40).add_column("about", [{}] * 40)
    with pytest.raises(DatasetError, match="column 'about' of split 'train'"):
        choose(rows).push_to_hub("me/kept")
    assert hub.repos == {}


def test_a_repository_of_somebody_else_is_not_written_to(hub, selection):
    with pytest.raises(HubError, match="rights to create"):
        selection.push_to_hub("them/kept")
    assert hub.repos == {}
    theirs = hub.repos["dataset", "them/kept"] = Repo()
    with pytest.raises(HubError, match="rights to write"):
        selection.push_to_hub("them/kept")
    assert theirs.files("main") == {}
    assert hub.blobs == {}


def test_other_splits_must_be_known_and_have_the_same_columns(hub, source):
    selection = choose(source)
    with pytest.raises(ConfigError, match="the split of the kept rows"):
        selection.push_to_hub("me/kept", other_splits={"train": source})
    with pytest.raises(DatasetError, match=r"differ in \['label'\]"):
        selection.push_to_hub("me/kept", other_splits={"test": source.remove_columns("label")})
    selection.stats.source["id"] = None
    with pytest.raises(DatasetError, match="validation, test"):
        selection.push_to_hub("me/kept")
    assert ("dataset", "me/kept") not in hub.repos


def test_a_server_that_fails_once_while_files_are_sent_is_asked_again(hub, selection):
    hub.fail("PUT", "/blob/", status=503)
    selection.push_to_hub("me/kept")
    assert len(load_dataset("me/kept", split="train")) == 12


@pytest.mark.parametrize("again", [False, True])
def test_rows_that_cannot_be_pushed_leave_no_card_that_tells_of_them(hub, source, again):
    if again:
        choose(source).push_to_hub("me/kept")
    # A status that is not asked again for. The withdrawal of the old card goes through: it holds no large file.
    hub.fail("POST", r"me/kept\.git/info/lfs", times=-1, status=403)
    with pytest.raises(HubError, match="rows could not be pushed"):
        choose(source, fraction=0.5).push_to_hub("me/kept")
    readme = hub.files("me/kept").get("README.md", b"").decode()
    assert "sage_hf: default" not in readme
    assert "rows of" not in readme
    hub.failures.clear()
    # Rows that no card tells of may be anyone's: a first push that broke off has none there yet.
    choose(source, fraction=0.5).push_to_hub("me/kept")
    assert "20 of the 40 rows" in card(hub).text


def test_a_card_that_cannot_be_pushed_is_told_and_the_rows_stand(hub, selection):
    real = hub.should_fail

    def fail_second_commit(method, path):
        commits = [asked for asked in hub.requests if asked == ("POST", "/api/datasets/me/kept/commit/main")]
        return 403 if len(commits) == 2 and path.endswith("/commit/main") else real(method, path)

    hub.should_fail = fail_second_commit
    try:
        with pytest.raises(HubError, match="card could not be pushed") as caught:
            selection.push_to_hub("me/kept")
    finally:
        del hub.should_fail
    assert "The same again goes on" in str(caught.value)
    assert len(load_dataset("me/kept", split="train")) == 12
    assert "sage_hf: default" not in card(hub).text
    with pytest.raises(HubError, match="other data"):  # rows of others are not meant
        choose(image_rows(40, seed=3)).push_to_hub("me/kept")
    selection.push_to_hub("me/kept")
    assert "12 of the 40 rows" in card(hub).text


def test_a_commit_of_somebody_else_in_between_is_not_lost(hub, selection):
    selection.push_to_hub("me/kept")
    real = hub.should_fail

    def write_before_the_card(method, path):
        if path.endswith("/commit/main") and b"Card and scores" in hub.body and not hub.between:
            hub.between = True
            files = dict(hub.files("me/kept"))
            files["README.md"] += b"\nA word of the owner.\n"
            hub.repos["dataset", "me/kept"].commit("main", files)
        return real(method, path)

    hub.should_fail, hub.between = write_before_the_card, False
    try:
        selection.choose(fraction=0.5).push_to_hub("me/kept")
    finally:
        del hub.should_fail
    assert hub.between
    assert "A word of the owner." in card(hub).text
    assert "20 of the 40 rows" in card(hub).text


def test_what_is_pushed_tells_nothing_private(hub, selection, tmp_path):
    selection.push_to_hub("me/kept")
    for path, content in hub.files("me/kept").items():
        for secret in (b"hf_write", str(tmp_path.parent).encode(), b"/tmp/", b"/home/", b"/root/"):
            assert secret not in content, path
    about = json.loads(hub.files("me/kept")["sage/default/selection.json"])
    assert about["stats"]["source"]["name"] is None
