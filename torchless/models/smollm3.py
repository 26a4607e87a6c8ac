"""SmolLM3: a llama in which every fourth layer does without positions.

Hugging Face 2025 (SmolLM3); Yang et al. 2025 (RoPE to NoRoPE and back again).
"""

from __future__ import annotations

from torchless.blocks import attention, gated_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.decoder_settings import expect_layers_alike, read_settings
from torchless.plan import Plan

ARCHITECTURES = ("smollm3",)
LIMITS = ("positions in the published pattern",)

_INTERVAL = 4


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    expect_layers_alike(reader)
    reader.expect("hf.no_rope_layer_interval", _INTERVAL)
    rotating = [int(_rotates(layer)) for layer in range(reader.integer("block_count"))]
    reader.expect("hf.no_rope_layers", rotating)
    reader.expect("hf.mlp_bias", False, True)  # the biases themselves are tensors
    return read_settings(reader, layout=None)


def _rotates(layer: int) -> bool:
    return (layer + 1) % _INTERVAL != 0


def forward(plan: Plan, config: ModelConfig) -> None:
    """Tokens to logits."""
    x = plan.embed("token_embd.weight")
    for layer in range(config.num_layers):
        h = plan.rms_norm(x, f"blk.{layer}.attn_norm.weight", eps=config.norm_eps)
        x = plan.add(x, attention(plan, h, config, layer=layer, rotates=_rotates(layer)))
        h = plan.rms_norm(x, f"blk.{layer}.ffn_norm.weight", eps=config.norm_eps)
        x = plan.add(x, gated_mlp(plan, h, layer=layer, activation="silu"))
    x = plan.rms_norm(plan.select_outputs(x), "output_norm.weight", eps=config.norm_eps)
    plan.set_output(plan.linear(x, "token_embd.weight" if config.tied else "output.weight"))
