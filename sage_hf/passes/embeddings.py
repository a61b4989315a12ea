"""What the model itself makes of a row: the embedding that its output layer sees, and how wrong its classes are.

A forward pass without gradients, about a third of what gradients cost, and apart from the gradient passes: those may
come out of a cache, in which no forward pass takes place.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from ..data.batches import RowSource
from ..data.status import NO_TOKENS
from ..errors import ConfigError
from ..gradients.layers.targets import output_layer
from ..gradients.losses.per_example import IGNORE_INDEX, accepted, batch_rows, output_field
from ..gradients.model.state import as_scored
from ..strategies import Vectors
from ..utils.rng import isolated_rng
from .extractor import Extracted
from .job import Pass, PassSettings
from .merge_tree import Partial
from .run import Passes
from .vector_file import VectorFile

# Stands in a file for the doubt of a row without a class.
_NO_CLASS = -1.0


@dataclass(frozen=True)
class Features:
    """What a forward pass tells of N rows.

    Attributes:
        embeddings: [N, H] in a temporary file: the input of the output layer where that is one vector a row (of
            several choices, the mean), else the mean over the row's own positions of the body's last hidden states.
        el2n: [N] float32, |softmax(logits) - onehot(label)|; NaN for rows without one class.
        doubts: [N] float32, p_other / (p_other + p_own) with the likeliest other class; NaN as above.
        seen: [N] bool, whether the model saw anything of the row; without tokens, its embedding is 0.
    """

    embeddings: Vectors
    el2n: npt.NDArray[np.float32]
    doubts: npt.NDArray[np.float32]
    seen: npt.NDArray[np.bool_]


class EmbeddingExtractor:
    """Embeddings and a doubt, [B, H + 1], and EL2N [B].

    Args:
        model: Whose output layer is looked at; unwrapped.
        device: Where the model is.
        source: Rows that tell the width.

    Raises:
        ConfigError: The model shows no vector of a row.
    """

    dtype = torch.float32

    def __init__(self, model: nn.Module, device: torch.device, source: RowSource, seed: int = 0) -> None:
        self.model, self.device = model, device
        with isolated_rng(seed):
            self.width = self.extract(source.sample(source.batch_size)[0]).vectors.shape[1]

    def extract(self, batch: dict[str, Any]) -> Extracted:
        """Zeros for embeddings that are not finite; the status tells no more."""
        embeddings, el2n, doubts = features(self.model, batch, self.device)
        vectors = torch.cat([embeddings, doubts.nan_to_num(_NO_CLASS)[:, None].to(embeddings)], dim=1)
        finite = vectors.isfinite().all(1)
        status = torch.zeros(len(el2n), dtype=torch.uint8)
        return Extracted(torch.where(finite[:, None], vectors, 0.0), el2n, status)

    def recheck(self, numbers: Tensor, batch: dict[str, Any], extracted: Extracted) -> None:
        """Nothing is compared: no row shares anything with another in a forward pass."""


def read_features(extractor: EmbeddingExtractor, source: RowSource, settings: PassSettings) -> Features:
    """Embeddings, EL2N and doubts of all rows, in every process.

    Args:
        extractor: Takes them.
        source: The dataset.
        settings: Settings of the pass.
    """
    passes = Passes(extractor, replace(settings, folder=None))  # a forward pass alone is not worth a file
    file = VectorFile(len(source.dataset), extractor.width - 1)

    def add(partial: Partial, rows: Tensor, codes: Tensor, vectors: Tensor) -> Tensor:
        file.write(rows, vectors[:, :-1])
        return vectors[:, -1]

    _, piece = passes.run_whole(source, Pass("reading embeddings", add))
    passes.processes.gather(file.array, piece.window.parts)
    seen = piece.status != NO_TOKENS
    doubts = np.where(seen & (piece.values != _NO_CLASS), piece.values, np.nan)
    return Features(file, piece.numbers, doubts, seen)


def features(model: nn.Module, batch: dict[str, Any], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings [B, H], EL2N [B] and doubts [B] of a batch, float32; the model is afterwards as it was.

    Args:
        model: Unwrapped.
        batch: As for `GradientCollector.collect`.
        device: Where the model is.

    Raises:
        ConfigError: The model shows no vector of a row.
    """
    batch = send_to_device(dict(batch), device, non_blocking=True)
    # A causal language model's product with the vocabulary tells nothing here; a model that writes needs the labels.
    is_causal = "logits_to_keep" in inspect.signature(model.forward).parameters
    inputs = accepted(model, batch, labels=not is_causal)
    if is_causal:
        inputs["logits_to_keep"] = 1
    with as_scored(model), torch.no_grad(), _watched(model) as seen:
        outputs = model(**inputs)
    size = batch_rows(batch)
    vectors = _row_vectors(seen, batch, size)
    if vectors is None:
        raise ConfigError(
            f"{type(model).__name__} shows no vector of a row: neither does its last layer get one, nor has it a body "
            "with hidden states",
            where="strategy",
            fix='Use a strategy that needs no embeddings, such as "coverage" with gate=None, or "agreement".',
        )
    return vectors.float(), *_errors(output_field(outputs, "logits"), batch, size)


@contextmanager
def _watched(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The last input of the output layer ("head") and output of the body ("body") of a forward pass."""
    seen: dict[str, Tensor] = {}

    def on_head(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = args[0] if args else next(iter(kwargs.values()))
        seen["head"] = value.detach()

    def on_body(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output_field(output, "last_hidden_state")
        if isinstance(hidden, Tensor):
            seen["body"] = hidden.detach()

    handles = []
    head, body = output_layer(model), getattr(model, "base_model", None)
    if head is not None:
        handles.append(head.register_forward_pre_hook(on_head, with_kwargs=True))
    if isinstance(body, nn.Module) and body is not model:
        handles.append(body.register_forward_hook(on_body))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _row_vectors(seen: dict[str, Tensor], batch: dict[str, Any], size: int) -> Tensor | None:
    """[B, H] from what was seen."""
    head, body = seen.get("head"), seen.get("body")
    if head is not None and head.ndim == 2 and len(head) == size:
        return head
    if head is not None and head.ndim == 2 and len(head) == _choices(batch) * size:
        return head.unflatten(0, (size, -1)).mean(1)
    for hidden in (body, head):
        if hidden is not None and hidden.ndim == 3 and len(hidden) == size:
            weight = _own_positions(batch, hidden).to(hidden.device, torch.float32)[..., None]
            return (hidden.float() * weight).sum(1) / weight.sum(1).clamp(min=1.0)
    return None


def _choices(batch: dict[str, Any]) -> int:
    """How many choices each row of a batch has; 0 where rows are no choices."""
    ids = batch.get("input_ids")
    return ids.shape[1] if isinstance(ids, Tensor) and ids.ndim == 3 else 0


def _own_positions(batch: dict[str, Any], hidden: Tensor) -> Tensor:
    """[B, T], which positions of hidden states [B, T, H] are the row's and no padding."""
    mask, labels = batch.get("attention_mask"), batch.get("labels")
    if isinstance(mask, Tensor) and mask.shape == hidden.shape[:2]:
        return mask
    if isinstance(labels, Tensor) and labels.shape == hidden.shape[:2]:  # of an encoder-decoder, what it writes
        return labels != IGNORE_INDEX
    return torch.ones(hidden.shape[:2])


def _errors(logits: Any, batch: dict[str, Any], size: int) -> tuple[Tensor, Tensor]:
    """EL2N and doubts, [B] each, NaN where there is no class label for each row."""
    labels = batch.get("labels")
    nothing = torch.full((size,), torch.nan)
    if not isinstance(labels, Tensor) or not isinstance(logits, Tensor) or logits.shape[:1] != labels.shape:
        return nothing, nothing
    if logits.ndim != 2 or labels.is_floating_point() or labels.ndim != 1 or logits.shape[1] < 2:
        return nothing, nothing
    has_class = (labels >= 0) & (labels < logits.shape[1])
    own = torch.nn.functional.one_hot(torch.where(has_class, labels, 0).long(), logits.shape[1])
    probabilities = logits.float().softmax(1)
    mine = (probabilities * own).sum(1)
    other = torch.where(own.bool(), 0.0, probabilities).amax(1)
    el2n = torch.where(has_class, (probabilities - own).norm(dim=1), torch.nan)
    return el2n, torch.where(has_class, other / (other + mine), torch.nan)
