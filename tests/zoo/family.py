"""A model family: how its tiny model and a batch of four uneven rows are made."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import signature
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
class Setting:
    """One point of the axes that a family is tried on.

    Attributes:
        attention: "sdpa" (or what the model has instead) or "eager".
        side: Of the padding, "right" or "left"; other inputs than tokens ignore it.
        positions: Whether position ids are given, counted along the attention mask.
        dtype: Of the weights and the inputs.
    """

    attention: str = "sdpa"
    side: str = "right"
    positions: bool = False
    dtype: torch.dtype = torch.float32

    @property
    def name(self) -> str:
        words = [self.attention, self.side, str(self.dtype).removeprefix("torch.")]
        return "-".join([*words, "positions"] if self.positions else words)


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
        untrainable: Why autograd gives nothing in eval mode, so that a refusal is right.
        remembers: Whether a forward pass leaves tables with a graph behind for the next one.
        in_training: Whether autograd of all weights needs training mode (there is no dropout in it).
        has_twins: Whether a batch of the same row twice is a truth, too: torch 2.13 differentiates a convolution
            before a batch norm wrongly for a single image whose gradient comes permuted (gradcheck tells).
        quiet: The config without a part of the loss that is the batch's: a truth, too.
    """

    model: str
    head: str
    config: Callable[[], Any]
    batch: Callable[[str], dict[str, Any]]
    variant: str = ""
    cut: Callable[[dict[str, Any], int], dict[str, Any]] | None = None
    is_tokens: bool = False
    untrainable: str = ""
    remembers: bool = False
    in_training: bool = False
    has_twins: bool = False
    quiet: Callable[[], Any] | None = None

    @property
    def name(self) -> str:
        return f"{self.model}-{self.variant}" if self.variant else self.model

    def has(self, setting: Setting) -> bool:
        """Whether a setting differs from the plain one for this family."""
        kind = getattr(transformers, self.model)
        if setting.attention == "eager" and not kind._supports_sdpa:
            return False
        if setting.positions and not (self.is_tokens and "position_ids" in signature(kind.forward).parameters):
            return False
        return setting.side == "right" or self.is_tokens


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


def config_of(model: str, **changes: Any) -> Any:
    """The tiny config of a model class."""
    return tiny(getattr(transformers, model).config_class, **changes)


def build(family: Family, setting: Setting, quiet: bool = False) -> nn.Module:
    """The family's model in eval mode, with weights far from their start: no norm is one, no bias is zero."""
    torch.manual_seed(0)
    config = family.quiet() if quiet and family.quiet else family.config()
    if setting.attention == "eager":
        config._attn_implementation = "eager"
    model = getattr(transformers, family.model)(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.to(setting.dtype).eval()


def make_batch(family: Family, setting: Setting) -> dict[str, Any]:
    torch.manual_seed(2)
    batch = family.batch(setting.side)
    if setting.positions:
        batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    return as_dtype(batch, setting.dtype)


def as_dtype(value: Any, dtype: torch.dtype) -> Any:
    """A batch, or an entry of one, with its decimal numbers in another precision."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, list):
        return [as_dtype(each, dtype) for each in value]
    if isinstance(value, dict):
        return {key: as_dtype(each, dtype) for key, each in value.items()}
    return value
