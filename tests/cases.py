"""Small models of every kind, each with a batch: one zoo for every feature."""

import torch
from datasets import ClassLabel, Dataset
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    ResNetConfig,
    ResNetForImageClassification,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

VOCABULARY = 64
BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
VIT = {
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 1,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def token_batch(rows=4, length=9):
    """Token ids, with padding on the right of the second row."""
    ids = torch.randint(3, VOCABULARY, (rows, length))
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}


def lm_batch(rows=4, length=9):
    """The tokens as labels, but for padding and for the start of the third row."""
    batch = token_batch(rows, length)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    labels[2, :4] = -100
    return {**batch, "labels": labels}


def llama(**changes):
    torch.manual_seed(0)
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    return LlamaForCausalLM(LlamaConfig(**{**settings, **changes}))


def mixtral(**changes):
    torch.manual_seed(0)
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        "max_position_embeddings": 64,
    }
    model = MixtralForCausalLM(MixtralConfig(**{**settings, **changes}))
    for parameter in model.parameters():  # else the router sends every token to the same experts
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2
        )
    )


def bert(**changes):
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**{**BERT, "num_labels": 3, **changes}))


def vit(num_labels=3):
    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(**VIT, num_labels=num_labels))


def head(kind):
    """(model, batch) for a Hugging Face task head, by name."""
    torch.manual_seed(0)
    classes, words = torch.tensor([0, 1, 2, 1]), torch.randint(3, VOCABULARY, (4, 9))
    if kind == "causal-llama":
        return llama(), lm_batch()
    if kind == "causal-gpt2":
        return gpt2(), lm_batch()
    if kind == "sequence":
        return bert(), {**token_batch(), "labels": classes}
    if kind == "regression":
        return bert(num_labels=1), {**token_batch(), "labels": torch.randn(4)}
    if kind == "multi-label":
        model = bert(problem_type="multi_label_classification")
        return model, {**token_batch(), "labels": torch.randint(0, 2, (4, 3)).float()}
    if kind == "token":
        labels = torch.randint(0, 3, (4, 9))
        labels[1, 4:] = -100
        return BertForTokenClassification(BertConfig(**BERT, num_labels=3)), {**token_batch(), "labels": labels}
    if kind == "masked":
        labels = words.masked_fill(torch.rand(4, 9) > 0.4, -100)
        labels[:, 0] = 5
        return BertForMaskedLM(BertConfig(**BERT)), {**token_batch(), "labels": labels}
    if kind == "question":
        spans = {"start_positions": torch.tensor([0, 1, 2, 3]), "end_positions": torch.tensor([1, 2, 3, 4])}
        return BertForQuestionAnswering(BertConfig(**BERT)), {**token_batch(), **spans}
    if kind == "multiple-choice":
        batch = {"input_ids": torch.randint(3, VOCABULARY, (4, 3, 9)), "labels": classes}
        return BertForMultipleChoice(BertConfig(**BERT)), batch
    if kind == "seq2seq":
        config = T5Config(
            vocab_size=VOCABULARY,
            d_model=16,
            d_kv=8,
            d_ff=32,
            num_layers=2,
            num_heads=2,
            decoder_start_token_id=0,
            pad_token_id=0,
        )
        labels = torch.randint(3, VOCABULARY, (4, 6))
        labels[2, 3:] = -100
        return T5ForConditionalGeneration(config), {**token_batch(), "labels": labels}
    if kind == "image":
        return vit(), {"pixel_values": torch.randn(4, 1, 8, 8), "labels": classes}
    assert kind == "resnet"
    config = ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    config.num_labels = 3
    return ResNetForImageClassification(config), {"pixel_values": torch.randn(4, 1, 32, 32), "labels": classes}


HEADS = (
    "causal-llama",
    "causal-gpt2",
    "sequence",
    "regression",
    "multi-label",
    "token",
    "masked",
    "question",
    "multiple-choice",
    "seq2seq",
    "image",
    "resnet",
)


class OneLayer(nn.Module):
    """A layer between an input and three logits, in float64, for the rules."""

    def __init__(self, layer, example, calls=1):
        super().__init__()
        self.before = nn.Identity()
        self.layer = layer
        self.calls = calls
        self.double()
        with torch.no_grad():
            width = self.features(example).shape[1]
        self.register_buffer("mix", torch.randn(width, 3, dtype=torch.float64))

    def features(self, inputs):
        for _ in range(self.calls):
            inputs = self.layer(inputs)
        return torch.tanh(inputs.flatten(1))

    def forward(self, inputs):
        return self.features(inputs) @ self.mix


def image_rows(count=60, classes=3, seed=0):
    """Prepared rows for `vit()`: images whose mean tells their class, and noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    pixels = torch.randn(count, 1, 8, 8, generator=generator) * 0.5 + labels[:, None, None, None] - 1
    rows = Dataset.from_dict({"pixel_values": pixels.numpy(), "label": labels.tolist()})
    return rows.cast_column("label", ClassLabel(names=[f"class {number}" for number in range(classes)]))


def pad_tokens(features):
    """A collator for `token_rows`; tokens are labels where there are none."""
    longest = max(len(feature["input_ids"]) for feature in features)
    fills = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    rows = [{**feature, "labels": feature.get("labels", feature["input_ids"])} for feature in features]
    return {
        name: torch.tensor([row[name] + [fill] * (longest - len(row[name])) for row in rows])
        for name, fill in fills.items()
    }


def token_rows(count=40, seed=0):
    """Prepared rows for `llama()`: token lists of uneven length."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 16, (count,), generator=generator).tolist()
    ids = [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    return Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]})
