"""What Gemma 1, 2 and 3 share: settings, and layers whose blocks are normalised before and, from Gemma 2 on, behind.

Gemma team 2024 (Gemma; Gemma 2), 2025 (Gemma 3 technical report).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from torchless.blocks import attention, gated_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.decoder_settings import read_settings
from torchless.plan import Plan, RopeSpec, Value

__all__ = ["GemmaConfig", "attention_scale", "forward_gemma", "layer_kinds", "read_gemma"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmaConfig(ModelConfig):
    """Sizes of a Gemma model.

    Attributes:
        local_window: tokens that the layers with a window look back; None without such layers.
        local_rope: the rotary embedding of those layers.
        interval: every so many layers one looks back over all tokens, the last of them.
        has_head_norms: whether each query and key head is normalised.
    """

    local_window: int | None
    local_rope: RopeSpec
    interval: int
    has_head_norms: bool


def read_gemma(
    reader: ConfigReader,
    *,
    interval: int = 1,
    activations: tuple[str, ...] = ("gelu_pytorch_tanh",),
    local_rope: RopeSpec | None = None,
    scale: float | None = None,
    attention_softcap: float | None = None,
    logit_softcap: float | None = None,
    has_head_norms: bool = False,
) -> GemmaConfig:
    """The settings; embeddings are multiplied by the root of their width.

    Args:
        activations: what the settings may call the GELU's tanh approximation.
        scale: of attention scores; None = 1 / sqrt(head_dim).
    """
    reader.expect("hf.hidden_activation", *activations)
    reader.expect("hf.use_bidirectional_attention", False)
    settings = read_settings(reader, layout="half", activations=activations)
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    values |= {
        "window": None,
        "attention_scale": scale,
        "attention_softcap": attention_softcap,
        "logit_softcap": logit_softcap,
        "embedding_scale": math.sqrt(settings.embedding_length),
    }
    return GemmaConfig(
        **values,
        local_window=settings.window,
        local_rope=local_rope or settings.rope,
        interval=interval,
        has_head_norms=has_head_norms,
    )


def layer_kinds(num_layers: int, interval: int) -> list[str]:
    """Kinds of layers as config.json names them.

    >>> layer_kinds(3, 2)
    ['sliding_attention', 'full_attention', 'sliding_attention']
    """
    kinds = ["sliding_attention"] * (interval - 1) + ["full_attention"]
    return (kinds * -(-num_layers // interval))[:num_layers]


def attention_scale(reader: ConfigReader, *, wide_layers: int) -> float:
    """The factor on scores: a setting, or, in GGUF files without it, a rule that depends on the published sizes.

    The model of `wide_layers` layers, the largest, divides by the root of width / heads; others by that of a head.
    """
    heads, width = reader.integer("attention.head_count"), reader.integer("embedding_length")
    head_dim = reader.integer("attention.key_length", width // heads)
    is_wide = reader.integer("block_count") == wide_layers
    return reader.number("attention.scale", 1.0 / math.sqrt(width / heads if is_wide else head_dim))


def forward_gemma(plan: Plan, config: GemmaConfig) -> None:
    """Tokens to logits."""
    x = plan.embed("token_embd.weight", scale=config.embedding_scale)
    for layer in range(config.num_layers):
        is_local = config.local_window is not None and (layer + 1) % config.interval != 0
        h = plan.rms_norm(x, f"blk.{layer}.attn_norm.weight", eps=config.norm_eps)
        h = attention(
            plan,
            h,
            config,
            layer=layer,
            normed="heads" if config.has_head_norms else None,
            rope=config.local_rope if is_local else config.rope,
            window=config.local_window if is_local else None,
        )
        x = plan.add(x, _behind(plan, h, config, f"blk.{layer}.post_attention_norm.weight"))
        h = plan.rms_norm(x, f"blk.{layer}.ffn_norm.weight", eps=config.norm_eps)
        h = gated_mlp(plan, h, layer=layer, activation="gelu_tanh")
        x = plan.add(x, _behind(plan, h, config, f"blk.{layer}.post_ffw_norm.weight"))
    x = plan.rms_norm(plan.select_outputs(x), "output_norm.weight", eps=config.norm_eps)
    logits = plan.linear(x, "token_embd.weight" if config.tied else "output.weight")
    plan.set_output(logits if config.logit_softcap is None else plan.soft_cap(logits, config.logit_softcap))


def _behind(plan: Plan, x: Value, config: GemmaConfig, norm: str) -> Value:
    """The norm behind a block, which Gemma 1 does not have."""
    return x if config.architecture == "gemma" else plan.rms_norm(x, norm, eps=config.norm_eps)
