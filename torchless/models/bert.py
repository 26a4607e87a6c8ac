"""BERT, RoBERTa and XLM-RoBERTa: the encoders of MiniLM, BGE, E5, GTE and of most rerankers.

Devlin et al. 2018 (BERT), Liu et al. 2019 (RoBERTa), Conneau et al. 2019 (XLM-RoBERTa). Learned positions, attention
over the whole text, an MLP without a gate, and a norm behind every sum.
"""

from __future__ import annotations

from torchless.blocks import attention, plain_mlp
from torchless.config import ConfigReader, ModelConfig
from torchless.encoders import finish_encoder, layer_norm, read_encoder_settings
from torchless.plan import Plan

ARCHITECTURES = ("bert",)
LIMITS = ("embeddings and scores",)


def read_config(reader: ConfigReader) -> ModelConfig:
    """Reads the settings, refusing those that would change the arithmetic below."""
    return read_encoder_settings(reader, activation="gelu", rotates=False)


def forward(plan: Plan, config: ModelConfig) -> None:
    """Tokens to final states, or to a classifier's scores."""
    x = plan.add(plan.embed("token_embd.weight"), plan.embed("position_embd.weight", index="position"))
    if "token_types.weight" in plan.shapes:
        x = plan.add(x, plan.embed("token_types.weight", index="type"))
    x = layer_norm(plan, x, "token_embd_norm", config)
    for layer in range(config.num_layers):
        mixed = attention(plan, x, config, layer=layer, rotates=False, causal=False)
        x = layer_norm(plan, plan.add(x, mixed), f"blk.{layer}.attn_output_norm", config)
        h = plain_mlp(plan, x, layer=layer, activation="gelu")
        x = layer_norm(plan, plan.add(x, h), f"blk.{layer}.layer_output_norm", config)
    finish_encoder(plan, x)
