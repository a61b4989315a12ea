"""What a model makes of a row: the embedding that its output layer sees, and how wrong its classes are.

Both are read off a forward pass that is made anyway, by hooks on the output layer, the body and the model. Of an
embedding wider than 512 numbers, a random projection to so many is kept, which changes distances by a few per cent.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.nn.functional import pad

from ..data.inputs import input_vectors
from ..errors import ConfigError
from ..gradients.layers.projection import projection_matrix
from ..gradients.layers.targets import output_layer
from ..gradients.losses.per_example import IGNORE_INDEX, accepted, batch_rows, output_field
from ..gradients.model.failures import MODEL_ERRORS, is_ours, model_error, one_by_one
from ..gradients.model.state import as_scored
from ..utils.rng import isolated_rng

# Numbers of an embedding at most: in half precision, 1 KB a row.
EMBEDDING_WIDTH = 512


@dataclass(frozen=True)
class Embedded:
    """What a forward pass tells of B rows.

    Attributes:
        embeddings: [B, E] float32: the input of the output layer where that is one vector a row (of several choices,
            the mean), else the mean over the row's own positions of the body's last hidden states; zeros where one
            is not finite.
        inputs: [B, I] float32, what the rows are without a model, see `data.inputs`.
        el2n: [B] float32, |softmax(logits) - onehot(label)|; NaN for rows without one class.
        doubts: [B] float32, p_other / (p_other + p_own) with the likeliest other class; NaN as above.
        labels: [B] int32, classes of the rows; -1 as above.
    """

    embeddings: Tensor
    inputs: Tensor
    el2n: Tensor
    doubts: Tensor
    labels: Tensor

    @classmethod
    def nothing(cls, rows: int, width: int, input_width: int, device: torch.device) -> Embedded:
        """Of rows of which the model saw nothing."""
        embeddings, inputs = (torch.zeros(rows, each, device=device) for each in (width, input_width))
        return cls(embeddings, inputs, *_no_classes(rows, device))

    def is_close(self, other: Embedded, tolerance: float) -> bool:
        """Whether embeddings, by their length, and doubts of the same rows differ by no more than a tolerance."""
        apart = (self.embeddings - other.embeddings).norm(dim=1)
        doubts = (self.doubts - other.doubts).abs().nan_to_num()
        return bool((apart <= tolerance * other.embeddings.norm(dim=1)).all() and (doubts <= tolerance).all())

    @classmethod
    def join(cls, parts: Sequence[Embedded]) -> Embedded:
        """The rows of all parts, in order."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__annotations__))


@dataclass
class _Seen:
    """What the first forward pass shows: later ones are a loss function's.

    Attributes:
        tensors: The last input of the output layer ("head"), and output of the body and of the model ("logits").
        depth: Number of calls of the model that are going on.
        is_done: Whether the pass is over.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    depth: int = 0
    is_done: bool = False

    def on_start(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.depth += 1

    def on_head(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.is_done:
            return
        value = args[0] if args else next(iter(kwargs.values()))
        self.tensors["head"] = value.detach()

    def on_body(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self.is_done:
            return
        hidden = output[0] if isinstance(output, tuple) else output_field(output, "last_hidden_state")
        if isinstance(hidden, Tensor):
            self.tensors["body"] = hidden.detach()

    def on_model(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.depth -= 1
        if self.is_done or self.depth:
            return
        self.is_done = True
        if isinstance(output, (tuple, list)):  # whose loss is one number a row, while rows are told apart
            output = tuple(each for each in output if isinstance(each, Tensor) and each.ndim > 1)
        logits = output_field(output, "logits")
        if isinstance(logits, Tensor) and logits.ndim == 2:  # else too large to hold for nothing
            self.tensors["logits"] = logits.detach()


class EmbeddingReader:
    """Reads embeddings and the odds of classes off forward passes.

    Args:
        model: Whose output layer is looked at; unwrapped. It comes back as it was.
        device: Where the model is.
        batch: Rows that tell the width of the model's vectors.
        seed: Seed of the projection.

    Attributes:
        width: E, at most 512.
        input_width: I, at most 512.

    Raises:
        ConfigError: The model gives no embedding of a row.
    """

    def __init__(self, model: nn.Module, device: torch.device, batch: dict[str, Any], seed: int = 0) -> None:
        self.model, self.device = model, device
        self._head, self._body = output_layer(model), getattr(model, "base_model", None)
        self._projection: Tensor | None = None
        with isolated_rng(seed):
            self.input_width = input_vectors(accepted(model, batch), batch_rows(batch)).shape[1]
            self.width = self.forward(batch).embeddings.shape[1]
        if self.width > EMBEDDING_WIDTH:
            matrix = projection_matrix("embeddings", "right", self.width, EMBEDDING_WIDTH, seed)
            self._projection, self.width = matrix.to(device), EMBEDDING_WIDTH

    @contextmanager
    def watching(self) -> Iterator[_Seen]:
        """What `read` needs of the forward passes inside."""
        seen, handles = _Seen(), []
        if self._head is not None:
            handles.append(self._head.register_forward_pre_hook(seen.on_head, with_kwargs=True))
        if isinstance(self._body, nn.Module) and self._body is not self.model:
            handles.append(self._body.register_forward_hook(seen.on_body))
        handles.append(self.model.register_forward_pre_hook(seen.on_start))
        handles.append(self.model.register_forward_hook(seen.on_model))
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    def read(self, seen: _Seen, batch: dict[str, Any]) -> Embedded:
        """The rows of a batch that went through the model, all at once, while it was watched."""
        vectors = self._row_vectors(seen, batch)
        return self.forward(batch) if vectors is None else self._embedded(vectors, seen, batch)

    def forward(self, batch: dict[str, Any]) -> Embedded:
        """The rows of a batch, by a forward pass without gradients; the model is afterwards as it was.

        Args:
            batch: As for `GradientCollector.collect`.

        Raises:
            ConfigError: The model gives no embedding of a row.
            GradientError: It fails on a row alone.
        """
        try:
            return self._forward(batch)
        except MODEL_ERRORS as error:
            if is_ours(error):
                raise
            if batch_rows(batch) == 1:
                raise model_error(self.model, error) from error
        return Embedded.join([self.forward(row) for row in one_by_one(batch)])

    def _forward(self, batch: dict[str, Any]) -> Embedded:
        model = self.model
        batch = send_to_device(dict(batch), self.device, non_blocking=True)
        # A causal language model's product with the vocabulary tells nothing here; one that writes needs the labels.
        is_causal = "logits_to_keep" in inspect.signature(model.forward).parameters
        inputs = accepted(model, batch, labels=not is_causal)
        if is_causal:
            inputs["logits_to_keep"] = 1
        with as_scored(model), torch.no_grad(), self.watching() as seen:
            model(**inputs)
        vectors = self._row_vectors(seen, batch)
        if vectors is None:
            raise ConfigError(
                f"{type(model).__name__} gives no embedding of a row: its last layer does not take one vector a "
                "row, and it has no body with hidden states",
                where="strategy",
                fix='Use a strategy that needs no embeddings, such as "coverage" with gate=None, or "agreement".',
            )
        return self._embedded(vectors, seen, batch)

    def _row_vectors(self, seen: _Seen, batch: dict[str, Any]) -> Tensor | None:
        is_writer = bool(getattr(getattr(self.model, "config", None), "is_encoder_decoder", False))
        return _row_vectors(seen.tensors, batch, batch_rows(batch), is_writer)

    def _embedded(self, vectors: Tensor, seen: _Seen, batch: dict[str, Any]) -> Embedded:
        vectors = vectors.float()
        vectors = vectors if self._projection is None else vectors @ self._projection
        finite = vectors.isfinite().all(1)
        # Of images or series of other sizes than the first there may be more numbers, or fewer.
        inputs = input_vectors(accepted(self.model, batch), batch_rows(batch))
        return Embedded(
            torch.where(finite[:, None], vectors, 0.0),
            pad(inputs, (0, self.input_width - inputs.shape[1])).to(self.device),
            *_errors(seen.tensors.get("logits"), batch, self.device),
        )


def _row_vectors(seen: dict[str, Tensor], batch: dict[str, Any], size: int, is_writer: bool) -> Tensor | None:
    """[B, H] from what was seen; `is_writer`: of an encoder-decoder."""
    head, body = seen.get("head"), seen.get("body")
    if head is not None and head.ndim == 2 and len(head) == size:
        return head
    if head is not None and head.ndim == 2 and len(head) == _choices(batch) * size:
        return head.unflatten(0, (size, -1)).mean(1)
    for hidden in (body, head):
        if hidden is not None and hidden.ndim == 3 and len(hidden) == size:
            weight = _own_positions(batch, hidden, is_writer).to(hidden.device, torch.float32)[..., None]
            return (hidden.float() * weight).sum(1) / weight.sum(1).clamp(min=1.0)
    return None


def _choices(batch: dict[str, Any]) -> int:
    """How many choices each row of a batch has; 0 where rows are no choices."""
    ids = batch.get("input_ids")
    return ids.shape[1] if isinstance(ids, Tensor) and ids.ndim == 3 else 0


def _own_positions(batch: dict[str, Any], hidden: Tensor, is_writer: bool) -> Tensor:
    """[B, T], which positions of hidden states [B, T, H] are the row's and no padding."""
    mask, labels = batch.get("decoder_attention_mask" if is_writer else "attention_mask"), batch.get("labels")
    if isinstance(mask, Tensor) and mask.shape == hidden.shape[:2]:
        return mask
    if isinstance(labels, Tensor) and labels.shape == hidden.shape[:2]:  # of an encoder-decoder, what it writes
        return labels != IGNORE_INDEX
    return torch.ones(hidden.shape[:2])


def _no_classes(rows: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """`_errors` of rows without classes."""
    unknown = torch.full((rows,), torch.nan, device=device)
    return unknown, unknown, torch.full((rows,), -1, dtype=torch.int32, device=device)


def _whole_numbers(labels: object) -> Tensor | None:
    """Labels [B] that are classes, whatever the model shows of them; None of others."""
    is_class = isinstance(labels, Tensor) and labels.ndim == 1 and not labels.is_floating_point()
    return labels.clamp(min=-1).to(torch.int32) if isinstance(labels, Tensor) and is_class else None


def _errors(logits: Tensor | None, batch: dict[str, Any], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """EL2N, doubts and labels, [B] each, of logits [B, C] or None."""
    labels = _whole_numbers(batch.get("labels"))
    if labels is None:
        return _no_classes(batch_rows(batch), device)
    if logits is None or logits.shape[:1] != labels.shape or logits.shape[1] < 2:
        return *_no_classes(len(labels), device)[:2], labels.to(device)
    labels = labels.to(logits.device)
    has_class = (labels >= 0) & (labels < logits.shape[1])
    own = torch.nn.functional.one_hot(torch.where(has_class, labels, 0).long(), logits.shape[1])
    probabilities = logits.float().softmax(1)
    mine = (probabilities * own).sum(1)
    other = torch.where(own.bool(), 0.0, probabilities).amax(1)
    el2n = torch.where(has_class, (probabilities - own).norm(dim=1), torch.nan)
    doubts = torch.where(has_class, other / (other + mine), torch.nan)
    return el2n, doubts, torch.where(has_class, labels, -1).to(torch.int32)
