"""What the benchmark of quality learns: digits, patches of pictures, topics and language of documentation, tumours.

Each task gives, for a seed and a share of spoilt rows, rows to choose from, rows to judge by, a model to score with
after a short warm-up, and fresh models to train. Everything is real data that pip packages or Python carry.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Array3D, ClassLabel, Dataset, Features, List, Value
from quality_patches import EDGE, ConvNet, load_patches, names
from quality_texts import MiniLMClassifier, TopOfMiniLM, WholeMiniLM, documentation, paragraphs
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from sage_hf.demo import build_vit, load_noisy_digits
from sage_hf.training.warmup import warm_up

sys.path.insert(0, str(Path(__file__).parents[1]))
from python_text import build_llama, docstring_rows, topic_rows, train_tokenizer

# Where all of MiniLM is trained: tokens of a row, and rows of a topic at least, so that one training takes 20 seconds.
_WHOLE_TOKENS, _LARGE_TOPIC = 16, 140
_LM_TOKENS = 64


@dataclass(frozen=True)
class Prepared:
    """A task for one seed.

    Attributes:
        train: Rows to choose from.
        test: Rows to judge by, none of them spoilt.
        spoilt: [len(train)] which rows are.
        scorer: The model that scores, after its warm-up.
        build: seed -> a fresh model.
        collator: Joins rows, where the library's own does not.
    """

    train: Dataset
    test: Dataset
    spoilt: np.ndarray
    scorer: nn.Module
    build: Callable[[int], nn.Module]
    collator: Any = None


@dataclass(frozen=True)
class Task:
    """Something to learn.

    Attributes:
        title: For the table.
        spoiling: What happens to spoilt rows.
        prepare: (seed, share of spoilt rows) -> what is learned.
        training: Keywords of `TrainingArguments`, fixed before the first run.
        pretrained: Whether models start from weights that have learned something else.
    """

    title: str
    spoiling: str
    prepare: Callable[[int, float], Prepared]
    training: dict[str, Any]
    pretrained: bool = False


def wrong_labels(labels: np.ndarray, share: float, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a share is wrong: any other class ("uniform"), or always the next one ("class").

    Returns:
        The labels, and which are wrong.
    """
    rng = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    wrong = np.zeros(len(labels), dtype=bool)
    wrong[rng.permutation(len(labels))[: round(share * len(labels))]] = True
    other = rng.integers(1, classes, len(labels)) if kind == "uniform" else 1
    return np.where(wrong, (labels + other) % classes, labels), wrong


# ------------------------------------------------------------------------- digits
def digits(seed: int, share: float, kind: str = "uniform") -> Prepared:
    """1,257 images of digits, 10 classes; a vision transformer with 0.1 million weights, from nothing."""
    data = load_noisy_digits(seed, 0.0)
    labels, wrong = wrong_labels(np.array(data.train["label"][:]), share, kind, seed)
    train = data.train.remove_columns("label").add_column("label", labels.tolist())
    train = train.cast_column("label", data.train.features["label"])
    scorer = build_vit(seed + 77)
    warm_up(scorer, train, steps=300, learning_rate=2e-3, batch_size=32)
    return Prepared(train, data.test, wrong, scorer, build_vit)


# ------------------------------------------------------------------------ patches
def patches(seed: int, share: float, kind: str = "uniform") -> Prepared:
    """2,800 patches of photographs and textures, 12 pictures; a small convolutional network, from nothing."""
    held = load_patches(seed)
    noisy, wrong = wrong_labels(held.train_labels, share, kind, seed)

    def rows(pixels: np.ndarray, labels: np.ndarray) -> Dataset:
        kinds = {"pixel_values": Array3D((1, EDGE, EDGE), "float32"), "label": ClassLabel(names=names())}
        return Dataset.from_dict({"pixel_values": pixels, "label": labels.tolist()}, features=Features(kinds))

    train, scorer = rows(held.train, noisy), ConvNet(seed + 77)
    warm_up(scorer, train, steps=200, learning_rate=4e-3, batch_size=32)
    return Prepared(train, rows(held.test, held.test_labels), wrong, scorer, ConvNet)


# --------------------------------------------------------------------------- text
def text(seed: int, share: float, kind: str = "uniform") -> Prepared:
    """2,900 paragraphs of documentation, 24 subpackages; the last layer of a pretrained MiniLM."""
    hidden, mask, labels, names, body = documentation()
    keep, held = train_test_split(np.arange(len(labels)), test_size=0.3, random_state=seed, stratify=labels)
    noisy, wrong = wrong_labels(labels[keep], share, kind, seed)

    def rows(numbers: np.ndarray, labels: np.ndarray) -> Dataset:
        features = Features({"row": Value("int64"), "label": ClassLabel(names=names)})
        made = Dataset.from_dict({"row": numbers.tolist(), "label": labels.tolist()}, features=features)

        def read(batch: dict[str, list[int]]) -> dict[str, Any]:
            at = torch.tensor(batch["row"])
            return {"hidden": list(hidden[at]), "attention_mask": list(mask[at]), "label": batch["label"]}

        return made.with_transform(read)

    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return TopOfMiniLM(body, len(names))

    train, scorer = rows(keep, noisy), build(seed + 77)
    warm_up(scorer, train, steps=150, learning_rate=5e-4, batch_size=32)
    return Prepared(train, rows(held, labels[held]), wrong, scorer, build)


def minilm(seed: int, share: float, kind: str = "uniform") -> Prepared:
    """2,700 paragraphs of documentation, 12 subpackages; all of a pretrained MiniLM is trained."""
    ids, mask, codes, names, body = paragraphs()
    ids, mask = ids[:, :_WHOLE_TOKENS], mask[:, :_WHOLE_TOKENS]
    large = np.flatnonzero(np.bincount(codes) >= _LARGE_TOPIC)
    numbers = np.flatnonzero(np.isin(codes, large))
    labels = np.searchsorted(large, codes)  # right where the topic is a large one
    keep, held = train_test_split(numbers, test_size=400, random_state=seed, stratify=labels[numbers])
    noisy, wrong = wrong_labels(labels[keep], share, kind, seed)

    def rows(numbers: np.ndarray, labels: np.ndarray) -> Dataset:
        features = Features({"row": Value("int64"), "label": ClassLabel(names=[names[code] for code in large])})
        made = Dataset.from_dict({"row": numbers.tolist(), "label": labels.tolist()}, features=features)

        def read(batch: dict[str, list[int]]) -> dict[str, Any]:
            at = torch.tensor(batch["row"])
            return {"input_ids": list(ids[at]), "attention_mask": list(mask[at]), "label": batch["label"]}

        return made.with_transform(read)

    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return MiniLMClassifier(body, len(large))

    train, scorer = rows(keep, noisy), build(seed + 77)
    warm_up(scorer, train, steps=30, learning_rate=3e-4, batch_size=16)
    return Prepared(train, rows(held, labels[held]), wrong, scorer, build)


# ------------------------------------------------------------------------ tumours
class Perceptron(nn.Module):
    """Two hidden layers of 64 over numbers [B, 30], two classes."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(30, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU())
        self.head = nn.Linear(64, 2)

    def forward(self, numbers: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.head(self.body(numbers))
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


def tumours(seed: int, share: float) -> Prepared:
    """398 tumours of scikit-learn's breast cancer set, 30 numbers each, 2 classes; nothing was tuned on them."""
    found = load_breast_cancer()
    numbers = ((found.data - found.data.mean(0)) / found.data.std(0)).astype(np.float32)
    names = [str(name) for name in found.target_names]
    keep, held = train_test_split(np.arange(len(numbers)), test_size=0.3, random_state=seed, stratify=found.target)
    noisy, wrong = wrong_labels(found.target[keep], share, "uniform", seed)

    def rows(kept: np.ndarray, labels: np.ndarray) -> Dataset:
        features = Features({"numbers": List(Value("float32")), "label": ClassLabel(names=names)})
        return Dataset.from_dict({"numbers": numbers[kept].tolist(), "label": labels.tolist()}, features=features)

    def batch(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        return {
            "numbers": torch.tensor([row["numbers"] for row in rows]),
            "labels": torch.tensor([row["label"] for row in rows]),
        }

    train, scorer = rows(keep, noisy), Perceptron(seed + 77)
    warm_up(scorer, train, steps=100, learning_rate=2e-3, batch_size=32, data_collator=batch)
    return Prepared(train, rows(held, found.target[held]), wrong, scorer, Perceptron, batch)


# ----------------------------------------------------------------------- language
def language(seed: int, share: float) -> Prepared:
    """2,000 docstrings of the standard library; a Llama with 0.4 million weights that has read the language reference.

    Spoilt rows have their words in another order.
    """
    texts = list(dict.fromkeys(row["prompt"] + row["completion"] for row in docstring_rows()))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(texts))
    held, kept = [texts[row] for row in order[:400]], [texts[row] for row in order[400:2400]]
    spoilt = np.zeros(len(kept), dtype=bool)
    spoilt[rng.permutation(len(kept))[: round(share * len(kept))]] = True
    for row in np.flatnonzero(spoilt):
        words = kept[row].split()
        rng.shuffle(words)
        kept[row] = " ".join(words)
    tokenizer, weights = reader()

    def rows(texts: list[str]) -> Dataset:
        ids = [tokenizer(each).input_ids[:_LM_TOKENS] for each in texts]
        return Dataset.from_dict({"input_ids": ids, "labels": ids})

    def build(seed: int) -> LlamaForCausalLM:
        model = build_llama(len(tokenizer), seed=seed)
        model.load_state_dict(weights)
        return model

    train, scorer = rows(kept), build(0)
    warm_up(scorer, train, steps=60, learning_rate=1e-3, batch_size=16, data_collator=pad)
    return Prepared(train, rows(held), spoilt, scorer, build, pad)


@functools.cache
def reader(layers: int = 2) -> tuple[Any, dict[str, Tensor]]:
    """A tokenizer, and the weights of a Llama of so many layers after 400 steps on the language reference."""
    texts = topic_rows()["text"][:]
    tokenizer = train_tokenizer(list(texts))
    ids = [tokenizer(each).input_ids[:_LM_TOKENS] for each in texts]
    rows = Dataset.from_dict({"input_ids": ids, "labels": ids})
    model = build_llama(len(tokenizer), layers=layers, seed=0)
    warm_up(model, rows, steps=400, learning_rate=3e-3, batch_size=16, data_collator=pad)
    return tokenizer, model.state_dict()


def pad(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """A batch of token rows, padded on the right."""
    longest = max(len(row["input_ids"]) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for number, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[number, :length] = labels[number, :length] = torch.tensor(row["input_ids"])
        mask[number, :length] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


# ----------------------------------------------------------------- deeper models
def deeper(task: str, prepared: Prepared) -> Prepared:
    """The same rows, and a deeper model that scores them; the task's own where it has layers enough."""
    if task == "text":
        ids, mask, *_, body = paragraphs()

        def read(batch: dict[str, list[int]]) -> dict[str, Any]:
            at = torch.tensor(batch["row"])
            return {"input_ids": list(ids[at]), "attention_mask": list(mask[at]), "label": batch["label"]}

        scorer = WholeMiniLM(body, prepared.scorer).eval()
        return replace(prepared, train=prepared.train.with_transform(read), scorer=scorer)
    if task == "language":
        tokenizer, weights = reader(layers=6)
        scorer = build_llama(len(tokenizer), layers=6)
        scorer.load_state_dict(weights)
        warm_up(scorer, prepared.train, steps=60, learning_rate=1e-3, batch_size=16, data_collator=pad)
        return replace(prepared, scorer=scorer)
    return prepared


TASKS = {
    "digits": Task(
        "digits, ViT",
        "wrong labels",
        digits,
        {"max_steps": 400, "learning_rate": 1e-3, "per_device_train_batch_size": 32, "warmup_steps": 40},
    ),
    "patches": Task(
        "patches of pictures, CNN",
        "wrong labels",
        patches,
        {"max_steps": 400, "learning_rate": 4e-3, "per_device_train_batch_size": 32, "warmup_steps": 40},
    ),
    "text": Task(
        "documentation topics, MiniLM",
        "wrong labels",
        text,
        {"max_steps": 120, "learning_rate": 5e-4, "per_device_train_batch_size": 16, "warmup_steps": 12},
        pretrained=True,
    ),
    "minilm": Task(
        "documentation topics, all of MiniLM",
        "wrong labels",
        minilm,
        {"max_steps": 60, "learning_rate": 3e-4, "per_device_train_batch_size": 16, "warmup_steps": 6},
        pretrained=True,
    ),
    "tumours": Task(
        "tumours, MLP",
        "wrong labels",
        tumours,
        {"max_steps": 200, "learning_rate": 2e-3, "per_device_train_batch_size": 16},
    ),
    "language": Task(
        "docstrings, small Llama",
        "words in another order",
        language,
        {"max_steps": 80, "learning_rate": 1e-3, "per_device_train_batch_size": 16, "warmup_steps": 8},
    ),
}
