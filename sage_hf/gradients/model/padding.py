"""The padding that a classification head looks for: such a head reads a row's last token that is no padding.

Without a padding token in the config it refuses batches, though the mask tells which tokens are a row's own; with
another one than the tokenizer pads with, it reads the wrong token.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.targets import part_of


@contextmanager
def padding_shown(model: nn.Module) -> Iterator[None]:
    """While it lasts, a sequence classifier finds the padding that the attention mask tells of.

    Of every batch, what the mask hides becomes the config's padding token; where the config has none that the model
    knows, one that ends no row of the batch, so that each row's last token is found where it is alone. The config
    comes back as it was. Of other models nothing changes.
    """
    config: Any = getattr(model, "config", None)
    if config is None or not any("ForSequenceClassification" in kind.__name__ for kind in type(model).__mro__):
        yield
        return
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    known: int = getattr(part_of(model, "get_input_embeddings"), "num_embeddings", sys.maxsize)
    before = [(part, getattr(part, "pad_token_id", None)) for part in (config, text)]

    def on_forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        ids, mask = kwargs.get("input_ids"), kwargs.get("attention_mask")
        if not isinstance(ids, Tensor) or not isinstance(mask, Tensor) or ids.ndim != 2 or mask.shape != ids.shape:
            return None
        token = before[-1][1]
        if token is None or not 0 <= token < known:
            token = _free_token(ids, mask)
            for part, _ in before:
                part.pad_token_id = token
        return args, {**kwargs, "input_ids": ids.masked_fill(mask == 0, token)}

    try:
        with model.register_forward_pre_hook(on_forward, with_kwargs=True, prepend=True):
            yield
    finally:
        for part, token in before:
            part.pad_token_id = token


def _free_token(ids: Tensor, mask: Tensor) -> int:
    """The lowest token that is not the last of any row [B, T]: one of the first B + 1."""
    places = torch.arange(ids.shape[1], device=ids.device)
    last = ids.gather(1, (places * (mask != 0)).argmax(1, keepdim=True))
    taken = set(last.flatten().tolist())
    return next(token for token in range(len(ids) + 1) if token not in taken)
