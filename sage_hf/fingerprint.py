"""A short hash of a model's weights, which is what a model is to a cache; its object's pickle is not."""

from __future__ import annotations

import torch
import xxhash
from torch import nn


def model_fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits from the names, types, shapes and bytes of all parameters and buffers."""
    digest = xxhash.xxh64()
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):  # a module's extra state
            digest.update(f"{name} {tensor!r}".encode())
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
