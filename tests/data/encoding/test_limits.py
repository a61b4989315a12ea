import pytest
from datasets import Dataset
from transformers import (
    BertConfig,
    BertForTokenClassification,
    LayoutLMConfig,
    LayoutLMForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from examples.python_text import train_tokenizer
from sage_hf import SageConfig, SageSelector
from sage_hf.data.encoding.model import find_limits, find_task
from sage_hf.errors import DatasetError, LabelError

from ...cases import BERT, bert, gpt2, head, llama


def select(model, columns, tokenizer=None):
    config = SageConfig(fraction=0.5, strategy="agreement", sketch_size=4)
    return SageSelector(model, processing_class=tokenizer, config=config, progress=False).select(
        Dataset.from_dict(columns)
    )


LABELS = {"label": [0, 1, 2, 1]}


@pytest.mark.parametrize(
    ("model", "columns", "said"),
    [
        (bert, {"input_ids": [[5], [64], [5], [99]], **LABELS}, "64, but the model knows only 0 to 63.*2 rows: 1, 3"),
        (bert, {"input_ids": [[5], [6], [-1, 6], [5]], **LABELS}, "holds -1.*row 2.*resize_token_embeddings"),
        (bert, {"input_ids": [[5] * 33, [6], [6], [5]], **LABELS}, "33 tokens, but the model has 32 positions.*row 0"),
        (gpt2, {"input_ids": [[5], [5] * 40, [6], [5]]}, "40 tokens, but the model has 32 positions.*row 1.*Truncate"),
        (bert, {"input_ids": [[5]] * 4, "token_type_ids": [[0], [2], [0], [0]], **LABELS}, "'token_type_ids', row 1"),
        (bert, {"input_ids": [[5]] * 4, "position_ids": [[0], [32], [0], [0]], **LABELS}, "'position_ids', row 1"),
        (bert, {"input_ids": [[5, 6]] * 4, "attention_mask": [[1, 1]] * 3 + [[1]], **LABELS}, "2 tokens and 1 number"),
        (bert, {"input_ids": [[5], None, [5], [5]], **LABELS}, "holds null.*'input_ids', row 1"),
    ],
)
def test_what_the_model_has_no_place_for_is_named_by_its_row(model, columns, said):
    with pytest.raises(DatasetError, match=said):
        select(model(), columns)


@pytest.mark.parametrize(
    ("model", "columns", "said"),
    [
        (llama, {"input_ids": [[5, 6]] * 4, "labels": [[-100, 6]] * 3 + [[5, 70]]}, "holds 70.*'labels', row 3"),
        (llama, {"input_ids": [[5, 6]] * 4, "labels": [[-100, 6]] * 3 + [[-100, -5]]}, "holds -5.*'labels', row 3"),
        (llama, {"input_ids": [[5, 6]] * 4, "labels": [[5, 6]] * 3 + [[5]]}, "2 tokens and 1 number.*row 3"),
        (
            lambda: BertForTokenClassification(BertConfig(**BERT, num_labels=3)),
            {"input_ids": [[5, 6]] * 4, "labels": [[0, 1]] * 3 + [[0, 3]]},
            "holds 3, but the model knows only 0 to 2.*row 3",
        ),
    ],
)
def test_labels_beyond_the_models_are_named_by_their_row(model, columns, said):
    with pytest.raises(LabelError, match=said):
        select(model(), columns)


def test_a_token_that_was_added_to_the_tokenizer_alone_is_found_in_a_text():
    tokenizer = train_tokenizer(["a b"], 260)
    tokenizer.add_tokens(["new"])
    columns = {"text": ["a b", "a new b", "b", "a b"]}
    model = llama(vocab_size=len(tokenizer) - 1)
    with pytest.raises(DatasetError, match=r"row 1.*resize_token_embeddings\(len\(tokenizer\)\)"):
        select(model, columns, tokenizer)
    model.resize_token_embeddings(len(tokenizer))
    assert len(select(model, columns, tokenizer)) == 2


def test_a_model_without_a_table_of_positions_takes_rows_of_any_length():
    assert len(select(llama(max_position_embeddings=8), {"input_ids": [[5] * 40, [5, 6], [6, 7], [7, 8]]})) == 2


def test_the_sizes_of_a_models_tables():
    assert find_limits(bert()).counts == {"input_ids": 64, "token_type_ids": 2, "position_ids": 32}
    assert find_limits(bert()).positions == 32
    assert find_limits(llama()).counts == {"input_ids": 64, "labels": 64}
    roberta = RobertaForSequenceClassification(RobertaConfig(**{**BERT, "max_position_embeddings": 34}))
    assert find_limits(roberta).positions == 32
    opt = OPTConfig(vocab_size=64, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2)
    assert find_limits(OPTForCausalLM(opt)).positions == opt.max_position_embeddings
    layout = LayoutLMForSequenceClassification(LayoutLMConfig(**BERT, max_2d_position_embeddings=100))
    assert find_limits(layout).counts["bbox"] == 100
    assert find_limits(layout).positions == 32


def test_the_task_of_a_model_is_told_by_its_class():
    tasks = {"causal-llama": "causal", "seq2seq": "seq2seq", "sequence": "classifier", "image": "classifier"}
    tasks |= {"multiple-choice": "choice", "token": "other", "masked": "other", "question": "other"}
    for kind, task in tasks.items():
        assert find_task(head(kind)[0]) == task

    class Own(type(bert())):
        pass

    assert find_task(Own(bert().config)) == "classifier"
