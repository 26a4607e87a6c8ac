"""Qwen1.5-MoE and Qwen2-MoE: experts beside a shared expert, which a gate of its own weighs for each token.

Qwen team 2024 (Qwen1.5-MoE; Qwen2 technical report).
"""

from __future__ import annotations

from torchless.blocks import attention, gated_shared_mlp, routed_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.decoder_settings import read_settings
from torchless.expert_models import expect_experts_everywhere, read_routing
from torchless.plan import Plan

ARCHITECTURES = ("qwen2moe",)
LIMITS = ("experts in every layer", "a GGUF file only with the published norm_topk_prob")


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    expect_experts_everywhere(reader)
    reader.expect("hf.qkv_bias", True, False)  # the biases themselves are tensors
    reader.integer("expert_shared_feed_forward_length", 1)  # the tensors say it
    return read_settings(
        reader, routing=read_routing(reader, scoring="softmax", normalised=False), layout="half"
    )


def forward(plan: Plan, config: ModelConfig) -> None:
    """Tokens to logits."""
    assert config.routing is not None
    x = plan.embed("token_embd.weight")
    for layer in range(config.num_layers):
        h = plan.rms_norm(x, f"blk.{layer}.attn_norm.weight", eps=config.norm_eps)
        x = plan.add(x, attention(plan, h, config, layer=layer))
        h = plan.rms_norm(x, f"blk.{layer}.ffn_norm.weight", eps=config.norm_eps)
        shared = gated_shared_mlp(plan, h, layer=layer, activation="silu")
        x = plan.add(x, routed_mlp(plan, h, config.routing, layer=layer, activation="silu"))
        x = plan.add(x, shared)
    x = plan.rms_norm(plan.select_outputs(x), "output_norm.weight", eps=config.norm_eps)
    plan.set_output(plan.linear(x, "token_embd.weight" if config.tied else "output.weight"))
