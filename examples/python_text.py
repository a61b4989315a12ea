"""Real English text that every Python carries: the language reference by topic, and the standard library's docstrings.

Nothing is downloaded. A tokenizer is trained on the text, and a small Llama is built from a config.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections import Counter
from collections.abc import Iterator

import torch
from datasets import ClassLabel, Dataset, DatasetInfo, Features, Value
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

# Modules that open windows, sockets or web pages, or print, when they are imported.
_NOT_IMPORTED = {"antigravity", "this", "idlelib", "turtledemo", "test", "lib2to3", "__main__", "msilib", "nturl2path"}


def topic_rows(longest: int = 1200) -> Dataset:
    """Paragraphs of the language reference: columns text and topic."""
    from pydoc_data.topics import topics

    rows = [
        {"text": paragraph.strip()[:longest], "topic": topic}
        for topic, text in sorted(topics.items())
        for paragraph in text.split("\n\n")
        if len(paragraph.split()) >= 8
    ]
    return Dataset.from_list(rows)


def topic_classes(classes: int = 8, longest: int = 1200) -> Dataset:
    """Paragraphs of the largest topics: columns text and label; a paragraph of several topics counts once."""
    rows, seen = topic_rows(longest), set()
    names = [name for name, _ in Counter(rows["topic"]).most_common(classes)]
    kept = [
        {"text": row["text"], "label": names.index(row["topic"])}
        for row in rows
        if row["topic"] in names and not (row["text"] in seen or seen.add(row["text"]))
    ]
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    return Dataset.from_list(kept, info=DatasetInfo(features=features, dataset_name="python-language-reference"))


def docstring_rows(limit: int | None = None, longest: int = 1200) -> Dataset:
    """The standard library's functions and classes: columns prompt (name and signature) and completion (docstring)."""
    rows = []
    for name, thing in _public_things():
        text = inspect.getdoc(thing)
        if text and len(text.split()) >= 5:
            rows.append({"prompt": f"{name}{_signature(thing)}\n", "completion": text[:longest]})
            if len(rows) == limit:
                break
    return Dataset.from_list(rows)


def train_tokenizer(texts: list[str], size: int = 2048) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with an end-of-text token and no padding token, as GPT-2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def build_llama(vocabulary: int, width: int = 64, layers: int = 2, seed: int = 0) -> LlamaForCausalLM:
    """A small causal language model from a config."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=512,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def build_bert(vocabulary: int, classes: int, width: int = 64, layers: int = 2) -> BertForSequenceClassification:
    """A small text classifier from a config."""
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=512,
            num_labels=classes,
        )
    )


def _public_things() -> Iterator[tuple[str, object]]:
    names = {module.name for module in pkgutil.iter_modules()} & set(sys.stdlib_module_names)
    seen: set[int] = set()
    for module_name in sorted(names - _NOT_IMPORTED):
        if module_name.startswith("_"):
            continue
        try:
            module = importlib.import_module(module_name)
        except Exception:  # a module for another platform
            continue
        for name, thing in sorted(vars(module).items()):
            is_own = (getattr(thing, "__module__", None) or "").partition(".")[0] == module_name
            if name.startswith("_") or not is_own or not callable(thing) or id(thing) in seen:
                continue
            seen.add(id(thing))
            yield f"{module_name}.{name}", thing
            if inspect.isclass(thing):
                for method_name, method in sorted(vars(thing).items()):
                    if not method_name.startswith("_") and inspect.isfunction(method):
                        yield f"{module_name}.{name}.{method_name}", method


def _signature(thing: object) -> str:
    """Without the addresses of defaults, which are others in every process."""
    try:
        return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(thing)))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(...)"
