"""Cross-entropy of every token over a vocabulary, without a second and third copy of the logits.

torch's cross_entropy writes log-probabilities of the size of the logits and reads them again in its backward pass.
Over a vocabulary these are the largest tensors of a training step (16 x 127 x 8,192 floats are 66 MB), and a third of
the time of a small model. Blocks that stay in the cache need one pass each way and keep one number a token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Entries of a block: 2 MB of float32 stay in a core's cache; a GPU wants fewer, larger kernels.
_BLOCK = {"cpu": 2**19}
_BLOCK_ELSEWHERE = 2**25


class TokenCrossEntropy(torch.autograd.Function):
    """`F.cross_entropy(logits, labels, ignore_index=..., reduction="none")` for logits [M, V] and labels [M].

    The gradient takes the logits' own memory where whatever made them has no more use for it; the logits are then
    lost.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, ignore_index: int, in_place: bool) -> Tensor:
        """The losses; one pass over each block of logits."""
        block = _block_rows(logits)
        counted = labels != ignore_index
        picked = torch.where(counted, labels, 0).unsqueeze(1)
        normaliser = torch.empty(logits.shape[0], 1, dtype=logits.dtype, device=logits.device)
        for part, out in zip(logits.split(block), normaliser.split(block), strict=True):
            largest = part.amax(1, keepdim=True)
            torch.add(largest, (part - largest).exp_().sum(1, keepdim=True).log_(), out=out)
        ctx.save_for_backward(logits, picked, counted, normaliser)
        ctx.in_place = in_place
        return torch.where(counted, (normaliser - logits.gather(1, picked)).squeeze(1), 0.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Probabilities less the label's one, block by block."""
        logits, picked, counted, normaliser = ctx.saved_tensors
        block = _block_rows(logits)
        scale = torch.where(counted, grad, 0.0).unsqueeze(1)
        result = logits.detach() if ctx.in_place else torch.empty_like(logits)
        for part, out, index, norm, weight in zip(
            *(tensor.split(block) for tensor in (logits, result, picked, normaliser, scale)), strict=True
        ):
            torch.sub(part, norm, out=out).exp_()  # the probabilities
            out.scatter_add_(1, index, out.new_full(index.shape, -1.0))
            out.mul_(weight)
        return result, None, None, None


def token_cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """The loss of every token, [M], from logits [M, V] and labels [M]; 0 where the label is `ignore_index`.

    The logits must not be used again after the backward pass.
    """
    return TokenCrossEntropy.apply(logits, labels, ignore_index, _is_expendable(logits))


# Operations whose backward pass does not read their own result: the plain output layers. A head that ends in a tanh
# (soft-capped logits) does, and gets a gradient in memory of its own.
_PLAIN = ("Mm", "Addmm", "Linear", "View", "UnsafeView", "ReshapeAlias", "ToCopy", "Transpose")


def _is_expendable(logits: Tensor) -> bool:
    node = logits.grad_fn
    while node is not None:
        name = node.name().removesuffix("0").removesuffix("Backward")
        if name not in _PLAIN:
            return False
        if name in ("Mm", "Addmm", "Linear"):
            return True
        node = node.next_functions[0][0]
    return False


def _block_rows(logits: Tensor) -> int:
    return max(1, _BLOCK.get(logits.device.type, _BLOCK_ELSEWHERE) // max(1, logits.shape[1]))
