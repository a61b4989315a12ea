"""How the gradient of each layer kind's weights follows from its input and the gradient at its output.

Axes: B rows of the batch, T positions (tokens, patches, pixels) of a row, I layer inputs, O layer outputs, V
vocabulary, E experts.

A rule is a function from a module to its *terms*, one for each parameter that the kind owns. With a_t the input and
b_t the output gradient at position t, a row's gradient is

    Outer     G = sum_t left_t right_t^T      (Linear, Conv1D, Conv1d, Conv2d; one side from a, the other from b)
    Lookup    G[i_t] += b_t                   (Embedding)
    Vector    G = sum_t f(a_t) * b_t          (biases, LayerNorm, RMSNorm)
    Rerun     by autograd, the layer run again on each row  (every other layer)

A term says which, so that the collector can project both factors of an `Outer` before their product. A new layer kind
is one function here and one line in `RULES`, or `register_rule` from outside.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ...errors import TargetError


@dataclass(frozen=True)
class Outer:
    """A matrix gradient, sum over positions of an outer product.

    Attributes:
        shape: (rows, columns) of the gradient as a matrix; its flattening is the parameter's.
        input_is_left: Whether the rows come from the layer's input (Conv1D) or its output gradient (Linear).
        from_input: Layer input, batch size -> [B, groups, T, .]
        from_output: Output gradient, batch size -> [B, groups, T, .]
    """

    shape: tuple[int, int]
    input_is_left: bool
    from_input: Callable[[Tensor, int], Tensor]
    from_output: Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Lookup:
    """A table gradient: the output gradient at t is added to the table's row i_t.

    Attributes:
        shape: (V, columns).
        padding_idx: The table row that gets no gradient, if any.
    """

    shape: tuple[int, int]
    padding_idx: int | None


@dataclass(frozen=True)
class Vector:
    """A vector gradient, sum over positions of an elementwise product.

    Attributes:
        size: Its length.
        from_input: Layer input -> what the output gradient is multiplied with; None for a bias.
        axis: Where the vector lies in the layer's output: last, or 1 for the channels of a convolution.
    """

    size: int
    from_input: Callable[[Tensor], Tensor] | None = None
    axis: int = -1


@dataclass(frozen=True)
class Rerun:
    """A gradient of any layer: it is run again on each row alone, and autograd gives the row's gradient.

    Attributes:
        shape: (rows, columns) of the gradient as a matrix; its flattening is the parameter's.
    """

    shape: tuple[int, int]


Term = Outer | Lookup | Vector | Rerun
Rule = Callable[[nn.Module], dict[str, Term]]


def _tokens(features: int) -> Callable[[Tensor, int], Tensor]:
    """[B * k, ..., features] -> [B, 1, T, features]: positions are all between the batch and the features."""
    return lambda tensor, batch: tensor.reshape(batch, 1, -1, features)


def linear(module: nn.Module) -> dict[str, Term]:
    """For y = x W^T + c: dL/dW = sum_t b_t a_t^T, dL/dc = sum_t b_t.

    Sizes come from the module: a quantised weight has others.
    """
    inputs, outputs = int(module.in_features), int(module.out_features)  # type: ignore[arg-type]
    return {"weight": Outer((outputs, inputs), False, _tokens(inputs), _tokens(outputs)), "bias": Vector(outputs)}


def transposed_linear(module: nn.Module) -> dict[str, Term]:
    """Transformers' Conv1D (GPT-2), y = x W + c: dL/dW = sum_t a_t b_t^T."""
    inputs, outputs = (int(size) for size in module.weight.shape)  # type: ignore[union-attr]
    return {"weight": Outer((inputs, outputs), True, _tokens(inputs), _tokens(outputs)), "bias": Vector(outputs)}


def convolution(module: nn.Module) -> dict[str, Term]:
    """Conv1d and Conv2d as a linear layer over patches; each group of channels is a linear layer of its own."""
    assert isinstance(module, (nn.Conv1d, nn.Conv2d))
    groups, outputs = module.groups, module.out_channels
    patch = module.weight.shape[1:].numel()

    def patches(x: Tensor, batch: int) -> Tensor:
        columns = _unfold(module, x)  # [B * k, groups * patch, T]
        columns = columns.reshape(batch, -1, groups, patch, columns.shape[-1])
        return columns.permute(0, 2, 1, 4, 3).reshape(batch, groups, -1, patch)

    def channels(b: Tensor, batch: int) -> Tensor:
        b = b.reshape(batch, -1, groups, outputs // groups, b[0, 0].numel())
        return b.permute(0, 2, 1, 4, 3).reshape(batch, groups, -1, outputs // groups)

    return {"weight": Outer((outputs, patch), False, patches, channels), "bias": Vector(outputs, axis=1)}


def _unfold(module: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    """Input patches [., I * kernel, T], with every kind of padding; a Conv1d is an image of height 1."""
    kernel, stride, dilation = tuple(module.kernel_size), tuple(module.stride), tuple(module.dilation)
    if isinstance(module.padding, str):  # "same" pads the odd one at the end, as torch does
        total = [d * (k - 1) if module.padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        sides = [(size // 2, size - size // 2) for size in total]
    else:
        sides = [(size, size) for size in module.padding]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, [size for side in reversed(sides) for size in side], mode=mode)
    if isinstance(module, nn.Conv1d):
        x, kernel, stride, dilation = x.unsqueeze(-2), (1, *kernel), (1, *stride), (1, *dilation)
    return F.unfold(x, kernel, dilation=dilation, stride=stride)


def embedding(module: nn.Module) -> dict[str, Term]:
    """y_t = W[i_t]: dL/dW[i] = sum of b_t over the positions with i_t = i."""
    assert isinstance(module, nn.Embedding)
    return {"weight": Lookup((module.num_embeddings, module.embedding_dim), module.padding_idx)}


def layer_norm(module: nn.Module) -> dict[str, Term]:
    """For y = x^ * w + c with x^ the normalised input: dL/dw = sum_t x^_t * b_t, dL/dc = sum_t b_t."""
    assert isinstance(module, nn.LayerNorm)
    shape, eps = module.normalized_shape, module.eps
    size = int(torch.Size(shape).numel())
    return {"weight": Vector(size, lambda x: F.layer_norm(x, shape, eps=eps)), "bias": Vector(size)}


def rms_norm(module: nn.Module) -> dict[str, Term]:
    """For y = x^ * w (or x^ * (1 + w)) with x^ = x / rms(x): dL/dw = sum_t x^_t * b_t."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    shape = list(weight.shape)
    return {"weight": Vector(weight.numel(), lambda x: F.rms_norm(x, shape, eps=eps))}


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear,
    Conv1D: transposed_linear,
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Embedding: embedding,
    nn.LayerNorm: layer_norm,
    nn.RMSNorm: rms_norm,
}
LINEAR_KINDS = (nn.Linear, Conv1D)
CONVOLUTION_KINDS = (nn.modules.conv._ConvNd,)
MATRIX_KINDS = (*LINEAR_KINDS, *CONVOLUTION_KINDS)


def register_rule(kind: type[nn.Module], rule: Rule) -> None:
    """Gives a layer kind a rule: how its weights' per-example gradients follow from what passes through it.

    Layers without a rule are run again row by row, which is right and slower. The rule holds for the class itself and
    for subclasses that do not change its forward.

    Args:
        kind: A module class that calls no other module.
        rule: From a module of this class to {its parameter's name: `Outer`, `Lookup`, `Vector` or `Rerun`}. Parameters
            that it leaves out are never targeted.

    Raises:
        TargetError: `kind` is no module class.

    Example:
        >>> from sage_hf.gradients.layers.rules import Vector
        >>> register_rule(Scale, lambda module: {"weight": Vector(module.weight.numel(), lambda x: x)})
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise TargetError(
            f"{kind!r} is not a class of modules", where="kind", fix="Pass a subclass of torch.nn.Module."
        )
    RULES[kind] = rule


def rule_for(module: nn.Module) -> Rule:
    """The rule of a module's kind.

    A subclass counts as its kind while it computes as its kind does: one with a forward of its own (a scaled
    embedding, a weight-standardised convolution) is run again, as every layer without a rule. transformers defines an
    RMSNorm class of its own in every model file; its own are known by their names while they take one input.
    """
    kind = next((kind for kind in type(module).__mro__ if kind in RULES), None)
    if kind is not None and _computes_as(module, kind):
        return RULES[kind]
    is_of_library = type(module).__module__.startswith("transformers.")
    named_so = type(module).__name__.endswith(("RMSNorm", "T5LayerNorm"))
    own = [name for name, _ in module.named_parameters(recurse=False)]
    takes_one = len(inspect.signature(module.forward).parameters) == 1 and own == ["weight"]
    return rms_norm if kind is None and is_of_library and named_so and takes_one else rerun


def _computes_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module of a kind computes as the kind does, with nothing of its own in between."""
    # accelerate moves weights in a forward of its own, and computes by the old one.
    is_patched = "forward" in vars(module) and not hasattr(module, "_old_forward")
    inner = getattr(type(module), "_conv_forward", None) is getattr(kind, "_conv_forward", None)
    scales_by_count = bool(getattr(module, "scale_grad_by_freq", False))
    return type(module).forward is kind.forward and inner and not is_patched and not scales_by_count


def rerun(module: nn.Module) -> dict[str, Term]:
    """Every parameter of the module itself, by running it again."""
    return {name: Rerun(matrix_shape(module, p)) for name, p in module.named_parameters(recurse=False)}


def matrix_shape(module: nn.Module, parameter: nn.Parameter) -> tuple[int, int]:
    """A parameter as a matrix: a convolution's by its outputs, any other's by its last axis; a vector as (size, 1)."""
    shape = parameter.shape
    if len(shape) < 2:
        return (parameter.numel(), 1)
    if isinstance(module, CONVOLUTION_KINDS):
        return (shape[0], shape[1:].numel())
    return (shape[:-1].numel(), shape[-1])


def is_experts(module: nn.Module) -> bool:
    """Whether a module holds the weights of several experts in one parameter each, as transformers fuses them."""
    return "Experts" in type(module).__name__ and any(p.ndim == 3 for p in module.parameters(recurse=False))
