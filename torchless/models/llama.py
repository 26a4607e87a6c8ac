"""Llama 1 to 3.3, Code Llama, TinyLlama, Mistral with a sliding window in all, some or no layers, and Mixtral.

Touvron et al. 2023 (Llama), Jiang et al. 2023 (Mistral 7B) and 2024 (Mixtral). Pre-norm transformer blocks with rotary
positions, grouped-query attention and a gated MLP or, in Mixtral, experts that are such MLPs.
"""

from __future__ import annotations

from dataclasses import replace

from torchless.blocks import attention, gated_mlp, routed_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.decoder_settings import read_settings
from torchless.expert_models import read_routing
from torchless.plan import Plan

ARCHITECTURES = ("llama", "mistral")


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    routing = None
    if reader.count("expert_count"):
        routing = read_routing(reader, scoring="softmax", normalised=True)
    else:
        reader.expect("expert_count", 0)
        reader.expect("expert_used_count", 0)
    reader.expect("hf.mlp_bias", False, True)  # the biases themselves are tensors
    reader.expect("hf.pretraining_tp", 1)
    reader.expect("tensor_data_layout", "Meta AI original pth")
    reader.integer("feed_forward_length")
    settings = read_settings(reader, routing=routing, layout=None)
    windowed = reader.flags("attention.sliding_window_pattern", settings.num_layers)
    return replace(settings, windowed=windowed)


def forward(plan: Plan, config: ModelConfig) -> None:
    """Tokens to logits. Qwen 2, Phi-3 and Ministral 3 use it too: blocks take biases and fused tensors as they are."""
    x = plan.embed("token_embd.weight")
    for layer in range(config.num_layers):
        h = plan.rms_norm(x, f"blk.{layer}.attn_norm.weight", eps=config.norm_eps)
        x = plan.add(x, attention(plan, h, config, layer=layer))
        h = plan.rms_norm(x, f"blk.{layer}.ffn_norm.weight", eps=config.norm_eps)
        if config.routing is None:
            x = plan.add(x, gated_mlp(plan, h, layer=layer, activation="silu"))
        else:
            x = plan.add(x, routed_mlp(plan, h, config.routing, layer=layer, activation="silu"))
    x = plan.rms_norm(plan.select_outputs(x), "output_norm.weight", eps=config.norm_eps)
    plan.set_output(plan.linear(x, "token_embd.weight" if config.tied else "output.weight"))
