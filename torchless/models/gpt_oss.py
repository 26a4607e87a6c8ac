"""gpt-oss: experts with biases and a clamped SwiGLU, sinks in attention, every second layer with a sliding window.

OpenAI 2025 (gpt-oss-120b and gpt-oss-20b model card).
"""

from __future__ import annotations

import math

from torchless.blocks import routed_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.decoder_settings import read_settings
from torchless.expert_models import read_routing
from torchless.plan import Plan, Value

ARCHITECTURES = ("gpt-oss",)
LIMITS = ("windows in every second layer",)


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    num_layers = reader.integer("block_count")
    kinds = ["sliding_attention", "full_attention"] * num_layers
    reader.expect("hf.layer_types", kinds[:num_layers])
    reader.expect("hf.swiglu_alpha", 1.702)
    reader.expect("hf.swiglu_limit", 7.0)
    reader.expect("hf.experts_per_token", reader.integer("expert_used_count"))  # said twice
    reader.expect("hf.initial_context_length", 4096)  # before its extension, which the rotary settings say
    reader.integer("attention.sliding_window")
    return read_settings(
        reader,
        routing=read_routing(reader, scoring="softmax_chosen", normalised=False),
        layout="half",
        yarn_truncates=False,
    )


def forward(plan: Plan, config: ModelConfig) -> None:
    """Tokens to logits."""
    assert config.routing is not None
    x = plan.embed("token_embd.weight")
    for layer in range(config.num_layers):
        h = plan.rms_norm(x, f"blk.{layer}.attn_norm.weight", eps=config.norm_eps)
        x = plan.add(x, _attention(plan, h, config, layer))
        in_gguf = f"blk.{layer}.post_attention_norm.weight"
        name = in_gguf if in_gguf in plan.shapes else f"blk.{layer}.ffn_norm.weight"
        h = plan.rms_norm(x, name, eps=config.norm_eps)
        x = plan.add(x, routed_mlp(plan, h, config.routing, layer=layer, activation="swiglu_clamped"))
    x = plan.rms_norm(plan.select_outputs(x), "output_norm.weight", eps=config.norm_eps)
    plan.set_output(plan.linear(x, "token_embd.weight" if config.tied else "output.weight"))


def _attention(plan: Plan, x: Value, config: ModelConfig, layer: int) -> Value:
    prefix = f"blk.{layer}.attn_"

    def projected(part: str, x: Value) -> Value:
        return plan.linear(x, f"{prefix}{part}.weight", bias=f"{prefix}{part}.bias")

    def rotated(part: str, num_heads: int) -> Value:
        return plan.rope(projected(part, x), num_heads=num_heads, head_dim=config.head_dim, spec=config.rope)

    mixed = plan.attention(
        rotated("q", config.num_heads),
        rotated("k", config.num_kv_heads),
        projected("v", x),
        layer=layer,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        scale=1.0 / math.sqrt(config.head_dim),
        window=config.window if layer % 2 == 0 else None,
        sinks=f"{prefix}sinks.weight",
    )
    return projected("output", mixed)
