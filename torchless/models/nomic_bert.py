"""nomic-bert: BERT with rotary positions, without biases, and with a gated MLP.

Nussbaum et al. 2024 (Nomic Embed).
"""

from __future__ import annotations

from torchless.blocks import attention, gated_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.encoders import finish_encoder, layer_norm, read_encoder_settings
from torchless.plan import Plan

ARCHITECTURES = ("nomic-bert",)
LIMITS = ("embeddings and scores", "no scaled rotary positions")


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    return read_encoder_settings(reader, activation="silu", rotates=True)


def forward(plan: Plan, config: ModelConfig) -> None:
    """Tokens to final states, or to a classifier's scores."""
    x = plan.embed("token_embd.weight")
    if "token_types.weight" in plan.shapes:
        x = plan.add(x, plan.embed("token_types.weight", index="type"))
    x = layer_norm(plan, x, "token_embd_norm", config)
    for layer in range(config.num_layers):
        mixed = attention(plan, x, config, layer=layer, causal=False)
        x = layer_norm(plan, plan.add(x, mixed), f"blk.{layer}.attn_output_norm", config)
        h = gated_mlp(plan, x, layer=layer, activation="silu")
        x = layer_norm(plan, plan.add(x, h), f"blk.{layer}.layer_output_norm", config)
    finish_encoder(plan, x)
