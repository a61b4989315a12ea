"""Classification heads that look for a row's last token find it in a batch as they do in the row alone."""

import pytest
import torch
from datasets import Dataset
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPTNeoXConfig,
    GPTNeoXForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    OPTConfig,
    OPTForSequenceClassification,
)

from examples.python_text import train_tokenizer
from sage_hf import GradientCollector, SageConfig, SageSelector, find_label_issues
from sage_hf.gradients.model.padding import padding_shown
from sage_hf.passes.embeddings import EmbeddingReader
from sage_hf.training.warmup import warm_up

from ...cases import VOCABULARY, bert
from ...reference import per_example_gradients, relative_error, row

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_labels": 3,
}
BUILD = {
    "gpt2": lambda: GPT2ForSequenceClassification(
        GPT2Config(
            vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2
        )
    ),
    "llama": lambda: LlamaForSequenceClassification(LlamaConfig(**SMALL, intermediate_size=32)),
    "neox": lambda: GPTNeoXForSequenceClassification(GPTNeoXConfig(**SMALL, intermediate_size=32)),
    "opt": lambda: OPTForSequenceClassification(
        OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16, pad_token_id=None)
    ),
}
LENGTHS = (7, 3, 1, 5)


def build(kind, **settings):
    torch.manual_seed(0)
    model = BUILD[kind]().eval()
    for name, value in settings.items():
        setattr(model.config, name, value)
    return model


def batch(fill, ends=2):
    """Rows that end with a token, or with the one that fills them up."""
    ids = torch.randint(3, VOCABULARY, (4, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1] * length + [0] * (7 - length) for length in LENGTHS])
    for index, length in enumerate(LENGTHS):
        ids[index, length - 1] = ends
    return {
        "input_ids": ids.masked_fill(mask == 0, fill),
        "attention_mask": mask,
        "labels": torch.tensor([0, 1, 0, 1]),
    }


def alone(made, index):
    length = LENGTHS[index]
    return {name: value[:, :length] if value.ndim > 1 else value for name, value in row(made, index).items()}


@pytest.mark.parametrize("pad", [None, -1, 0, 5, 1000])
@pytest.mark.parametrize("kind", BUILD)
def test_rows_have_the_gradients_that_they_have_alone(kind, pad):
    model, made = build(kind, pad_token_id=pad), batch(fill=2)
    collector = GradientCollector(model, projection=None)
    found, losses = collector.collect(made)
    assert not collector.one_at_a_time
    assert model.config.pad_token_id == pad
    names = [block.name for block in collector.blocks]
    for index in range(4):
        own = alone(made, index)
        assert relative_error(found[index : index + 1], per_example_gradients(model, own, names)) < 1e-4
        assert losses[index] == pytest.approx(model(**own).loss.item(), rel=1e-4)


def test_a_row_that_ends_with_the_configs_padding_is_read_as_the_model_reads_it():
    model, made = build("llama", pad_token_id=2), batch(fill=7, ends=2)
    losses = GradientCollector(model).collect(made)[1]
    for index in range(4):
        assert losses[index] == pytest.approx(model(**alone(made, index)).loss.item(), rel=1e-4)


def test_embeddings_are_those_of_rows_alone():
    model, made = build("gpt2", pad_token_id=None), batch(fill=2)
    reader = EmbeddingReader(model, torch.device("cpu"), made)
    together = reader.forward(made)
    for index in range(4):
        one = reader.forward(alone(made, index))
        assert torch.allclose(together.embeddings[index], one.embeddings[0], atol=1e-5)
        assert together.el2n[index] == pytest.approx(one.el2n.item(), rel=1e-4)


def test_other_models_and_the_hooks_of_this_one_stay_as_they_are():
    for model in (build("gpt2"), bert(), torch.nn.Linear(2, 2)):
        with padding_shown(model):
            pass
        assert not model._forward_pre_hooks
    model = build("gpt2", pad_token_id=None)
    with pytest.raises(ValueError, match="batch sizes > 1"):
        model(**batch(fill=2))


def test_selection_label_issues_and_warm_up_take_whole_batches():
    tokenizer = train_tokenizer(["a b c d"], VOCABULARY + 200)
    texts = ["a b", "c", "d a b c", "b d"] * 12
    rows = Dataset.from_dict({"text": texts, "label": [0, 1] * 24})
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2
    )
    losses = []
    for size in (16, 1):
        torch.manual_seed(0)
        model = GPT2ForSequenceClassification(config)
        assert warm_up(model, rows, steps=2, batch_size=4, processing_class=tokenizer).steps == 2
        settings = SageConfig(fraction=0.5, batch_size=size)
        selection = SageSelector(model, processing_class=tokenizer, config=settings, progress=False).select(rows)
        assert not selection.stats.one_at_a_time
        assert (
            len(
                find_label_issues(model, rows, processing_class=tokenizer, config=settings, progress=False).label_doubt
            )
            == 48
        )
        losses.append(torch.from_numpy(selection.losses))
        assert model.config.pad_token_id is None
    assert torch.allclose(*losses, atol=1e-5)
