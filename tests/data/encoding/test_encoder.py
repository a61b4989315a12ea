import pytest
import torch
import transformers
from datasets import Dataset
from PIL import Image

from examples.python_text import train_tokenizer
from sage_hf.data.encoding import Encoder
from sage_hf.data.encoding.model import ModelFacts
from sage_hf.errors import DatasetError, LabelError

# The one without torchvision; older versions have no other.
ViTImageProcessor = getattr(transformers, "ViTImageProcessorPil", None) or transformers.ViTImageProcessor
TEXTS = ["the cat sat on the mat", "a dog", "one two three four five six"]
LM_INPUTS = frozenset({"input_ids", "attention_mask", "labels"})
CLASS_INPUTS = frozenset({"input_ids", "attention_mask", "labels"})


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 3, 280)


def encoder(rows, inputs=LM_INPUTS, **settings):
    facts = {name: settings.pop(name) for name in ("task", "label_ids", "num_labels") if name in settings}
    return Encoder(rows[0], ModelFacts(inputs, **facts), **settings)


def batch(made, rows):
    return made.collate(made.encode(rows))


def test_text_of_a_language_model_is_its_own_label_with_padding_masked_on_the_right(tokenizer):
    rows = [{"text": text} for text in TEXTS]
    made = batch(encoder(rows, processing_class=tokenizer, task="causal"), rows)
    for index, text in enumerate(TEXTS):
        length = int(made["attention_mask"][index].sum())
        ids = [*tokenizer(text).input_ids, tokenizer.eos_token_id]
        assert made["input_ids"][index, :length].tolist() == ids
        assert made["labels"][index, :length].tolist() == ids
        assert (made["labels"][index, length:] == -100).all()
    assert tokenizer.pad_token is None, "the user's tokenizer stays as it is"


def test_prompts_are_masked_and_completions_are_not(tokenizer):
    rows = [{"prompt": "the cat", "completion": " sat"}]
    made = batch(encoder(rows, processing_class=tokenizer, task="causal"), rows)
    prompt = len(tokenizer("the cat").input_ids)
    assert (made["labels"][0, :prompt] == -100).all()
    assert (made["labels"][0, prompt:] == made["input_ids"][0, prompt:]).all()
    assert made["input_ids"][0, -1] == tokenizer.eos_token_id


def test_instructions_with_and_without_input_are_prompts(tokenizer):
    rows = [
        {"instruction": "one", "input": "two", "output": "six"},
        {"instruction": "one", "input": "", "output": "a"},
    ]
    features = encoder(rows, processing_class=tokenizer, task="causal").encode(rows)
    prompts = [sum(label == -100 for label in feature["labels"]) for feature in features]
    assert prompts == [len(tokenizer("one\ntwo\n").input_ids), len(tokenizer("one\n").input_ids)]


def test_dialogues_go_through_the_chat_template(tokenizer):
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "dog"}]}]
    chat = train_tokenizer(TEXTS * 3, 280)
    chat.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    (feature,) = encoder(rows, processing_class=chat, task="causal").encode(rows)
    assert chat.decode(feature["input_ids"]) == "a dog "
    assert feature["labels"] == feature["input_ids"]


def test_long_text_is_cut_at_the_longest_length(tokenizer):
    rows = [{"text": "one " * 50}]
    for task in ("causal", "other"):
        made = encoder([{**rows[0], "label": 1}], processing_class=tokenizer, task=task, max_length=7).encode(
            [{**rows[0], "label": 1}]
        )
        assert len(made[0]["input_ids"]) == 7


def test_classes_come_as_numbers_or_by_their_names(tokenizer):
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, ["cat", "dog", "cat"], strict=True)]
    settings = {"processing_class": tokenizer, "inputs": CLASS_INPUTS}
    made = batch(encoder(rows, **settings, label_ids={"cat": 0, "dog": 1}), rows)
    assert made["labels"].tolist() == [0, 1, 0]
    assert made["input_ids"].shape == made["attention_mask"].shape
    with pytest.raises(LabelError, match="no class 'cat'"):
        encoder(rows, **settings).encode(rows)


def test_pairs_of_texts_are_encoded_together(tokenizer):
    rows = [{"premise": "a dog", "hypothesis": "the cat", "label": 0}]
    both = encoder(rows, CLASS_INPUTS, processing_class=tokenizer).encode(rows)[0]["input_ids"]
    assert both == tokenizer("a dog", "the cat").input_ids
    named = encoder(rows, CLASS_INPUTS, processing_class=tokenizer, text_columns=["hypothesis"]).encode(rows)
    assert named[0]["input_ids"] == tokenizer("the cat").input_ids


def test_images_go_through_the_processor_whatever_their_mode():
    processor = ViTImageProcessor(size={"height": 8, "width": 8})
    rows = [{"image": Image.new(mode, (5, 7)), "label": 1} for mode in ("L", "RGB", "P", "RGBA")]
    made = encoder(rows, frozenset({"pixel_values", "labels"}), processing_class=processor)
    assert batch(made, rows)["pixel_values"].shape == (4, 3, 8, 8)
    assert batch(made, rows)["labels"].tolist() == [1] * 4
    assert not made.is_tokens


def test_prepared_columns_pass_and_others_are_dropped():
    rows = [{"pixel_values": [[[0.0]]], "label": 2, "name": "x"}, {"pixel_values": [[[1.0]]], "label": 0, "name": "y"}]
    made = batch(encoder(rows, frozenset({"pixel_values", "labels"})), rows)
    assert set(made) == {"pixel_values", "labels"}
    assert made["labels"].tolist() == [2, 0]


def test_prepared_tokens_of_a_language_model_label_themselves_but_for_padding(tokenizer):
    rows = [{"input_ids": [5, 6, 7], "attention_mask": [1, 1, 0]}]
    made = batch(encoder(rows, task="causal", processing_class=tokenizer), rows)
    assert made["labels"].tolist() == [[5, 6, -100]]


def test_any_column_that_a_plain_module_takes_is_prepared():
    rows = [{"x": [1.0, 2.0], "label": 1}]
    made = batch(encoder(rows, frozenset({"x"})), rows)
    assert torch.equal(made["x"], torch.tensor([[1.0, 2.0]]))


def test_a_collator_has_the_last_word_and_may_take_raw_rows():
    rows = [{"words": "one two", "label": 1}]
    made = encoder(rows, data_collator=lambda each: {"input_ids": torch.tensor([[len(r["words"])] for r in each])})
    assert batch(made, rows)["input_ids"].tolist() == [[7]]


def test_what_cannot_be_encoded_says_what_is_missing(tokenizer):
    with pytest.raises(DatasetError, match=r"from the columns \['first', 'second', 'third'\]"):
        encoder([{"first": "a", "second": "b", "third": "c"}], processing_class=tokenizer, task="causal")
    with pytest.raises(DatasetError, match="processing_class"):
        encoder([{"text": "a", "label": 1}])
    with pytest.raises(DatasetError, match=r"no column \['body'\]"):
        encoder([{"text": "a"}], processing_class=tokenizer, text_columns=["body"])
    with pytest.raises(LabelError, match="no label column, only"):
        encoder([{"text": "a"}], CLASS_INPUTS, processing_class=tokenizer)
    rows = [{"input_ids": [1, 2]}, {"input_ids": [1]}]
    with pytest.raises(DatasetError, match="Pass processing_class=tokenizer"):
        batch(encoder(rows, frozenset({"input_ids", "labels"}), task="causal"), rows)


@pytest.mark.parametrize("value", [None, 3])
def test_what_is_no_text_is_named_by_its_row(tokenizer, value):
    rows = [{"text": "a"}, {"text": value}]
    with pytest.raises(DatasetError, match=f"holds {value}, but a text is needed.*row 41"):
        encoder(rows, processing_class=tokenizer, task="causal").encode(rows, first=40)


def test_labels_that_are_no_class_of_the_model_are_named_by_their_row(tokenizer):
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": None}, {"text": "b", "label": 5}]
    made = encoder(rows, CLASS_INPUTS, processing_class=tokenizer, num_labels=3)
    with pytest.raises(LabelError, match=r"null.*row 1"):
        made.encode(rows[:2])
    with pytest.raises(LabelError, match=r"label is 5, and the model has the classes 0 to 2.*row 7"):
        made.encode(rows[2:], first=7)


def test_truth_values_and_many_hot_labels_are_kept_as_what_they_are(tokenizer):
    for labels, kind in (([True, False], torch.int64), ([[1.0, 0.0], [0.0, 1.0]], torch.float32)):
        rows = [{"text": text, "label": label} for text, label in zip(["a", "a dog"], labels, strict=True)]
        made = batch(encoder(rows, CLASS_INPUTS, processing_class=tokenizer), rows)
        assert made["labels"].dtype is kind
        assert made["labels"].tolist() == labels


def test_a_class_beside_the_tokens_is_no_label_of_a_language_model(tokenizer):
    rows = [{"input_ids": [5, 6], "label": 1}]
    made = batch(encoder(rows, task="causal", processing_class=tokenizer), rows)
    assert made["labels"].tolist() == [[5, 6]]


def test_one_text_a_row_and_a_chat_template_are_asked_for(tokenizer):
    with pytest.raises(DatasetError, match="prompt"):
        encoder([{"q": "a", "a": "b"}], processing_class=tokenizer, task="causal", text_columns=["q", "a"])
    rows = [{"messages": [{"role": "user", "content": "a"}]}]
    with pytest.raises(DatasetError, match="no chat template"):
        encoder(rows, processing_class=tokenizer, task="causal").encode(rows)


def test_the_dataset_column_types_do_not_matter(tokenizer):
    rows = Dataset.from_dict({"input_ids": [[1, 2, 3], [4, 5, 6]]}).with_format("torch")
    made = encoder([rows[0]], task="causal", processing_class=tokenizer)
    assert batch(made, [rows[0], rows[1]])["labels"].tolist() == [[1, 2, 3], [4, 5, 6]]
