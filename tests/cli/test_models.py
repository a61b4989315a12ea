"""A model has the head that its task needs, with the adapter that is named; what cannot be loaded says so."""

import json

import pytest
import torch
from datasets import ClassLabel, Dataset
from transformers import AutoModelForSequenceClassification, BertModel

from sage_hf import SageConfig, SageSelector
from sage_hf.cli.models import load_model
from sage_hf.errors import ConfigError, DatasetError

from ..cases import bert, llama, pad_tokens, token_rows


def test_a_new_head_names_its_classes_as_the_dataset_does(tmp_path):
    BertModel(bert().config).save_pretrained(tmp_path)
    rows = Dataset.from_dict({"text": ["a", "b"], "label": ["no", "yes"]})
    loaded = load_model(str(tmp_path), rows, "sequence-classification")
    assert loaded.model.config.label2id == {"no": 0, "yes": 1}
    assert loaded.new_weights == ["classifier.bias", "classifier.weight"]


def test_labels_that_are_missing_are_counted_and_named_before_a_head_is_made(tmp_path):
    BertModel(bert().config).save_pretrained(tmp_path)
    rows = Dataset.from_dict({"text": list("abcd"), "label": ["no", None, "yes", None]})
    with pytest.raises(DatasetError, match=r"2 rows have no label, first in rows \[1, 3\]"):
        load_model(str(tmp_path), rows, "sequence-classification")


def adapter(folder, model, task_type, **settings):
    """A saved base model and a saved adapter on it, with weights of its own; the folder of the adapter."""
    peft = pytest.importorskip("peft")
    model.save_pretrained(folder / "base")
    model.name_or_path = str(folder / "base")
    torch.manual_seed(1)
    config = peft.LoraConfig(task_type=task_type, r=4, init_lora_weights=False, **settings)
    made = peft.get_peft_model(model, config)
    made.save_pretrained(folder / "adapter")
    return made, str(folder / "adapter")


def test_an_adapter_is_loaded_on_its_base_and_can_be_trained(tmp_path):
    made, folder = adapter(tmp_path, llama(), "CAUSAL_LM", target_modules=["q_proj"])
    rows = token_rows()
    loaded = load_model(folder, rows)
    assert (loaded.task, loaded.new_weights, loaded.revision) == ("causal-lm", [], None)
    trainable = [name for name, weight in loaded.model.named_parameters() if weight.requires_grad]
    assert trainable and all("lora_" in name for name in trainable)
    batch = {name: values[:2] for name, values in pad_tokens(list(rows)).items()}
    with torch.no_grad():
        assert torch.equal(loaded.model(**batch).loss, made.eval()(**batch).loss)
    about = {"data_collator": pad_tokens, "config": SageConfig(fraction=0.2), "progress": False}
    theirs, ours = (SageSelector(model, **about).select(rows) for model in (made, loaded.model))
    assert (ours.scores == theirs.scores).all()


def test_an_adapter_of_a_classifier_brings_its_head(tmp_path):
    base = AutoModelForSequenceClassification.from_config(bert(num_labels=2).config)
    made, folder = adapter(tmp_path, base, "SEQ_CLS", target_modules=["query"])
    BertModel(base.config).save_pretrained(tmp_path / "base")  # which has none
    classes = ClassLabel(names=["no", "yes"])
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}).cast_column("label", classes)
    loaded = load_model(folder, rows)
    assert (loaded.task, loaded.new_weights) == ("sequence-classification", [])
    ours, theirs = (
        next(weight for name, weight in model.named_parameters() if "classifier.modules_to_save" in name)
        for model in (loaded.model, made)
    )
    assert torch.equal(ours, theirs) and ours.requires_grad
    assert loaded.model.config.label2id == {"no": 0, "yes": 1}
    with pytest.raises(ConfigError, match="for sequence-classification, not for causal-lm"):
        load_model(folder, rows, "causal-lm")


def test_the_head_of_an_adapter_counts_the_classes_where_the_dataset_has_others(tmp_path):
    _, folder = adapter(tmp_path, bert(num_labels=3), "SEQ_CLS", target_modules=["query"])
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    assert load_model(folder, rows).model.config.num_labels == 3
    BertModel(bert().config).save_pretrained(tmp_path / "base")
    for given in (rows, rows.to_iterable_dataset(), rows.add_column("labels", [0.5, 1.5])):
        assert load_model(folder, given).model.config.num_labels == 3


def test_the_classes_of_an_adapter_are_those_of_the_dataset_which_is_said(tmp_path, caplog):
    base = bert(num_labels=2)
    _, folder = adapter(tmp_path, base, "SEQ_CLS", target_modules=["query"])
    BertModel(base.config).save_pretrained(tmp_path / "base")
    rows = Dataset.from_dict({"text": ["a", "b"], "label": ["yes", "no"]})
    assert load_model(folder, rows).model.config.label2id == {"no": 0, "yes": 1}
    assert "does not name its 2 classes: they are assumed to be ['no', 'yes']" in caplog.text


def test_an_adapter_without_weights_says_what_is_missing(tmp_path):
    _, folder = adapter(tmp_path, llama(), "CAUSAL_LM", target_modules=["q_proj"])
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"adapter_model\.safetensors is missing"):
        load_model(folder, token_rows())


def test_the_base_of_an_adapter_is_also_looked_for_beside_it(tmp_path, monkeypatch):
    _, folder = adapter(tmp_path, llama(), "CAUSAL_LM", target_modules=["q_proj"])
    settings = tmp_path / "adapter" / "adapter_config.json"
    about = json.loads(settings.read_text())
    settings.write_text(json.dumps(about | {"base_model_name_or_path": "../base"}))
    monkeypatch.chdir(tmp_path)
    assert load_model(folder, token_rows()).task == "causal-lm"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_model_name_or_path": "/nowhere/base"}, "base model '/nowhere/base' of the adapter cannot be found"),
        ({"base_model_name_or_path": None}, "does not name its base model"),
        ({"task_type": "QUESTION_ANS"}, "The adapter is for QUESTION_ANS"),
    ],
)
def test_an_adapter_that_cannot_be_loaded_says_what_to_change(tmp_path, change, words):
    _, folder = adapter(tmp_path, llama(), "CAUSAL_LM", target_modules=["q_proj"])
    settings = tmp_path / "adapter" / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | change))
    with pytest.raises(ConfigError, match=words) as caught:
        load_model(folder, token_rows())
    assert "adapter_config.json" in caught.value.where


def test_an_adapter_on_another_base_does_not_fit(tmp_path):
    _, folder = adapter(tmp_path, llama(), "CAUSAL_LM", target_modules=["q_proj"])
    llama(hidden_size=32).save_pretrained(tmp_path / "base")
    with pytest.raises(ConfigError, match="does not fit LlamaForCausalLM"):
        load_model(folder, token_rows())


def test_without_peft_an_adapter_says_what_to_install(tmp_path, monkeypatch):
    _, folder = adapter(tmp_path, llama(), "CAUSAL_LM", target_modules=["q_proj"])
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ConfigError, match="PEFT is not installed"):
        load_model(folder, token_rows())
