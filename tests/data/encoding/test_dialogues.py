"""Language is encoded as trl's SFTTrainer encodes it; what is no dialogue is named by its row."""

import json
import re

import pytest
from datasets import Dataset
from trl import SFTConfig, SFTTrainer
from trl.data_utils import maybe_convert_to_chatml

from examples.python_text import train_tokenizer
from sage_hf import SageConfig
from sage_hf.data.columns import open_source
from sage_hf.data.encoding.dialogues import dialogue_ids, turns
from sage_hf.errors import DatasetError

from ...cases import bert, llama

TEXTS = ["the cat sat on the mat", "a dog", "one two three four five six", "the mat"]
TEMPLATE = (
    "{% for tool in tools or [] %}<tool>{{ tool.function.name }}{% endfor %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token if m.role == 'assistant' }}{% endfor %}"
    "{% if shout is defined and shout %}!{% endif %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    made = train_tokenizer([*TEXTS, "<user><assistant><tool><human>!"] * 3, 280)
    made.chat_template = TEMPLATE
    made.pad_token = "<eos>"
    return made


def user(text):
    return [{"role": "user", "content": text}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


TOOLS = [{"type": "function", "function": {"name": "look"}}]
DIALOGUES = [user(text) + assistant("one") for text in TEXTS]
FORMS = {
    "text": {"text": TEXTS},
    "text that has its end": {"text": [f"{text}<eos>" for text in TEXTS]},
    "messages": {"messages": DIALOGUES},
    "messages with tools": {"messages": DIALOGUES, "tools": [TOOLS] * 4},
    "messages with tools as JSON": {"messages": DIALOGUES, "tools": [json.dumps(TOOLS)] * 4},
    "messages with template settings": {"messages": DIALOGUES, "chat_template_kwargs": [{"shout": True}] * 4},
    "messages and other columns": {"messages": DIALOGUES, "documents": [["a"]] * 4, "source": ["web"] * 4},
    "from and value": {
        "conversations": [[{"from": "human", "value": text}, {"from": "gpt", "value": "one"}] for text in TEXTS]
    },
    "prompt and completion": {"prompt": TEXTS, "completion": [" sat", "s", "", " mat"]},
    "prompt and completion that merge": {"prompt": ["the c", "a d", "on", "tw"], "completion": ["at", "og", "e", "o"]},
    "prompt and completion of turns": {"prompt": [user(text) for text in TEXTS], "completion": [assistant("one")] * 4},
    "the same with tools": {
        "prompt": [user(text) for text in TEXTS],
        "completion": [assistant("one")] * 4,
        "tools": [TOOLS] * 4,
    },
}


def encoded(rows, tokenizer, model=None, **settings):
    source = open_source(model or llama(vocab_size=280), rows, SageConfig(**settings), tokenizer, None)
    return source._features(range(len(rows)))


@pytest.mark.parametrize("form", FORMS)
def test_the_tokens_and_labels_are_those_that_trl_trains_on(tokenizer, tmp_path, form):
    rows = Dataset.from_dict(FORMS[form])
    arguments = SFTConfig(str(tmp_path), report_to=[], use_cpu=True, max_length=20, eos_token="<eos>")
    trained = SFTTrainer(llama(vocab_size=280), arguments, train_dataset=rows, processing_class=tokenizer)
    wanted = {tuple(row["input_ids"]): row["labels"] for row in trained.train_dataset}
    # trl leaves out rows whose prompt fills them; here they are set aside.
    found = {tuple(row["input_ids"]): row["labels"] for row in encoded(rows, tokenizer, max_length=20)}
    assert {ids: labels for ids, labels in found.items() if set(labels) != {-100}} == wanted
    assert len(found) == len(TEXTS)


def test_prompt_and_completion_come_before_messages(tokenizer):
    rows = Dataset.from_dict(FORMS["prompt and completion"])  # trl looks at a column that differs from run to run
    both = rows.add_column("messages", DIALOGUES)
    assert encoded(both, tokenizer) == encoded(rows, tokenizer)


def test_turns_of_from_and_value_are_those_that_trl_makes():
    given = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    wanted = maybe_convert_to_chatml({"conversations": [dict(turn) for turn in given]})["messages"]
    assert turns(given) == wanted
    assert turns([{**turn, "role": None, "content": None} for turn in given]) == wanted


def test_dialogues_are_found_in_columns_of_other_names(tokenizer):
    (wanted,) = encoded(Dataset.from_dict({"messages": DIALOGUES[:1]}), tokenizer)
    assert encoded(Dataset.from_dict({"conversations": DIALOGUES[:1]}), tokenizer) == [wanted]
    rows = Dataset.from_dict({"chat": DIALOGUES[:1], "text": ["a"]})
    assert encoded(rows, tokenizer, text_columns=["chat"]) == [wanted]


def test_a_classifier_reads_dialogues_with_the_labels_of_their_column(tokenizer):
    (language,) = encoded(Dataset.from_dict({"messages": DIALOGUES[:1]}), tokenizer)
    rows = Dataset.from_dict({"messages": DIALOGUES[:1], "label": [2]})
    (feature,) = encoded(rows, tokenizer, bert(vocab_size=280, max_position_embeddings=64))
    assert feature["input_ids"] == language["input_ids"]
    assert feature["labels"] == 2


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (json.dumps(DIALOGUES[0]), "holds a str"),
        (None, "holds null, but a list of turns is needed"),
        ([], "has no turns"),
        (["hello"], "not a dictionary: 'hello'"),
        ([{"speaker": "a", "text": "b"}], r"neither role and content nor from and value, only \['speaker', 'text'\]"),
        ([{"role": "user", "content": None}], "of the role 'user' is empty"),
    ],
)
def test_what_is_no_dialogue_is_counted_and_named(tokenizer, odd, said):
    rows = [{"messages": DIALOGUES[0]}, *[{"messages": odd}] * 7]
    where = re.escape("[column 'messages', 7 rows among 40 to 47, first 41, 42, 43, 44, 45]")
    with pytest.raises(DatasetError, match=f"{said}.*{where}"):
        dialogue_ids(tokenizer, rows, "messages", 40)


def test_all_rows_of_a_dataset_are_counted_wherever_one_is_met(tokenizer):
    rows = Dataset.from_dict({"messages": [*DIALOGUES, None, None]})
    source = open_source(llama(vocab_size=280), rows, SageConfig(), tokenizer, None)
    with pytest.raises(DatasetError, match=r"\[column 'messages', 2 rows: 4, 5\]"):
        source._features(range(4, 5))


def test_what_a_template_refuses_is_named_by_its_row(tokenizer):
    strict = train_tokenizer(TEXTS * 3, 280)
    strict.chat_template = (
        "{% for m in messages %}{% if m.role == 'human' %}{{ raise_exception('no human') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    rows = Dataset.from_list([{"messages": user("a")}, {"messages": [{"role": "human", "content": "b"}]}])
    with pytest.raises(DatasetError, match=r"TemplateError: no human \[column 'messages', row 1\].*chat_template"):
        encoded(rows, strict)
    rows = Dataset.from_dict({"messages": DIALOGUES, "tools": ["[]", "[]", "{", "[]"]})
    with pytest.raises(DatasetError, match=r"JSONDecodeError.*row 2"):
        encoded(rows, tokenizer)


def test_a_prompt_of_turns_with_a_completion_of_text_is_refused(tokenizer):
    rows = Dataset.from_dict({"prompt": [user(text) for text in TEXTS], "completion": TEXTS})
    with pytest.raises(DatasetError, match=r"a list of turns is needed.*4 rows: 0, 1, 2, 3"):
        encoded(rows, tokenizer)
