"""Qwen1.5, Qwen2 and Qwen2.5: a llama whose queries, keys and values have biases.

Qwen team 2024 (Qwen2 technical report; Qwen2.5 technical report).
"""

from __future__ import annotations

from torchless.blocks import attention, gated_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.decoder_settings import expect_layers_alike, read_settings
from torchless.plan import Plan

ARCHITECTURES = ("qwen2",)
LIMITS = ("all layers alike: no windows in some of them",)


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    expect_layers_alike(reader)
    return read_settings(reader, layout="half")


def forward(plan: Plan, config: ModelConfig) -> None:
    """Tokens to logits."""
    x = plan.embed("token_embd.weight")
    for layer in range(config.num_layers):
        h = plan.rms_norm(x, f"blk.{layer}.attn_norm.weight", eps=config.norm_eps)
        x = plan.add(x, attention(plan, h, config, layer=layer))
        h = plan.rms_norm(x, f"blk.{layer}.ffn_norm.weight", eps=config.norm_eps)
        x = plan.add(x, gated_mlp(plan, h, layer=layer, activation="silu"))
    x = plan.rms_norm(plan.select_outputs(x), "output_norm.weight", eps=config.norm_eps)
    plan.set_output(plan.linear(x, "token_embd.weight" if config.tied else "output.weight"))
