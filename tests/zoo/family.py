"""A model family: how its tiny model and a batch of four uneven rows are made."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
import transformers
from torch import nn

ROWS = 4
VOCABULARY = 64
# Words for sizes that configs use; each config takes those that it knows.
TINY = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "d_model": 16,
    "embedding_size": 16,
    "intermediate_size": 32,
    "ffn_hidden_size": 32,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "d_ff": 32,
    "d_kv": 8,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


@dataclass(frozen=True)
class Family:
    """One model class (or a variant of one) with the batch that it is tried on.

    Attributes:
        model: Name of the class in transformers.
        head: What it is for: "causal", "masked", ...
        config: The config, made anew.
        batch: side ("right" or "left") -> rows of uneven length with labels; other inputs ignore the side.
        variant: Tells two entries of one class apart.
        cut: (batch, row) -> that row as a batch of one, where a slice of the first axis is not it.
        is_tokens: Whether the side of the padding means something.
    """

    model: str
    head: str
    config: Callable[[], Any]
    batch: Callable[[str], dict[str, Any]]
    variant: str = ""
    cut: Callable[[dict[str, Any], int], dict[str, Any]] | None = None
    is_tokens: bool = False
    init: Callable[[nn.Module], None] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return f"{self.model}-{self.variant}" if self.variant else self.model


def tiny(config_class: type | str, **changes: Any) -> Any:
    """A config with every size that it knows made tiny; `changes` are taken as they are."""
    if isinstance(config_class, str):
        config_class = getattr(transformers, config_class)
    known = {each.name for each in fields(config_class)}
    aliases = getattr(config_class, "attribute_map", {})
    sizes = {name: value for name, value in TINY.items() if name in known and name not in changes}
    sizes |= {
        aliases[name]: value
        for name, value in TINY.items()
        if name in aliases and aliases[name] not in changes and aliases[name] not in sizes and name not in changes
    }
    return config_class(**sizes, **changes)


def build(family: Family, attention: str | None = None, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The family's model in eval mode, with weights far from their start: no norm is one, no bias is zero."""
    torch.manual_seed(0)
    config = family.config()
    if attention is not None:
        config._attn_implementation = attention
    model = getattr(transformers, family.model)(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    if family.init is not None:
        family.init(model)
    return model.to(dtype).eval()


def make_batch(family: Family, side: str = "right", dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    torch.manual_seed(2)
    return {key: _as_dtype(value, dtype) for key, value in family.batch(side).items()}


def _as_dtype(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.to(dtype)
    if isinstance(value, list):
        return [_as_dtype(each, dtype) for each in value]
    if isinstance(value, dict):
        return {key: _as_dtype(each, dtype) for key, each in value.items()}
    return value
