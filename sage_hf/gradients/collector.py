"""Per-example gradients of a whole batch from one forward and one backward pass.

`layout` says which parameters are targeted and how each gradient is found, `hooks` fills the rows, `axes` and `check`
find out whether rows of a batch can be told apart. Where they cannot, rows are taken one at a time.

Axes: B rows of the batch, D row width.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate.utils.operations import recursively_apply
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..config import SageConfig
from ..errors import GradientError
from ..utils.bars import is_main
from ..utils.given import check_callable, given_config
from .alone import gradients_into, row_alone
from .batch_axis import Batch, batch_rows, is_uneven_run, unpadded_lengths
from .check import NoPartError, check_batch, differing_blocks, differing_losses, truth_of
from .layers.axes import Axes, find_axes
from .layers.blocks import Block
from .layers.hooks import LayerHooks
from .layers.layout import Projection, RowWidth, lay_out, unseen
from .layers.rerun import CannotRerun
from .losses.per_example import LossFunction, NotSeparable, per_example_loss
from .model.failures import MODEL_ERRORS, first_line, is_ours, model_error, one_by_one
from .model.state import as_scored, check_differentiable, has_half_weights, leave_routing_out, unwrap

logger = logging.getLogger(__name__)


class GradientCollector:
    """Makes per-example gradient rows [B, D] of a model and a batch.

    Row i is the gradient of example i's own loss, as if it were alone in the batch, with respect to the targeted
    weights: their gradients one after the other in the order of `model.named_parameters()`, each exact or projected.
    Nothing is divided by B: a row is as long in a batch of thirty as in a batch of one. Within an example, the loss is
    averaged over its tokens, as the model does it for that example alone; `loss_reduction="sum"` adds them up instead,
    and longer texts then have longer rows. A loss for the routing of experts is of a batch, and is left out.

    The model computes in eval mode, and it comes back as it was: training modes, `requires_grad`, `.grad`, hooks,
    buffers and the random state of torch, also after an exception.

    Args:
        model: Any module whose forward takes the batch's entries and returns a loss or logits; wrapped ones (DDP,
            `torch.compile`, PEFT) are unwrapped.
        target_modules: As in `SageConfig`.
        projection: As in `SageConfig`.
        row_width: As in `SageConfig`.
        loss_reduction: "mean" or "sum" over a row's tokens.
        loss_function: (outputs, batch) -> [B] losses, instead of the model's own.
        seed: Seed of the projections.

    Attributes:
        one_at_a_time: Whether rows are taken one at a time, which is right but slow.
        why_one_at_a_time: The reason.
        check_seconds: How long `check` took.
        silent: Names of weights whose gradients counted as zero in some batch, because no layer that holds them was
            called.
        leaves_routing_out: Whether a loss for the routing of experts was left out.

    Raises:
        TargetError: Nothing can be targeted.

    Example:
        >>> collector = GradientCollector(model, target_modules="auto", projection=None)
        >>> rows = collector(batch)                    # [B, D]
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        target_modules: str | Sequence[str] = "auto",
        projection: Projection = "auto",
        row_width: RowWidth = "auto",
        loss_reduction: str = "mean",
        loss_function: LossFunction | None = None,
        seed: int = 0,
    ) -> None:
        check_callable(loss_function, "loss_function")
        self.model = unwrap(model)
        check_differentiable(self.model)
        self.loss_reduction = loss_reduction
        self.loss_function = loss_function
        self.one_at_a_time = False
        self.why_one_at_a_time = ""
        self.check_seconds = 0.0
        self.silent: set[str] = set()
        self.leaves_routing_out = False
        self.target_modules = target_modules
        self.layout = lay_out(self.model, target_modules, projection, row_width, seed)
        self.width = self.blocks[-1].columns.stop
        self._computes_in_half = False
        self._axes: Axes | None = None
        self._warned: set[str] = set()
        if hidden := unseen(self.layout):
            self.give_up_on(hidden)
        if target_modules == "auto" and self.layout.share < 0.5:
            self._warn_once(
                f'target_modules="auto" covers {self.layout.share:.1%} of the trainable weights: the gradients say '
                'little of the others. target_modules="all" takes every weight, at more cost.'
            )

    @classmethod
    def of(cls, model: nn.Module, config: SageConfig, loss_function: LossFunction | None = None) -> GradientCollector:
        """A collector with the settings of a selection."""
        config = given_config(config)
        return cls(
            model,
            target_modules=config.target_modules,
            projection=config.projection,
            row_width=config.row_width,
            loss_reduction=config.loss_reduction,
            loss_function=loss_function,
            seed=config.seed,
        )

    def exact(self) -> GradientCollector:
        """A collector of the same gradients without projections; it warns of nothing that this one has warned of."""
        exact = copy.copy(self)
        exact.layout = lay_out(self.model, self.target_modules, None, "auto", 0)
        exact.width, exact.silent = exact.blocks[-1].columns.stop, set()
        if hidden := unseen(exact.layout):
            exact.give_up_on(hidden)
        return exact

    @property
    def blocks(self) -> list[Block]:
        """The targeted parameters' places in a row, in the order of `model.named_parameters()`."""
        return self.layout.blocks

    @property
    def left_out(self) -> frozenset[str]:
        """Names of targeted parameters whose gradients cannot be had in a batch; their columns are zero."""
        return frozenset(self.layout.left_out)

    @property
    def knows_axes(self) -> bool:
        """Whether it is known where layers have their rows, or rows are taken one at a time anyway."""
        return self._axes is not None or self.one_at_a_time

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """float64 for a float64 model, else float32."""
        return _row_dtype(self.model.modules())

    @property
    def is_half(self) -> bool:
        """Whether the model computes in half precision, as far as has been seen."""
        return self._computes_in_half or has_half_weights(self.model)

    @property
    def num_target_weights(self) -> int:
        """How many weights the rows are gradients of, before projection."""
        return self.layout.weights()

    def __call__(self, batch: Batch) -> Tensor:
        """The gradient rows of a batch, [B, D]; see `collect`."""
        return self.collect(batch)[0]

    def collect(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The gradient rows and the losses of a batch.

        When the losses of a batch cannot be told apart, or a layer mixes its rows, the rows are taken one at a time
        from then on: slow, right, and said once.

        Args:
            batch: Tensors with a common first axis B, or lists with one entry a row; labels included, on any device.

        Returns:
            rows [B, D] and losses [B]; a row without any label is zero.

        Raises:
            BatchAxisError: The batch has no axis that separates the examples.
            LabelError: There are no labels.
            GradientError: No targeted layer took part in the forward pass, or the model fails on a row alone.
        """
        size = batch_rows(batch)
        if not self.one_at_a_time:
            try:
                return self._collect(batch, size)
            except NotSeparable as reason:
                if size > 1:
                    self.take_one_at_a_time(str(reason))
            except MODEL_ERRORS as error:
                if is_ours(error):
                    raise
                if size > 1:  # one row may make all fail: it is found when they are taken alone
                    self.take_one_at_a_time(f"{type(self.model).__name__} fails on several rows: {first_line(error)}")
        parts = [self._collect_row(row) for row in one_by_one(batch)]
        return torch.cat([rows for rows, _ in parts]), torch.cat([losses for _, losses in parts])

    def check(self, batch: Batch, alone: Mapping[int, Batch] | None = None) -> bool:
        """Compares rows of a batch with plain autograd of the same rows alone, without hooks on layers.

        Gradients are compared block by block, and losses. Where rows are wrong in a batch and right alone, they are
        taken one at a time from then on. Weights that no layer shows are left out with a warning, or taken by autograd
        of rows alone where they were asked for by name or are the larger part.

        Args:
            batch: As for `collect`; best with rows of unequal length.
            alone: Rows of the batch as batches of their own, without padding; all rows when omitted.

        Returns:
            Whether whole batches are trusted.

        Raises:
            GradientError: Rows are wrong even alone.
            BatchAxisError: The loss compares rows, and is constant for one alone.
        """
        started = time.perf_counter()
        try:
            return check_batch(self, batch, alone)
        finally:
            self.check_seconds += time.perf_counter() - started

    def compare(self, row: Batch, gradient: Tensor, loss: Tensor, longest: float = 0.0) -> str:
        """What is wrong with a row that was taken in a batch, against the row alone; empty if nothing is.

        Args:
            row: A batch of one.
            gradient: [D], as taken.
            loss: [], as taken.
            longest: Length of the longest gradient of other rows, where it is known.
        """
        gradients, losses = truth_of(self, [row])
        if wrong := differing_blocks(self, gradient[None], gradients, longest):
            return f"the gradients of {wrong[:6]} are not those of the row alone"
        if differing_losses(self, loss.reshape(1), losses):
            return f"its loss is {float(loss):.6g}, and alone {float(losses[0]):.6g}"
        return ""

    def truth(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The gradient row of a batch of one by autograd, [D] float64, and its loss [] float64."""
        if any(isinstance(parameter, DTensor) for parameter in self.model.parameters()):
            # Autograd ends at the parts of weights that FSDP gathers: rows alone by hooks still tell of mixed rows.
            rows, losses = self._collect(batch, batch_rows(batch))
            return rows.sum(0).double(), losses.sum().double()
        with self._scored():
            try:
                row, loss = row_alone(self.model, self.layout.held, _usable(batch), self._loss_settings())
            except MODEL_ERRORS as error:
                if is_ours(error):
                    raise
                raise model_error(self.model, error) from error
        return row, loss.double()

    def take_one_at_a_time(self, reason: str) -> None:
        """Takes rows one at a time from now on, and says why."""
        self.one_at_a_time, self.why_one_at_a_time = True, reason
        self._warn_once(f"Rows are scored one at a time, which is right but slow: {reason}.")

    def give_up_on(self, names: Sequence[str]) -> None:
        """Finds parameters' gradients otherwise than by hooks on layers, or leaves them out; says which."""
        what = self.layout.give_up_on(names, self.silent)
        self.silent -= self.layout.alone
        if self.layout.alone:
            self.take_one_at_a_time(what)
        else:
            self._warn_once(what)

    # ------------------------------------------------------------------- collect
    def _collect_row(self, batch: Batch) -> tuple[Tensor, Tensor]:
        try:
            return self._collect(batch, 1)
        except CannotRerun as reason:
            self.give_up_on(reason.names)
            return self._collect_row(batch)
        except NotSeparable as reason:
            raise GradientError(
                f"The model's loss cannot be used: {reason}",
                where="model.forward",
                fix="Return a scalar loss, or pass loss_function=(outputs, batch) -> one loss a row.",
            ) from reason
        except MODEL_ERRORS as error:
            if is_ours(error):
                raise
            names = self.layout.rerun_names
            if not names:
                raise model_error(self.model, error) from error
        # A layer that writes to its own weights cannot run again before the backward pass.
        self.give_up_on(names)
        return self._collect_row(batch)

    def _collect(self, batch: Batch, size: int) -> tuple[Tensor, Tensor]:
        batch = _usable(batch)
        taken_alone = self.layout.taken_alone
        with self._scored() as modules:
            rows = torch.empty(size, self.width, dtype=_row_dtype(modules), device=self.device)
            axes = self._find_axes(batch) if size > 1 else None
            hooks = LayerHooks(self.layout, rows, size, axes, unpadded_lengths(batch) if size > 1 else frozenset())
            for block, _ in taken_alone:
                rows[:, block.columns] = 0.0
                hooks.written.add(block.name)
            with hooks.attached(), gradients_into(rows[0], taken_alone) if taken_alone else nullcontext():
                losses = per_example_loss(self.model, batch, **self._loss_settings())
                if losses.requires_grad:
                    losses.sum().backward()
        self._computes_in_half |= hooks.in_half
        if not losses.requires_grad or not (hooks.called or taken_alone):
            self.silent.update(block.name for block in self.blocks)
            raise NoPartError(
                "No targeted layer takes part in the loss, so every gradient is zero",
                where=f"target_modules, {list(self.layout.names.values())[:6]}",
                fix="Target layers that the forward pass calls; a fused or compiled layer calls no hook.",
            )
        for block in self.blocks:
            if block.name not in hooks.written:
                rows[:, block.columns] = 0.0
        self._say_what_is_silent(hooks)
        return rows, losses.detach()

    def _find_axes(self, batch: Batch) -> Axes:
        """What is known of the layers' axes, from the first batch on.

        Raises:
            NotSeparable: Rows cannot share a batch.
        """
        if self.layout.alone:
            raise NotSeparable(f"autograd finds the gradients of {sorted(self.layout.alone)[:6]} one row at a time")
        if is_uneven_run(batch):
            raise NotSeparable("the rows' images share one sequence, in parts of unequal length")
        if self._axes is None:
            self._axes = find_axes(self.model, self.layout.parts, batch, self.device)
        return self._axes

    def _say_what_is_silent(self, hooks: LayerHooks) -> None:
        held = self.layout.parts
        reached = {part.block.name for module in hooks.called for part in held[module]} | hooks.written | self.left_out
        if silent := [block.name for block in self.blocks if block.name not in reached]:
            self.silent.update(silent)
            without = {part.block.name for module in hooks.silent for part in held[module]}
            why = "is called with gradients and" if without & set(silent) else "that was called"
            self._warn_once(f"No layer {why} holds {silent[:6]}: their gradients count as zero.")

    @contextmanager
    def _scored(self) -> Iterator[list[nn.Module]]:
        with as_scored(self.model) as modules:
            if leave_routing_out(modules):
                self.leaves_routing_out = True
                self._warn_once("The loss for the routing of experts is of a batch and none of a row: it is left out.")
            yield modules

    def _loss_settings(self) -> dict[str, Any]:
        return {"reduction": self.loss_reduction, "loss_function": self.loss_function, "device": self.device}

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            if is_main():
                logger.warning(message)


def _row_dtype(modules: Iterable[nn.Module]) -> torch.dtype:
    own = (parameter for module in modules for parameter in module._parameters.values() if parameter is not None)
    return torch.float64 if any(parameter.dtype is torch.float64 for parameter in own) else torch.float32


def _usable(batch: Batch) -> dict[str, Any]:
    """The batch with tensors that autograd may save: those made under `torch.inference_mode` may not be."""
    usable: dict[str, Any] = recursively_apply(lambda each: each.clone() if each.is_inference() else each, dict(batch))
    return usable
