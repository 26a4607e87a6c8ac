"""Qwen3-MoE: every layer a mixture of experts, each query and key head normalised.

Qwen team 2025 (Qwen3 technical report).
"""

from __future__ import annotations

import math

from torchless.blocks import routed_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.expert_models import expect_experts_everywhere, read_routing, read_settings
from torchless.plan import Plan, Value

ARCHITECTURES = ("qwen3moe",)


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    expect_experts_everywhere(reader)
    # GGUF files do not say it: all published models divide. In folders it is a setting.
    routing = read_routing(reader, scoring="softmax", normalised=reader.source.format == "gguf")
    return read_settings(reader, routing=routing, layout="half")


def forward(plan: Plan, config: ModelConfig) -> None:
    """Tokens to logits."""
    assert config.routing is not None
    x = plan.embed("token_embd.weight")
    for layer in range(config.num_layers):
        h = plan.rms_norm(x, f"blk.{layer}.attn_norm.weight", eps=config.norm_eps)
        x = plan.add(x, _attention(plan, h, config, layer))
        h = plan.rms_norm(x, f"blk.{layer}.ffn_norm.weight", eps=config.norm_eps)
        x = plan.add(x, routed_mlp(plan, h, config.routing, layer=layer, activation="silu"))
    x = plan.rms_norm(plan.select_outputs(x), "output_norm.weight", eps=config.norm_eps)
    plan.set_output(plan.linear(x, "token_embd.weight" if config.tied else "output.weight"))


def _attention(plan: Plan, x: Value, config: ModelConfig, layer: int) -> Value:
    prefix = f"blk.{layer}.attn_"

    def rotated(part: str, num_heads: int) -> Value:
        heads = plan.linear(x, f"{prefix}{part}.weight")
        heads = plan.rms_norm(heads, f"{prefix}{part}_norm.weight", eps=config.norm_eps, num_heads=num_heads)
        return plan.rope(heads, num_heads=num_heads, head_dim=config.head_dim, spec=config.rope)

    mixed = plan.attention(
        rotated("q", config.num_heads),
        rotated("k", config.num_kv_heads),
        plan.linear(x, f"{prefix}v.weight"),
        layer=layer,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        scale=1.0 / math.sqrt(config.head_dim),
    )
    return plan.linear(mixed, f"{prefix}output.weight")
