"""Qwen3-MoE: every layer a mixture of experts, each query and key head normalised.

Qwen team 2025 (Qwen3 technical report).
"""

from __future__ import annotations

from torchless.blocks import attention, routed_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.decoder_settings import read_settings
from torchless.expert_models import expect_experts_everywhere, read_routing
from torchless.plan import Plan

ARCHITECTURES = ("qwen3moe",)
LIMITS = ("experts in every layer", "a GGUF file only with the published norm_topk_prob")


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
        x = plan.add(x, attention(plan, h, config, layer=layer, normed="heads"))
        h = plan.rms_norm(x, f"blk.{layer}.ffn_norm.weight", eps=config.norm_eps)
        x = plan.add(x, routed_mlp(plan, h, config.routing, layer=layer, activation="silu"))
    x = plan.rms_norm(plan.select_outputs(x), "output_norm.weight", eps=config.norm_eps)
    plan.set_output(plan.linear(x, "token_embd.weight" if config.tied else "output.weight"))
