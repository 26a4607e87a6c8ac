"""Granite 3: a llama with factors on embeddings, scores, logits, and what each block adds to the residual stream.

IBM Granite team 2024 (Granite 3.0 language models).
"""

from __future__ import annotations

from dataclasses import replace

from torchless.blocks import attention, gated_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.decoder_settings import expect_layers_alike, read_settings
from torchless.plan import Plan

ARCHITECTURES = ("granite",)


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    expect_layers_alike(reader)
    reader.expect("hf.mlp_bias", False, True)  # the biases themselves are tensors
    return replace(
        read_settings(reader, layout=None),
        attention_scale=reader.number("attention.scale"),
        embedding_scale=reader.number("embedding_scale", 1.0),
        residual_scale=reader.number("residual_scale", 1.0),
        logit_scale=1.0 / reader.number("logit_scale", 1.0),  # a divisor
    )


def forward(plan: Plan, config: ModelConfig) -> None:
    """Tokens to logits."""
    x = plan.embed("token_embd.weight", scale=config.embedding_scale)
    for layer in range(config.num_layers):
        h = plan.rms_norm(x, f"blk.{layer}.attn_norm.weight", eps=config.norm_eps)
        h = attention(plan, h, config, layer=layer)
        x = plan.add(x, plan.scale(h, config.residual_scale))
        h = plan.rms_norm(x, f"blk.{layer}.ffn_norm.weight", eps=config.norm_eps)
        h = gated_mlp(plan, h, layer=layer, activation="silu")
        x = plan.add(x, plan.scale(h, config.residual_scale))
    x = plan.rms_norm(plan.select_outputs(x), "output_norm.weight", eps=config.norm_eps)
    logits = plan.linear(x, "token_embd.weight" if config.tied else "output.weight")
    plan.set_output(plan.scale(logits, config.logit_scale))
