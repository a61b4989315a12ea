"""What encoding must know of a model: its task, the arguments of its forward, and the sizes of its tables."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from ...gradients.layers.targets import part_of
from .labels import Task
from .limits import Limits

_CAUSAL_LMS = frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
_SEQ2SEQ_LMS = frozenset(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values())
_CLASSIFIERS = tuple(f"For{kind}Classification" for kind in ("Sequence", "Image", "Audio", "Video"))
_WORD_MODELS = ("ForMaskedLM", "ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
# What models call the table in which they look up a token's position.
_POSITIONS = ("position_embeddings", "position_embedding", "embed_positions", "wpe")


@dataclass(frozen=True)
class ModelFacts:
    """What encoding must know of a model.

    Attributes:
        inputs: Names of the forward's arguments.
        task: What the model makes of a row.
        label_ids: Number of each class name, for labels that are text.
        num_labels: Number of classes, if there are classes.
        problem_type: As in the model's config.
        limits: What the model has places for.
        longest: Tokens of a row that the model is made for; None where nothing tells.
        pad_token_id: The model's own, for rows without a tokenizer.
        channels: Channels of the images that the model takes; None where nothing tells.
    """

    inputs: frozenset[str]
    task: Task = "other"
    label_ids: Mapping[str, int] = field(default_factory=dict)
    num_labels: int | None = None
    problem_type: str | None = None
    limits: Limits = field(default_factory=Limits)
    longest: int | None = None
    pad_token_id: int | None = None
    channels: int | None = None

    @classmethod
    def of(cls, model: nn.Module) -> ModelFacts:
        """The facts of an unwrapped model, where its modules and its config tell."""
        config = getattr(model, "config", None)
        return cls(
            inputs=forward_names(model),
            task=find_task(model),
            label_ids=getattr(config, "label2id", None) or {},
            num_labels=getattr(config, "num_labels", None),
            problem_type=getattr(config, "problem_type", None),
            limits=find_limits(model),
            longest=longest_row(model),
            pad_token_id=getattr(config, "pad_token_id", None),
            channels=getattr(config, "num_channels", None),
        )


def find_task(model: nn.Module) -> Task:
    """What the model makes of a row, by the names of its class and of those that it comes from."""
    names = _class_names(model)
    if any(name in _CAUSAL_LMS for name in names):
        return "causal"
    if any(name in _SEQ2SEQ_LMS for name in names):
        return "seq2seq"
    if any(name.endswith(_CLASSIFIERS) for name in names):
        return "classifier"
    return "choice" if any(name.endswith("ForMultipleChoice") for name in names) else "other"


def forward_names(model: nn.Module) -> frozenset[str]:
    """The arguments of the forward that have a name."""
    parameters = inspect.signature(model.forward).parameters.values()
    return frozenset(p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))


def longest_row(model: nn.Module) -> int | None:
    """Tokens of a row that the model is made for; None where nothing tells."""
    stated = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    known = [count for count in (_positions(model), stated) if isinstance(count, int) and count > 0]
    return min(known, default=None)


def find_limits(model: nn.Module) -> Limits:
    """What the model has places for, where its modules and its config tell."""
    config, names = getattr(model, "config", None), _class_names(model)
    counts: dict[str, Any] = {
        "input_ids": getattr(part_of(model, "get_input_embeddings"), "num_embeddings", None),
        "token_type_ids": getattr(config, "type_vocab_size", None),
        "position_ids": max((table.num_embeddings for table in _position_tables(model)), default=None),
        "bbox": getattr(config, "max_2d_position_embeddings", None),
        "labels": None,
    }
    if any(name.endswith("ForTokenClassification") for name in names):
        counts["labels"] = getattr(config, "num_labels", None)
    elif any(name.endswith(_WORD_MODELS) for name in names):
        counts["labels"] = getattr(part_of(model, "get_output_embeddings"), "out_features", None)
    known = {name: count for name, count in counts.items() if isinstance(count, int) and count > 0}
    per_token = ("attention_mask", "token_type_ids", *(("labels",) if find_task(model) == "causal" else ()))
    return Limits(known, longest_row(model) if _positions(model) is not None else None, per_token)


def _positions(model: nn.Module) -> int | None:
    """Number of positions in the model's table; that of RoBERTa begins after the index of padding."""
    counts = (
        table.num_embeddings - (table.padding_idx + 1 if table.padding_idx is not None else 0)
        for table in _position_tables(model)
    )
    return min(counts, default=None)


def _position_tables(model: nn.Module) -> Iterator[nn.Embedding]:
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in _POSITIONS and isinstance(module, nn.Embedding):
            yield module


def _class_names(model: nn.Module) -> list[str]:
    """Class names of the model, or of the one in an adapter."""
    inner: Any = model
    if hasattr(inner, "peft_config") and hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    return [kind.__name__ for kind in type(inner).__mro__]
