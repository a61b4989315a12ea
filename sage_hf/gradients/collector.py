"""Per-example gradients of a whole batch from one forward and one backward pass.

A forward hook keeps each targeted layer's input (projected at once, where there is a projection), a hook on the
layer's output meets the gradient there, and the layer's rule joins the two. No weight is ever differentiated, so the
weights may be frozen, sharded or quantised; and the autograd graph starts at the first targeted layer, so nothing
below costs a backward pass.

Axes: B rows of the batch, D row width.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..errors import BatchAxisError, GradientError
from .alone import gradients_alone
from .blocks import Block, capture, contribute, term_shape
from .loss import Batch, LossFunction, NotSeparable, batch_rows, per_example_loss, rows_of
from .projection import block_widths
from .rules import Lookup, Term, rule_for
from .state import as_scored, unwrap
from .targets import owners, resolve_targets, uncovered

logger = logging.getLogger(__name__)

# How far a row's gradient in a batch may be from the row's gradient alone, as a share of its length, before the batch
# is not trusted. Rounding stays below 1e-4 in float32 and 5e-2 in bfloat16; a mixed-up batch axis is off by about 1.
_TOLERANCE = 1e-2
_HALF_TOLERANCE = 0.3


class GradientCollector:
    """Turns a model and a batch into per-example gradient rows [B, D].

    Row i is the gradient of example i's own loss, as if it were alone in the batch, with respect to the targeted
    weights: their gradients one after the other in the order of `model.named_parameters()`, each exact or projected.
    Beware of scaling: the loss of an example is the *mean* over its tokens unless `loss_reduction="sum"`.

    The model computes in eval mode, and it comes back as it was: training modes, `requires_grad`, `.grad`, hooks and
    the random state of torch, also after an exception.

    Args:
        model: Any module whose forward takes the batch's entries and returns a loss or logits; wrapped ones (DDP,
            `torch.compile`, PEFT) are unwrapped.
        target_modules: As in `SageConfig`.
        projection: As in `SageConfig`.
        loss_reduction: "mean" or "sum" over a row's tokens.
        loss_function: (outputs, batch) -> [B] losses, instead of the model's own.
        seed: Seed of the projections.

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
        projection: int | Literal["auto"] | None = "auto",
        loss_reduction: str = "mean",
        loss_function: LossFunction | None = None,
        seed: int = 0,
    ) -> None:
        self.model = unwrap(model)
        self.loss_reduction = loss_reduction
        self.loss_function = loss_function
        self.one_at_a_time = False
        self._computes_in_half = False
        self._targets = resolve_targets(self.model, target_modules)
        self._terms: dict[nn.Module, list[tuple[Block, Term]]] = {}
        self._names: dict[nn.Module, str] = {}
        self.blocks = self._lay_out(self._targets, projection, seed)
        self.width = self.blocks[-1].columns.stop
        self._warned: set[str] = set()
        if target_modules == "all" and (left := uncovered(self.model)):
            self._warn_once(f"No rule covers the parameters {left}: the rows are gradients of all the others.")

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """float64 for a float64 model, else float32."""
        is_double = any(parameter.dtype is torch.float64 for parameter in self.model.parameters())
        return torch.float64 if is_double else torch.float32

    @property
    def num_target_weights(self) -> int:
        """How many weights the rows are gradients of, before projection."""
        return sum(block.shape[0] * block.shape[1] for block in self.blocks)

    def __call__(self, batch: Batch) -> Tensor:
        """The gradient rows of a batch, [B, D]; see `collect`."""
        return self.collect(batch)[0]

    def collect(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The gradient rows and the losses of a batch.

        When the losses of a batch cannot be told apart, or a layer mixes its rows, the rows are taken one at a time
        from then on: slow, right, and said once.

        Args:
            batch: Tensors with a common first axis B, labels included, on any device.

        Returns:
            rows [B, D] and losses [B]; a row without any label is zero.

        Raises:
            BatchAxisError: The batch has no axis that separates the examples.
            LabelError: There are no labels.
            GradientError: No targeted layer took part in the forward pass.
        """
        size = batch_rows(batch)
        if not self.one_at_a_time:
            try:
                return self._collect(batch, size)
            except NotSeparable as reason:
                if size == 1:
                    raise GradientError(
                        f"The model's loss cannot be used: {reason}",
                        where="model.forward",
                        fix="Return a scalar loss, or pass loss_function=(outputs, batch) -> one loss a row.",
                    ) from reason
                self._fall_back(str(reason))
        return self._collect_one_by_one(batch, size)

    def check(self, batch: Batch, alone: Mapping[int, Batch] | None = None) -> bool:
        """Compares the first and the last row of a batch with plain autograd, each row alone and without hooks.

        Catches what no look at the model can: a layer with the batch on another axis, batch statistics, a loss that
        mixes rows, padding that shows, a layer that a rule takes for another kind. Where rows are wrong in a batch and
        right alone, they are taken one at a time from then on.

        Args:
            batch: As for `collect`; best with its longest row first and its shortest last.
            alone: Rows of the batch as batches of their own, without padding; cut out of the batch when omitted.

        Returns:
            Whether whole batches are trusted.

        Raises:
            GradientError: Rows are wrong even alone.
            BatchAxisError: The loss compares rows, and is constant for one alone.
        """
        size = batch_rows(batch)
        if alone is None:
            alone = {index: rows_of(batch, slice(index, index + 1)) for index in sorted({0, size - 1})}
        truth = torch.cat([self._truth(each) for each in alone.values()])
        self._check_not_contrastive(batch, truth)
        try:
            differing = self._differing(self.collect(batch)[0][list(alone)], truth)
            reason = f"the gradients of {differing[:6]} differ when rows share a batch"
        except ValueError as error:  # what models raise that take one row only
            differing, reason = ["every weight"], str(error)
        if not differing:
            return not self.one_at_a_time
        if wrong := self._differing(torch.cat([self._collect(each, 1)[0] for each in alone.values()]), truth):
            raise GradientError(
                f"The gradients of {wrong[:6]} are not what autograd gives",
                where="target_modules",
                fix="Leave these modules out: a layer that computes otherwise than its kind needs a rule of its own.",
            )
        self._fall_back(reason)
        return False

    def _check_not_contrastive(self, batch: Batch, truth: Tensor) -> None:
        """A loss that compares the rows of a batch is constant for one row, whatever the row is."""
        if truth.nan_to_num().any():
            return
        size = batch_rows(batch)
        try:
            compares = bool(self._collect(batch, size)[0].nan_to_num().any())
        except NotSeparable:
            compares = not self._collect_one_by_one(batch, size)[0].nan_to_num().any()
        except ValueError:  # what models raise that take one row only
            return
        if compares:
            raise BatchAxisError(
                "Rows have a gradient together and none alone: the loss compares the rows of a batch (in-batch "
                "negatives, contrastive), so no row has a loss of its own",
                where="model.forward or loss_function",
                fix="Choose rows with a loss of single rows: pass loss_function, or a model with another head.",
            )

    def _truth(self, batch: Batch) -> Tensor:
        """The gradient row of a batch of one by autograd, [1, D]; NaN where a weight cannot be differentiated."""
        if any(isinstance(parameter, DTensor) for parameter in self.model.parameters()):
            # Autograd ends at the parts of weights that FSDP gathers: rows alone by hooks still tell of mixed rows.
            return self._collect(batch, 1)[0].to(torch.float64)
        with as_scored(self.model):
            gradients = gradients_alone(
                self.model, list(self._targets.values()), _usable(batch), self._loss_settings()
            )
        parts = [
            torch.full(block.widths, torch.nan).reshape(1, -1) if each is None else block.project(each).reshape(1, -1)
            for block, each in zip(self.blocks, gradients, strict=True)
        ]
        return torch.cat([part.to(self.device, torch.float64) for part in parts], 1)

    def _differing(self, rows: Tensor, truth: Tensor) -> list[str]:
        """Names of the weights whose gradients are off by more than rounding, the most wrong first."""
        # A row that is not finite is set aside later, and tells nothing here.
        usable = truth.isfinite() & rows.isfinite()
        length = torch.where(usable, truth, 0.0).norm(dim=1, keepdim=True)
        error = torch.where(usable, (rows.double() - truth) / torch.where(length > 0, length, 1.0), 0.0)
        if not (error.norm(dim=1) > self._tolerance()).any():
            return []
        share = {block.name: float(error[:, block.columns].norm()) for block in self.blocks}
        return [name for name in sorted(share, key=lambda name: -share[name]) if share[name] > self._tolerance() / 10]

    # --------------------------------------------------------------------- setup
    def _lay_out(
        self, targets: dict[str, nn.Parameter], projection: int | Literal["auto"] | None, seed: int
    ) -> list[Block]:
        """Gives every targeted parameter its columns, and every module that holds one its terms."""
        held: list[tuple[str, list[tuple[nn.Module, Term]]]] = []
        for name, parameter in targets.items():
            places: list[tuple[nn.Module, Term]] = []
            for module_name, module, own in owners(self.model, parameter):
                rule = rule_for(module)
                terms = rule(module) if rule is not None else {}
                if own in terms:  # a module without a rule may only hold a weight for the layer that uses it
                    self._names[module] = module_name
                    places.append((module, terms[own]))
            held.append((name, places))
        shapes = [term_shape(places[0][1]) for _, places in held]
        blocks, start = [], 0
        widths = block_widths(shapes, projection)
        for (name, places), shape, width in zip(held, shapes, widths, strict=True):
            block = Block(name, shape, width, slice(start, start + width[0] * width[1]), seed)
            start = block.columns.stop
            blocks.append(block)
            for module, term in places:
                self._terms.setdefault(module, []).append((block, term))
        return blocks

    # ------------------------------------------------------------------- collect
    def _collect(self, batch: Batch, size: int) -> tuple[Tensor, Tensor]:
        called: set[nn.Module] = set()
        written: set[str] = set()
        with torch.inference_mode(False):  # the rows are filled outside it
            rows = torch.empty(size, self.width, dtype=self.dtype, device=self.device)
        with as_scored(self.model), self._hooked(rows, size, called, written):
            losses = per_example_loss(self.model, _usable(batch), **self._loss_settings())
            if losses.requires_grad:
                losses.sum().backward()
        if not losses.requires_grad or not called:
            raise GradientError(
                "No targeted layer has a part in the loss, so every gradient is zero",
                where=f"target_modules, {[self._names[module] for module in list(self._terms)[:6]]}",
                fix="Target layers that the forward pass calls; a fused or compiled layer calls no hook.",
            )
        for block in self.blocks:
            if block.name not in written:
                rows[:, block.columns] = 0.0
        reached = {block.name for module in called for block, _ in self._terms[module]}
        if silent := [block.name for block in self.blocks if block.name not in reached]:
            self._warn_once(f"No layer that was called holds {silent[:6]}: their gradients count as zero.")
        return rows, losses.detach()

    def _collect_one_by_one(self, batch: Batch, size: int) -> tuple[Tensor, Tensor]:
        parts = [self._collect(rows_of(batch, slice(index, index + 1)), 1) for index in range(size)]
        return torch.cat([rows for rows, _ in parts]), torch.cat([losses for _, losses in parts])

    @contextmanager
    def _hooked(self, rows: Tensor, size: int, called: set[nn.Module], written: set[str]) -> Iterator[None]:
        """Hooks on every targeted layer that fill `rows`; notes the layers `called` and the blocks `written`."""
        anchor = torch.ones((), requires_grad=True)
        leading = [size]

        def on_forward(module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> Tensor | None:
            if not torch.is_grad_enabled():
                return None
            called.add(module)
            self._computes_in_half |= output.element_size() < 4  # autocast inside the forward shows nowhere else
            x = args[0] if args else next(iter(kwargs.values()))
            if output.shape[0] == 1 and size > 1 and any(isinstance(term, Lookup) for _, term in self._terms[module]):
                # Position embeddings are looked up once for all rows; each row gets its own copy to differentiate.
                output = output.expand(leading[0], *output.shape[1:])
            leading[0] = max(leading[0], output.shape[0])  # several times the rows, where a model folds its input
            if output.shape[0] % size:
                raise NotSeparable(
                    f"{self._names[module]} returns {list(output.shape)}, which no axis of {size} rows divides"
                )
            held = [(block, term, capture(term, block, x.detach(), size)) for block, term in self._terms[module]]
            version = x._version

            def on_gradient(grad: Tensor) -> None:
                if x._version != version and any(_share_memory(kept, x) for _, _, kept in held):
                    raise GradientError(
                        f"The input of {self._names[module]} is changed in place after the layer has read it",
                        where=self._names[module],
                        fix="Leave this module out of target_modules, or make the operation after it out of place.",
                    )
                for block, term, kept in held:
                    contribute(rows, term, block, kept, grad, size, fresh=block.name not in written)
                    written.add(block.name)

            if not output.requires_grad:
                output = _GraphStart.apply(output, anchor)
            output.register_hook(on_gradient)
            return output

        handles = [module.register_forward_hook(on_forward, with_kwargs=True, prepend=True) for module in self._terms]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _loss_settings(self) -> dict[str, Any]:
        return {"reduction": self.loss_reduction, "loss_function": self.loss_function, "device": self.device}

    # ------------------------------------------------------------------- fallback
    def _tolerance(self) -> float:
        is_half = self._computes_in_half or any(
            parameter.is_floating_point() and parameter.element_size() < 4 for parameter in self.model.parameters()
        )
        return _HALF_TOLERANCE if is_half else _TOLERANCE

    def _fall_back(self, reason: str) -> None:
        self.one_at_a_time = True
        self._warn_once(f"Rows are scored one at a time, which is right but slow: {reason}.")

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            logger.warning(message)


class _GraphStart(torch.autograd.Function):
    """Identity whose output needs a gradient. A copy, since the model may go on to change it in place."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, anchor: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None]:
        return None, None


def _usable(batch: Batch) -> dict[str, Any]:
    """The batch with tensors that autograd may save: those made under `torch.inference_mode` may not be."""
    return {
        key: value.clone() if isinstance(value, Tensor) and value.is_inference() else value
        for key, value in batch.items()
    }


def _share_memory(kept: Tensor | None, x: Tensor) -> bool:
    return kept is not None and kept.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
