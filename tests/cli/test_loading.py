"""A path means itself: this file, this folder, this checkpoint; what cannot be read says so."""

import gzip
import json
import zipfile

import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict
from transformers import AutoModelForSequenceClassification, BertModel

from sage_hf import SageConfig, SageSelector
from sage_hf.cli.loading import load_model, load_other_splits, load_rows
from sage_hf.errors import ConfigError, DatasetError

from ..cases import bert, llama, pad_tokens, token_rows

# Names that glob patterns, URLs or shells read otherwise.
ODD_NAMES = (
    "a[x]",
    "[!x]",
    "q?",
    "s*",
    "**",
    "sp ace",
    "ünï",
    "h#h",
    "p%20",
    "{b}",
    "~",
    ".hidden",
    "__d",
    "c:d",
    "[",
)
DECOYS = ("ax", "b", "q1", "s1")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def write(place, rows=({"text": "asked for", "label": 1},)):
    """Rows in a file of the kind that its ending names."""
    place.parent.mkdir(parents=True, exist_ok=True)
    data = Dataset.from_list(list(rows))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if place.name.endswith(".gz"):
        place.write_bytes(gzip.compress(lines.encode()))
    elif place.suffix == ".zip":
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr("inside/rows.jsonl", lines)
    elif place.suffix == ".parquet":
        data.to_parquet(str(place))
    elif place.suffix in (".csv", ".tsv"):
        data.to_csv(str(place), sep="\t" if place.suffix == ".tsv" else ",")
    else:
        place.write_text(lines, encoding="utf-8")
    return place


def texts(rows):
    return [row["text"] for row in rows]


# ------------------------------------------------------------------- files
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_path_is_no_pattern(tmp_path, name, streaming):
    for decoy in DECOYS:
        write(tmp_path / decoy / "rows.jsonl", [{"text": "another file", "label": 0}])
    place = write(tmp_path / name / "rows.jsonl")
    assert texts(load_rows(str(place), streaming=streaming)) == ["asked for"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("ending", ["json", "ndjson", "csv", "tsv", "parquet", "jsonl.gz", "zip", "JSONL"])
def test_every_kind_of_file_is_read_by_its_name(tmp_path, ending, streaming):
    name = "r[x]/rows" if ending.endswith("gz") else "rows[x]"
    write(tmp_path / f"{name.replace('[x]', 'x')}.{ending}", [{"text": "another file", "label": 0}])
    place = write(tmp_path / f"{name}.{ending}")
    (row,) = load_rows(str(place), streaming=streaming)
    assert (row["text"], row["label"]) == ("asked for", 1)


def test_a_path_from_home_or_from_here_is_found(tmp_path, monkeypatch):
    write(tmp_path / "rows [x].jsonl")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert texts(load_rows("~/rows [x].jsonl")) == texts(load_rows("rows [x].jsonl")) == ["asked for"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.jsonl", "", "file is empty"),
        ("empty.csv", "", "file is empty"),
        ("blank.jsonl", "\n \n", "no rows"),
        ("list.json", "[]", "no rows"),
        ("header.csv", "text,label\n", "no rows"),
        ("words.json", "hello there", "JSON parse error"),
        ("half.jsonl", '{"text": "a"}\n{"text": "b', "JSON parse error"),
        ("table.parquet", "no parquet", "Parquet"),
        ("broken.zip", "no zip", "end in '.zip' cannot be read"),
        ("rows.docx", "x", "end in '.docx' cannot be read.*jsonl"),
    ],
)
def test_a_file_without_rows_is_named_and_told_what_is_wrong(tmp_path, name, content, words, streaming):
    place = tmp_path / f"a[{name[0]}]" / name
    place.parent.mkdir()
    place.write_text(content)
    with pytest.raises(DatasetError, match=words) as caught:
        load_rows(str(place), streaming=streaming)
    assert caught.value.where == str(place)


@pytest.mark.parametrize("path", ["rows.jsonl", "./rows", "~/no such rows", "a/b/c", "/nowhere/rows.csv", "no[w]here"])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(path):
    with pytest.raises(DatasetError, match="no such file or folder"):
        load_rows(path)


def test_a_pattern_is_told_to_be_none(tmp_path):
    write(tmp_path / "rows.jsonl")
    with pytest.raises(DatasetError, match="patterns are not read"):
        load_rows(str(tmp_path / "*.jsonl"))


@pytest.mark.parametrize("name", ["a::b/rows.jsonl", "rows[x].jsonl.gz"])
def test_a_name_that_datasets_takes_apart_is_refused(tmp_path, name):
    with pytest.raises(DatasetError, match="Rename"):
        load_rows(str(write(tmp_path / name)))


# ----------------------------------------------------------------- folders
def split_files(folder):
    for decoy in ("fx", "f1"):
        write(folder.parent / decoy / "train.parquet", [{"text": "another file", "label": 0}])
    write(folder / "train-00000-of-00002.parquet", [{"text": "one", "label": 0}])
    write(folder / "train-00001-of-00002.parquet", [{"text": "two", "label": 0}])
    write(folder / "test-00000-of-00001.parquet", [{"text": "held out", "label": 0}])
    return str(folder)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["f[x]", "f?", "f*", "plain", "f [x] ü"])
def test_a_folder_of_shards_is_read_with_its_splits(tmp_path, name, streaming):
    folder = split_files(tmp_path / name)
    assert texts(load_rows(folder, streaming=streaming)) == ["one", "two"]
    assert texts(load_rows(folder, "test", streaming=streaming)) == ["held out"]
    assert {split: texts(rows) for split, rows in load_other_splits(folder, "train").items()} == {"test": ["held out"]}


@pytest.mark.parametrize("name", ["f[x]", "plain"])
def test_the_configurations_of_a_folders_readme_are_read(tmp_path, name):
    folder = tmp_path / name
    for size in ("small", "large"):
        write(folder / size / "rows.jsonl", [{"text": size, "label": 0}])
    configs = "".join(f"- config_name: {size}\n  data_files: {size}/*.jsonl\n" for size in ("small", "large"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert texts(load_rows(str(folder), name="large")) == ["large"]
    with pytest.raises(DatasetError, match="huge"):
        load_rows(str(folder), name="huge")


@pytest.mark.parametrize("name", ["f[x]", "plain"])
def test_images_in_folders_of_their_classes(tmp_path, name):
    from PIL import Image

    for label in ("cat", "dog[1]"):
        (tmp_path / name / label).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name / label / "1.png")
    rows = load_rows(str(tmp_path / name))
    assert rows.features["label"].names == ["cat", "dog[1]"]
    assert rows["label"][:] == [0, 1]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_saved_dataset_is_read_from_any_folder(tmp_path, streaming):
    parts = {split: Dataset.from_dict({"text": [split]}) for split in ("train", "test")}
    DatasetDict(parts).save_to_disk(str(tmp_path / "s[x]"))
    parts["train"].save_to_disk(str(tmp_path / "t[x]"))
    assert texts(load_rows(str(tmp_path / "s[x]"), "test", streaming=streaming)) == ["test"]
    assert texts(load_rows(str(tmp_path / "t[x]"), streaming=streaming)) == ["train"]
    assert list(load_other_splits(str(tmp_path / "s[x]"), "train")) == ["test"]


@pytest.mark.parametrize("name", ["f[x]", "plain"])
def test_a_folder_without_data_says_so(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match="contain any data files"):
        load_rows(str(tmp_path / name))
    with pytest.raises(DatasetError, match="contain any data files"):
        load_other_splits(str(tmp_path / name), "train")
    (tmp_path / name / "notes.foo").write_text("x")
    with pytest.raises(DatasetError, match="data files"):
        load_rows(str(tmp_path / name))


def test_a_dictionary_encoded_column_is_text(tmp_path):
    import pandas

    frame = pandas.DataFrame({"text": ["a", "b"], "label": pandas.Categorical(["x", "y"])})
    frame.to_parquet(tmp_path / "rows.parquet")
    assert load_rows(str(tmp_path / "rows.parquet"))["label"][:] == ["x", "y"]


# ------------------------------------------------------------------ models
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
    assert "does not name its 2 classes: they are taken to be ['no', 'yes']" in caplog.text


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
