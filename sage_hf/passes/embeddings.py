"""What the model itself makes of a row: the embedding that its output layer sees, and how wrong its classes are.

A forward pass without gradients, about a third of what gradients cost, and apart from the gradient passes: those may
come out of a cache, in which no forward pass takes place.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from .merge_tree import Partial
from .run import GradientPasses
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


def read_features(passes: GradientPasses, source: RowSource) -> Features:
    """Embeddings, EL2N and doubts of all rows, in every process.

    Args:
        passes: Gives model, settings and processes.
        source: The dataset.

    Raises:
        ConfigError: The model shows no vector of a row.
    """
    forward = FeaturePasses(passes)
    file = VectorFile(len(source.dataset), forward.find_width(source))

    def add(partial: Partial, rows: Tensor, vectors: Tensor) -> Tensor:
        file.write(rows, vectors[:, :-1])
        return vectors[:, -1]

    _, doubts = forward.run(source, "reading embeddings", Partial, add)
    forward.processes.gather(file.array, forward.last_parts)
    doubts[doubts == _NO_CLASS] = np.nan
    return Features(file, forward.losses, doubts, forward.status != NO_TOKENS)


def check_embeddings(passes: GradientPasses, source: RowSource) -> None:
    """Before the long run: does the model show a vector of a row?

    Raises:
        ConfigError: It does not.
    """
    with isolated_rng(passes.seed):
        FeaturePasses(passes).find_width(source)


class FeaturePasses(GradientPasses):
    """A pass whose vectors are embeddings (and a doubt) in the place of gradients, and EL2N in the place of losses."""

    def __init__(self, passes: GradientPasses) -> None:
        about = (passes.collector, passes.seed, len(passes.status), passes.progress)
        super().__init__(*about, workers=passes.workers)
        self._width = 0

    def take(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Embeddings and doubts [B, H + 1], and EL2N [B]."""
        vectors, el2n, doubts = features(self.collector.model, batch, self.collector.device)
        return torch.cat([vectors, doubts.nan_to_num(_NO_CLASS)[:, None].to(vectors)], dim=1), el2n

    def find_width(self, source: RowSource) -> int:
        """H, by one batch.

        Raises:
            ConfigError: The model shows no vector of a row.
        """
        self._width = self.take(source.sample(source.batch_size)[0])[0].shape[1] - 1
        return self._width

    def nothing(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of rows without tokens: embeddings of zeros, no doubt, no EL2N."""
        vectors = torch.zeros(rows, self._width + 1)
        vectors[:, -1] = _NO_CLASS
        return vectors, torch.full((rows,), torch.nan), torch.full((rows,), NO_TOKENS, dtype=torch.uint8)

    def gradients(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings with zeros where they are not finite, EL2N, and a status that tells no more."""
        vectors, el2n = self._collect(batch)
        finite = vectors.isfinite().all(1)
        return torch.where(finite[:, None], vectors, 0.0), el2n, torch.zeros(len(el2n), dtype=torch.uint8)


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
