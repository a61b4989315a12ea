"""`sage-hf select --push-to-hub` and `sage-hf push`: from the Hub, to the Hub, and again by the card's own command."""

import re
import shlex

import pytest
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from huggingface_hub import DatasetCard, HfApi

from examples.python_text import train_tokenizer
from sage_hf import Selection

from ...cases import llama
from ...cli.test_main import SMALL, TEXTS, run


@pytest.fixture
def texts(hub):
    """A model and a dataset with two splits on the Hub; the names of both."""
    tokenizer = train_tokenizer(TEXTS, 280)
    llama(vocab_size=len(tokenizer)).push_to_hub("me/lm")
    tokenizer.push_to_hub("me/lm")
    rows = make_rows()
    rows.push_to_hub("me/texts")
    held = DatasetCard(hub.files("me/texts")["README.md"].decode())
    held.data.license = "mit"
    held.push_to_hub("me/texts")
    return "me/lm", "me/texts"


def make_rows():
    rows = Dataset.from_dict({"text": TEXTS})
    return DatasetDict(train=rows, test=rows.select(range(3)))


@pytest.fixture
def folder(texts, tmp_path):
    """What `sage-hf select` wrote."""
    result = run("select", *texts, "--fraction", "0.25", *SMALL, "-o", tmp_path / "quarter")
    assert result.exit_code == 0, result.output
    return tmp_path / "quarter"


def flat(result):
    return " ".join(result.output.split())


def test_select_pushes_and_the_cards_command_does_it_again(hub, texts, tmp_path):
    result = run("select", *texts, "--fraction", "0.25", *SMALL, "-o", tmp_path / "out", "--push-to-hub", "me/kept")
    assert result.exit_code == 0, result.output
    assert f"Pushed: {hub.url}/datasets/me/kept" in flat(result)
    kept = load_dataset("me/kept")
    assert kept["train"]["text"] == load_from_disk(tmp_path / "out")["text"]
    assert kept["test"]["text"] == TEXTS[:3]
    card = hub.files("me/kept")["README.md"].decode()
    command = shlex.split(re.search(r"^sage-hf select .*$", card, re.M)[0])
    model, data = (hub.repos[key].sha("main") for key in (("model", "me/lm"), ("dataset", "me/texts")))
    assert command[command.index("--dataset-revision") + 1] == data
    assert command[command.index("--model-revision") + 1] == model
    assert f"[me/lm](https://huggingface.co/me/lm), commit `{model}`" in card
    # Both go on; the command names what was there then.
    make_rows()["test"].push_to_hub("me/texts", split="train")
    llama(vocab_size=300).push_to_hub("me/lm")
    again = run(*command[1:-1], tmp_path / "again", "--device", "cpu")
    assert again.exit_code == 0, again.output
    one, other = Selection.load_from_disk(tmp_path / "out"), Selection.load_from_disk(tmp_path / "again")
    assert one.indices.tolist() == other.indices.tolist()
    assert one.scores.tolist() == other.scores.tolist()


def test_select_finds_out_first_whether_it_can_push(hub, texts, tmp_path, monkeypatch):
    arguments = ["select", *texts, "--fraction", "0.25", *SMALL, "-o", tmp_path / "out", "--push-to-hub"]
    result = run(*arguments, "me/texts")
    assert result.exit_code == 1
    assert "already has other data" in flat(result)
    monkeypatch.setenv("HF_TOKEN", "hf_read")
    result = run(*arguments, "me/kept")
    assert result.exit_code == 1
    assert "only gives read access" in flat(result)
    assert not (tmp_path / "out").exists()


def test_a_folder_is_pushed_with_every_split(hub, folder):
    result = run("push", folder, "me/kept", "--private")
    assert result.exit_code == 0, result.output
    assert hub.repos["dataset", "me/kept"].private
    back = load_dataset("me/kept")
    assert {name: len(rows) for name, rows in back.items()} == {"train": 6, "test": 3}
    assert back["train"]["sage_score"][:] == load_from_disk(folder)["sage_score"][:]


def test_other_splits_can_be_left_out(hub, folder):
    assert run("push", folder, "me/kept", "--no-other-splits").exit_code == 0
    assert set(load_dataset("me/kept")) == {"train"}


def test_scores_alone_are_pushed_and_give_the_rows(hub, folder):
    assert run("push", folder, "me/scores", "--scores-only").exit_code == 0
    back = Selection.from_hub("me/scores", load_dataset("me/texts", split="train"))
    assert back.dataset["text"][:] == load_from_disk(folder)["text"][:]


def test_a_pull_request_and_a_branch_are_named(hub, folder):
    result = run("push", folder, "me/kept", "--create-pr")
    assert "/discussions/1" in flat(result)
    assert run("push", folder, "me/kept", "--revision", "quarter").exit_code == 0
    assert len(load_dataset("me/kept", split="train", revision="quarter")) == 6
    assert len(load_dataset("me/kept", split="train", revision="refs/pr/1")) == 6


def test_other_data_is_replaced_with_overwrite_only(hub, folder):
    make_rows()["test"].push_to_hub("me/kept")
    refused = run("push", folder, "me/kept")
    assert refused.exit_code == 1
    assert "--overwrite" in flat(refused)
    assert run("push", folder, "me/kept", "--overwrite").exit_code == 0
    assert len(load_dataset("me/kept", split="train")) == 6
    assert run("push", folder, "me/kept", "--config-name", "quarter").exit_code == 0


def test_a_local_source_gives_its_other_splits_when_it_is_named(hub, texts, tmp_path):
    make_rows().save_to_disk(tmp_path / "texts")
    out = tmp_path / "out"
    assert run("select", "me/lm", tmp_path / "texts", "--fraction", "0.25", *SMALL, "-o", out).exit_code == 0
    result = run("push", out, "me/kept", "--source", tmp_path / "texts", "--license", "mit")
    assert result.exit_code == 0, result.output
    assert load_dataset("me/kept", split="test")["text"] == TEXTS[:3]
    card = hub.files("me/kept")["README.md"].decode()
    assert "# texts, 6 rows chosen by SAGE" in card
    assert "6 of the 24 rows of texts." in card
    assert str(tmp_path) not in card


def test_a_stream_is_selected_from_and_pushed(hub, texts, tmp_path):
    arguments = ["--fraction", "0.25", *SMALL, "--streaming", "-o", tmp_path / "out", "--push-to-hub", "me/kept"]
    result = run("select", *texts, *arguments)
    assert result.exit_code == 0, result.output
    assert load_dataset("me/kept", split="train")["text"][:] == load_from_disk(tmp_path / "out")["text"][:]
    again = run("push", tmp_path / "out", "me/again")
    assert again.exit_code == 0, again.output
    assert len(load_dataset("me/again", split="train")) == 6


def test_what_fails_is_told_with_what_to_do_and_without_the_token(hub, folder, tmp_path):
    for token, told in (("hf_nobodys", "hf auth login"), ("hf_read", "only gives read access")):
        result = run("push", folder, "me/kept", "--token", token)
        assert result.exit_code == 1
        assert told in flat(result)
        assert token not in result.output
    assert run("push", tmp_path / "nothing", "me/kept").exit_code == 1
    assert "rights to create" in flat(run("push", folder, "them/kept"))
    assert not HfApi().repo_exists("me/kept", repo_type="dataset")


def test_an_adapter_and_a_configuration_on_the_hub_are_loaded_and_named_in_the_command(hub, texts, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained("me/lm")
    settings = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])
    get_peft_model(base, settings).push_to_hub("me/adapter")
    make_rows()["test"].push_to_hub("me/texts", config_name="few")
    out = tmp_path / "out"
    arguments = ["--dataset-config", "few", "--dataset-revision", "main", "--num-examples", "2", *SMALL, "-o", out]
    result = run("select", "me/adapter", "me/texts", *arguments)
    assert result.exit_code == 0, result.output
    assert "3 rows of me/texts, PeftModelForCausalLM for causal-lm" in flat(result)
    command = Selection.load_from_disk(out).stats.command
    given = dict(zip(command[4:-1:2], command[5::2], strict=False))
    assert given["--dataset-config"] == "few"
    assert given["--dataset-revision"] == hub.repos["dataset", "me/texts"].sha("main")
    assert given["--model-revision"] == hub.repos["model", "me/adapter"].sha("main")
    again = run(*command[1:-1], tmp_path / "again", "--device", "cpu")
    assert again.exit_code == 0, again.output
    one, other = (Selection.load_from_disk(place) for place in (out, tmp_path / "again"))
    assert one.scores.tolist() == other.scores.tolist()
